"""The one error of the tools on the host: its message is one line with the fact, the value and the fix; the tool prints it and exits with 1."""


class HostError(Exception):
    """Something is missing or does not fit; nothing was written that a second run cannot go on from."""
