"""An hour of stream at simulated speed, with 200 faults at random: every estimate is there or a notice says why not, and nothing is left behind."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from soaking import OUTSIDE, Report, soak

from sage_edge.runtime.bundle import Bundle

GROWTH_MB = 4
"""In the second half of the hour, with some eight new sessions: what allocators do. A frame kept in a second would be 100 MB."""

STEADY_MB = 1
"""The same without new sessions (seen: 0.1)."""
USED_MB = 0.25
"""What malloc has given out may rise by so much an hour, beyond three standard errors of its slope: 40 bytes an estimate, or 15 kB a session."""

pytest.importorskip("websockets", reason="needs websockets: pip install 'sage-edge[serve]'")


def check(report: Report) -> None:
    print(json.dumps(report.to_dict()))
    assert report.problems == []
    assert report.notices["clock_jump"] == report.faults["clock jump"]
    assert report.lives == report.faults["stop"] + 1
    assert {"stop", "clock jump", "disk full"} <= {kind for kind in OUTSIDE if report.faults[kind]}
    assert report.notices["camera_open"] > report.faults["camera gone"]
    assert report.notices["sink_recovered"] <= report.notices["sink_failed"]


def check_used(report: Report) -> None:
    """What is in use does not grow, whatever an allocator keeps of what was freed."""
    if report.used_mb:
        slope, error = report.slope_mb_per_hour(report.used_mb)
        assert slope < 3 * error + USED_MB, report.used_mb


@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
def test_two_minutes_with_a_fault_of_every_kind(bundle: Bundle, tmp_path: Path) -> None:
    check(soak(bundle, tmp_path, 150, 16, seed=1))


@pytest.mark.slow
@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
def test_an_hour_with_two_hundred_faults(bundle: Bundle, tmp_path: Path) -> None:
    report = soak(bundle, tmp_path)
    check(report)
    assert report.growth_mb() < GROWTH_MB, report.rss_mb
    check_used(report)


@pytest.mark.slow
@pytest.mark.nightly
def test_an_hour_without_faults_needs_no_more_memory(bundle: Bundle, tmp_path: Path) -> None:
    report = soak(bundle, tmp_path, faults=0)
    print(json.dumps(report.to_dict()))
    assert report.problems == []
    assert report.lives == 1
    assert report.growth_mb() < STEADY_MB, report.rss_mb
    check_used(report)
