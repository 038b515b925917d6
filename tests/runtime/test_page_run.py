"""A real `sage-edge run --serve`, seen in a real browser: what the page shows is what the run wrote."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from chromium import BINARY, MISSING, Chromium
from make_video import even_stamps, write_video
from moving_face import Person, Room, path_of

pytest.importorskip("websockets", reason="pip install 'sage-edge[serve]'")

DEADLINE_S = 60.0


@pytest.mark.slow
@pytest.mark.skipif(BINARY is None, reason=MISSING)
def test_the_page_shows_what_the_run_wrote(bundle_path: Path, tmp_path: Path) -> None:
    person, room = Person(8), Room((320, 240))
    shots = [room.shot(index, [(person, path_of(index, (320, 240), 70))]) for index in range(30)]
    clip = write_video(tmp_path / "talk.mp4", stamps_s=even_stamps(30, 1200), picture=lambda i, _: shots[i % 30], size=(320, 240))
    command = [sys.executable, "-m", "sage_edge.cli.main", "run", str(bundle_path), "--camera", str(clip), "--serve", "127.0.0.1:0", "--share-video"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen([*command, "--out", f"jsonl:{tmp_path}/x.jsonl"], stderr=subprocess.PIPE, text=True, env=environment) as run:
        killer = threading.Timer(DEADLINE_S, run.kill)
        killer.start()
        try:
            assert run.stderr is not None
            said = ""
            while (found := re.search(r"the page is at (http://\S+)", said)) is None:
                line = run.stderr.readline()
                assert line, said
                said += line
            with Chromium(tmp_path / "profile") as browser:
                tab = browser.open(found.group(1))
                tab.until("state.latest.length > 0 && state.latest[0].face !== null && state.status !== null && picture !== null")
                tab.until("document.getElementById('connection').dataset.state === 'live' && document.getElementById('stages').children.length > 3")
                tab.until("[...state.series.values()].flatMap((line) => line.hops).length > 1")
                shown = tab.js("[...state.series.values()].flatMap((line) => line.hops.map((hop) => [hop.t, hop.v, hop.a]))")
                assert tab.js("[picture.width, picture.height]") == [320, 240]
                assert "camera open" in tab.js("document.getElementById('notices').innerText")
                assert tab.errors == []
                run.send_signal(signal.SIGTERM)
                said += run.stderr.read()
                assert run.wait() == 0, said
                tab.until("document.getElementById('connection').dataset.state === 'lost'")
        finally:
            killer.cancel()
            run.kill()
    lines = [json.loads(line) for line in (tmp_path / "x.jsonl").read_text().splitlines()]
    written = {round(line["t_ns"] / 1e6, 3): line["smooth"] for line in lines if "type" not in line}
    assert len(shown) >= 2
    for t, valence, arousal in shown:
        assert written[round(t, 3)] == {"valence": valence, "arousal": arousal}
    assert "Traceback" not in said
