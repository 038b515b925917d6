"""What every test relies on."""

import signal


def pytest_configure() -> None:
    """Children get SIGINT as from a terminal, also where the tests themselves run in the background of a script, which ignores it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
