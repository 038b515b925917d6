"""What holds of runtime/engines/cuda.py over any driver. Run by test_cuda.py in another process; `set_up` says through which binding."""

from __future__ import annotations

import contextlib
import io
import threading
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from fake_cuda import CAPTURE_UNSUPPORTED, ILLEGAL_ADDRESS, OUT_OF_MEMORY, Fake

from sage_edge.runtime.engines.cuda import Cuda, open_cuda
from sage_edge.runtime.errors import EngineError

BINDING = "cuda-python"
SIZE = 4096


def set_up(binding: str) -> None:
    global BINDING
    BINDING = binding


@contextlib.contextmanager
def opened() -> Iterator[Cuda]:
    cuda = open_cuda(BINDING)
    try:
        with cuda.current():
            yield cuda
    finally:
        cuda.close()
        cuda.close()


def refused(work: Callable[[], object]) -> str:
    with pytest.raises(EngineError) as caught:
        work()
    return one_line(caught.value)


def one_line(error: EngineError) -> str:
    assert "\n" not in str(error)
    return str(error)


def check_device(fake: Fake) -> None:
    with opened() as cuda:
        device = cuda.device
        assert (device.name, device.sm, device.driver, device.memory_bytes) == ("Pretend GPU", "8.7", "13.0", 1 << 30), device
        assert cuda.driver.name.startswith(BINDING)


def check_round_trips_are_equal_and_wait_for_the_stream(fake: Fake) -> None:
    rng = np.random.default_rng(0)
    with opened() as cuda:
        stream = cuda.stream()
        for size in (1, 255, SIZE, 1 << 20):
            memory, there, back = cuda.alloc(size), cuda.pinned(size), cuda.pinned(size)
            assert not there.any()
            there[...] = rng.integers(1, 256, size)
            cuda.copy_in(memory.address, there, stream)
            cuda.copy_out(back, memory.address, stream)
            assert not back.any(), "the stream has not run yet"
            stream.synchronise()
            assert np.array_equal(there, back)
    assert fake.pageable() == 0


def check_views_of_pinned_memory_are_copied_as_they_lie(fake: Fake) -> None:
    with opened() as cuda:
        stream, memory, block, back = cuda.stream(), cuda.alloc(SIZE), cuda.pinned(SIZE), cuda.pinned(SIZE)
        view = block[1024:2048].view(np.float32).reshape(16, 16)
        view[...] = np.arange(256).reshape(16, 16)
        cuda.copy_in(memory.address + 256, view, stream)
        cuda.copy_out(back[:1024], memory.address + 256, stream)
        stream.synchronise()
        assert np.array_equal(back[:1024].view(np.float32), view.ravel())
        assert fake.pageable() == 0
        assert refused_or_value_error(lambda: cuda.copy_in(memory.address, view.T, stream))


def refused_or_value_error(work: Callable[[], object]) -> bool:
    """pycuda takes any contiguous order, Fortran's too."""
    return BINDING == "pycuda" or "contiguous" in refused(work)


def check_streams_run_in_order(fake: Fake) -> None:
    with opened() as cuda:
        stream, memory, a, b = cuda.stream(), cuda.alloc(SIZE), cuda.pinned(SIZE), cuda.pinned(SIZE)
        a[...], b[...] = 1, 2
        for source in (a, b, a, b):
            cuda.copy_in(memory.address, source, stream)
        cuda.copy_out(a, memory.address, stream)
        stream.synchronise()
        assert (a == 2).all()


def check_events_are_ordered_and_timed(fake: Fake) -> None:
    with opened() as cuda:
        stream, memory, host = cuda.stream(), cuda.alloc(SIZE), cuda.pinned(SIZE)
        events = [cuda.event() for _ in range(3)]
        events[0].record(stream)
        cuda.copy_in(memory.address, host[:1024], stream)
        events[1].record(stream)
        cuda.copy_in(memory.address, host, stream)
        events[2].record(stream)
        assert "NOT_READY" in refused(lambda: events[2].ms_since(events[0])) or BINDING == "pycuda"
        stream.synchronise()
        first, second, both = events[1].ms_since(events[0]), events[2].ms_since(events[1]), events[2].ms_since(events[0])
        assert 0 < first < second < both
        assert abs(first + second - both) < 1e-5


def check_what_was_made_is_freed_by_whoever_comes_first(fake: Fake) -> None:
    cuda = open_cuda(BINDING)
    with cuda.current():
        stream, memory, event = cuda.stream(), cuda.alloc(SIZE), cuda.event()
    assert fake.live() == {"device": 1, "stream": 1, "event": 1, "context": 1}
    memory.close()
    memory.close()
    assert fake.live() == {"stream": 1, "event": 1, "context": 1}
    cuda.free(event, memory)
    assert fake.live() == {"stream": 1, "context": 1}
    cuda.close()
    stream.close()
    assert not fake.live()


def check_pinned_memory_goes_with_its_last_array(fake: Fake) -> None:
    with opened() as cuda:
        block = cuda.pinned(SIZE)
        block[...] = 7
        view = block[8:16].view(np.float32)
        del block
        assert fake.live() == {"pinned": 1, "context": 1}
    assert fake.live() == {"pinned": 1, "context": 1}, "somebody still looks at it"
    assert (view.view(np.uint8) == 7).all()
    del view
    assert not fake.live()


def check_several_share_the_device(fake: Fake) -> None:
    one, other = open_cuda(BINDING), open_cuda(BINDING)
    with one.current():
        a = one.alloc(SIZE)
        with other.current():
            b = other.alloc(SIZE)
    assert a.address != b.address
    other.close()
    assert fake.live() == {"device": 1, "context": 1}
    one.close()


def check_threads_may_take_turns(fake: Fake) -> None:
    cuda = open_cuda(BINDING)
    with cuda.current():
        stream, memory = cuda.stream(), cuda.alloc(SIZE)
    failed: list[BaseException] = []

    def work() -> None:
        try:
            with cuda.current():
                cuda.copy_in(memory.address, cuda.pinned(SIZE), stream)
                stream.synchronise()
            cuda.close()
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert not failed, failed
    assert fake.calls("cuStreamSynchronize") == 1


def check_too_much_memory_is_a_line(fake: Fake) -> None:
    with opened() as cuda:
        text = refused(lambda: cuda.alloc(1 << 40))
        assert text.startswith("cannot allocate 1099511627776 bytes on Pretend GPU: "), text
        assert "cuMemAlloc" in text
        if BINDING == "cuda-python":
            assert text.endswith("cuMemAlloc says CUDA_ERROR_OUT_OF_MEMORY; close what else uses the GPU")


def check_an_error_of_the_device_surfaces_where_it_is_waited_for_and_nothing_hangs(fake: Fake) -> None:
    with contextlib.redirect_stderr(io.StringIO()) as said, opened() as cuda:
        stream, memory, host = cuda.stream(), cuda.alloc(SIZE), cuda.pinned(SIZE)
        cuda.copy_in(memory.address, host, stream)
        fake.fail("cuStreamSynchronize", 1, ILLEGAL_ADDRESS)
        text = refused(stream.synchronise)
        assert text.startswith("cannot wait for the GPU: ")
        assert BINDING == "pycuda" or "CUDA_ERROR_ILLEGAL_ADDRESS" in text
        del host
    assert not said.getvalue()


def check_what_cannot_be_freed_is_said_once(fake: Fake) -> None:
    if BINDING == "pycuda":
        return  # it says so itself, for each
    with contextlib.redirect_stderr(io.StringIO()) as said, opened() as cuda:
        for _ in range(3):
            cuda.alloc(SIZE)
        fake.fail("cuMemFree_v2", 0, ILLEGAL_ADDRESS)
    (line,) = said.getvalue().splitlines()
    assert line.startswith("note: cannot free memory on the GPU: cuMemFree says CUDA_ERROR_ILLEGAL_ADDRESS")
    assert "3 thing(s)" in line


def check_graphs_replay_what_was_captured(fake: Fake) -> None:
    with opened() as cuda:
        stream, memory, host, back = cuda.stream(), cuda.alloc(SIZE), cuda.pinned(SIZE), cuda.pinned(SIZE)

        def work() -> None:
            cuda.copy_in(memory.address, host, stream)
            cuda.copy_out(back, memory.address, stream)

        if BINDING == "pycuda":
            assert "pycuda 20" in refused(lambda: cuda.capture(stream, work))
            return
        graph = cuda.capture(stream, work)
        stream.synchronise()
        assert not back.any(), "capturing runs nothing"
        calls = fake.calls("cuMemcpyHtoDAsync_v2")
        for value in (3, 5):
            host[...] = value
            graph.launch(stream)
            stream.synchronise()
            assert (back == value).all()
        assert fake.calls("cuMemcpyHtoDAsync_v2") == calls
        assert fake.made()["exec"] == 1
        assert fake.live() == {"device": 1, "pinned": 2, "stream": 1, "exec": 1, "context": 1}


def check_work_that_cannot_be_captured_leaves_the_stream_as_it_was(fake: Fake) -> None:
    if BINDING == "pycuda":
        return
    with opened() as cuda:
        stream, memory, host, back = cuda.stream(), cuda.alloc(SIZE), cuda.pinned(SIZE), cuda.pinned(SIZE)
        host[...] = 9

        def copies() -> None:
            cuda.copy_in(memory.address, host, stream)

        def allocates() -> None:
            copies()
            cuda.alloc(SIZE)

        def waits() -> None:
            copies()
            stream.synchronise()

        def pageable() -> None:
            cuda.copy_in(memory.address, np.zeros(SIZE, np.uint8), stream)

        for work in (allocates, waits, pageable):
            assert "CAPTURE" in refused(lambda work=work: cuda.capture(stream, work))

        def fails() -> None:
            copies()
            raise ZeroDivisionError

        with contextlib.suppress(ZeroDivisionError):
            cuda.capture(stream, fails)
        fake.fail("cuStreamBeginCapture_v2", 1, CAPTURE_UNSUPPORTED)
        assert "CAPTURE_UNSUPPORTED; it runs without a graph" in refused(lambda: cuda.capture(stream, copies))
        stream.synchronise()
        copies()
        cuda.copy_out(back, memory.address, stream)
        stream.synchronise()
        assert (back == 9).all()
        assert fake.live() == {"device": 1, "pinned": 2, "stream": 1, "context": 1}


def everything(cuda: Cuda) -> None:
    with cuda.current():
        stream, memory, host = cuda.stream(), cuda.alloc(SIZE), cuda.pinned(SIZE)
        start, end = cuda.event(), cuda.event()

        def work() -> None:
            cuda.copy_in(memory.address, host, stream)
            cuda.copy_out(host, memory.address, stream)

        start.record(stream)
        work()
        end.record(stream)
        stream.synchronise()
        end.ms_since(start)
        if BINDING != "pycuda":
            graph = cuda.capture(stream, work)
            graph.launch(stream)
            stream.synchronise()
            graph.close()
        memory.close()


WORK = ("StreamCreate", "MemAlloc_v2", "MemHostAlloc", "EventCreate", "EventRecord", "MemcpyHtoDAsync_v2", "MemcpyDtoHAsync_v2", "StreamSynchronize")
FREES = ("MemFree_v2", "MemFreeHost", "StreamDestroy_v2", "EventDestroy_v2")


def check_no_failing_call_leaks(fake: Fake) -> None:
    """The n-th call fails, for each n: one line or nothing, and nothing stays that the driver did not refuse to free."""
    cuda = open_cuda(BINDING)
    opening = fake.calls()
    everything(cuda)
    cuda.close()
    # pycuda does not survive failures of its own context handling
    names = [""] if BINDING == "cuda-python" else [f"cu{name}" for name in (*WORK, *FREES)]
    rounds = [(name, n) for name in names for n in range(1, fake.calls(name) + 1 - (0 if name else opening))]
    assert len(rounds) >= 12, rounds
    lines = set()
    for name, n in rounds:
        fake.reset()
        with contextlib.redirect_stderr(io.StringIO()):
            cuda = None
            try:
                cuda = open_cuda(BINDING)
                fake.fail(name, n, OUT_OF_MEMORY)
                everything(cuda)
            except EngineError as error:
                lines.add(one_line(error).split(":")[0])
            for _ in range(2):  # the context may be what was out of reach at first
                with contextlib.suppress(EngineError):
                    cuda.close()
        assert not fake.live(), (name, n, fake.live())
        assert not fake.misuse(), (name, n, fake.misuse())
    assert len(lines) > 6, lines


def check_no_failing_call_leaks_while_opening(fake: Fake) -> None:
    if BINDING == "pycuda":
        return
    open_cuda(BINDING).close()
    for n in range(1, fake.calls()):
        fake.reset()
        fake.fail("", n, OUT_OF_MEMORY)
        assert "cannot " in refused(lambda: open_cuda(BINDING)), n
        assert not fake.live()
