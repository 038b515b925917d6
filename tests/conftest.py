"""What every test relies on."""

import signal
import sys
from collections.abc import Iterator

import pytest


def pytest_configure() -> None:
    """Children get SIGINT as from a terminal, also where the tests themselves run in the background of a script, which ignores it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def threads_as_before() -> Iterator[None]:
    """Verbs that run in this process set the number of torch's threads, on which sums depend in their last bit."""
    torch = sys.modules.get("torch")
    before = torch.get_num_threads() if torch else None
    yield
    if torch and before:
        torch.set_num_threads(before)
