"""The error tree: every message is one line with the fact, the value and the fix.

`sage-edge` prints `error: MESSAGE` and exits with `exit_code`; a library user catches `SageError` or one of its children.
"""


class SageError(Exception):
    """Anything sage-edge refuses or fails at. `exit_code` is what the command line returns."""

    exit_code = 1


class UsageError(SageError):
    """Wrong use: an unknown name, an option that does not fit the others."""

    exit_code = 2


class DataError(SageError):
    """A corpus, a label file or a prepared store that cannot be used."""


class SourceError(SageError):
    """A video, camera, microphone or other source that cannot be opened or read."""


class SinkError(SageError):
    """An output that cannot be opened or written."""


class CheckpointError(SageError):
    """A training checkpoint that cannot be read or does not fit the model asked for."""


class CompileError(SageError):
    """Export, calibration or quantization failed, or cost more CCC than allowed."""


class BundleError(SageError):
    """A bundle that is damaged, incomplete, unsafe or made for another version."""


class EngineError(SageError):
    """An inference backend that is missing or cannot run a graph."""


class BoardError(SageError):
    """A board's own tool or setting that does not do what was asked of it: power mode, clocks, services."""


class NativeError(SageError):
    """A call into libsage that returned an error code; `code` is that code."""

    def __init__(self, message: str, code: int = 0) -> None:
        super().__init__(message)
        self.code = code
