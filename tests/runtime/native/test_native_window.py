"""The feature window is its twin, never copies, and its views outlive it."""

from __future__ import annotations

import gc
import weakref

import native_twins as twins
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sage_edge.runtime.errors import NativeError
from sage_edge.runtime.native import FeatureWindow


@settings(max_examples=100, deadline=None)
@given(
    rows=st.integers(1, 12),
    dim=st.integers(1, 9),
    steps=st.lists(st.tuples(st.sampled_from(["push", "push_from", "skip"]), st.integers(0, 15)), max_size=40),
)
def test_window_is_its_twin(rows: int, dim: int, steps: list[tuple[str, int]]) -> None:
    window, twin = FeatureWindow(rows, dim), twins.Window(rows, dim)
    source = np.zeros((3, dim), np.float32)
    push = window.push_from(source)
    assert np.array_equal(window.view(), twin.view())
    for k, (step, n) in enumerate(steps):
        row = np.arange(dim, dtype=np.float32) + 100 * (k + 1)
        if step == "push":
            window.push(row)
            twin.push(row)
        elif step == "push_from":
            source[:] = -1
            source[k % 3] = row
            push(n % (dim + 1), k % 3)
            twin.push(np.where(np.arange(dim) < n % (dim + 1), row, np.float32(0)))
        else:
            window.skip(n)
            for _ in range(n):
                twin.push(np.zeros(dim, np.float32))
        assert np.array_equal(window.view(), twin.view())


def test_views_are_contiguous_memory_of_the_window() -> None:
    window = FeatureWindow(300, 2048)
    for k in range(650):
        window.push(np.full(2048, k, np.float32))
        view = window.view()
        assert view.flags.c_contiguous
        assert not view.flags.owndata
        assert view.shape == (300, 2048)
        assert np.shares_memory(view, window._buffer)
    assert view[:, 0].tolist() == list(range(350, 650))


def test_a_view_outlives_its_window() -> None:
    window = FeatureWindow(4, 3)
    window.push(np.ones(3, np.float32))
    view = window.view()
    del window
    gc.collect()
    filler = [FeatureWindow(4, 3) for _ in range(50)]  # memory that was given back would be taken again here
    for other in filler:
        other.push(np.full(3, 9, np.float32))
    assert view[-1].tolist() == [1, 1, 1]


def test_what_pushes_keeps_the_window() -> None:
    window = FeatureWindow(4, 3)
    push, handle = window.push_from(np.ones((1, 3), np.float32)), weakref.ref(window._handle)
    del window
    gc.collect()
    push(3, 0)
    assert handle() is not None
    del push
    gc.collect()
    assert handle() is None


def test_wrong_use() -> None:
    with pytest.raises(NativeError, match="SAGE_E_SIZE"):
        FeatureWindow(0, 4)
    window = FeatureWindow(2, 4)
    for row in (np.zeros(3, np.float32), np.zeros(4), np.zeros(8, np.float32)[::2]):
        with pytest.raises(NativeError, match="expected C-contiguous float32 of 4 elements"):
            window.push(row)
    for n in (-1, 5):
        with pytest.raises(NativeError, match=f"push of {n} floats to a window of 4 wide rows: .*SAGE_E_SIZE"):
            window.push_from(np.zeros((2, 4), np.float32))(n, 0)
    for n, at in ((1, -1), (1, 2), (5, 1), (9, 0)):
        with pytest.raises(NativeError, match=f"push of {n} floats from item {at} of 2, 4 wide each"):
            window.push_from(np.zeros((2, 4), np.float32))(n, at)
    for source in (np.zeros(4, np.float32), np.zeros((2, 4)), np.zeros((2, 8), np.float32)[:, ::2]):
        with pytest.raises(NativeError, match=r"expected C-contiguous float32 \[items, width\]"):
            window.push_from(source)
    assert not window.view().any(), "what was refused has changed nothing"
    with pytest.raises(NativeError, match="skip of -1 rows"):
        window.skip(-1)
