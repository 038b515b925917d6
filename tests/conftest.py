"""What every test relies on."""

import signal
import sys
from collections.abc import Iterator

import pytest


def pytest_configure() -> None:
    """Children get SIGINT as from a terminal, also where the tests themselves run in the background of a script, which ignores it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def signals_as_before() -> Iterator[None]:
    """A program's main that is called in this process leaves the handlers of signals as they were."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.getsignal(number) for number in numbers]
    yield
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


@pytest.fixture(autouse=True)
def threads_as_before() -> Iterator[None]:
    """Verbs that run in this process set the number of torch's threads, on which sums depend in their last bit."""
    torch = sys.modules.get("torch")
    before = torch.get_num_threads() if torch else None
    yield
    if torch and before:
        torch.set_num_threads(before)
