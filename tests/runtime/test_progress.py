"""Progress: redrawn in place on a terminal, whole plain lines elsewhere, the last count always shown."""

import io

from sage_edge.runtime.progress import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_plain_lines_without_control_characters_when_not_a_terminal() -> None:
    stream = io.StringIO()
    with Progress("encode", total=3, unit="clips", stream=stream) as progress:
        for _ in range(3):
            progress.step(note="ok")
    assert "\r" not in stream.getvalue()
    assert stream.getvalue().startswith("encode 3/3 clips")
    assert stream.getvalue().endswith("ok\n")


def test_the_last_count_is_shown_once() -> None:
    stream = io.StringIO()
    with Progress("encode", total=1, stream=stream) as progress:
        progress._every_s = 0.0
        progress.step()
    assert len(stream.getvalue().splitlines()) == 1


def test_a_terminal_is_redrawn_and_ends_with_a_newline() -> None:
    stream = Terminal()
    with Progress("encode", stream=stream) as progress:
        progress.step()
    assert stream.getvalue().startswith("\r")
    assert stream.getvalue().endswith("\n")


def test_what_is_not_shown_is_counted_and_writes_nothing() -> None:
    stream = Terminal()
    with Progress("encode", total=2, stream=stream, shown=False) as progress:
        progress._every_s = 0.0
        progress.step()
        progress.step(note="ok")
    assert progress.done == 2
    assert not stream.getvalue()
