"""Errors a user can cause, and the one that is our own bug.

Every message says what failed, where, what was got and expected, and what to do. The exit codes are the command
line's contract: 1 a finding or a failed parity, 2 usage or unreadable input, 3 a runtime is missing, 70 our bug.
"""

from __future__ import annotations

__all__ = [
    "CaptureError",
    "Edge4dError",
    "ExportError",
    "GateError",
    "InternalError",
    "LoadError",
    "LoweringError",
    "PackingError",
    "ParityError",
    "RuntimeFailed",
    "RuntimeUnavailable",
    "UsageError",
    "ValidationError",
]


class Edge4dError(Exception):
    """What a user can cause and mend: shown without a traceback.

    Args:
        message: what failed, where, got and expected.
        hint: what to do about it, one sentence or a command.
    """

    exit_code = 2

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return self.message if self.hint is None else f"{self.message}\n  what to do: {self.hint}"


class UsageError(Edge4dError):
    """A wrong option, argument or combination of them."""


class LoadError(Edge4dError):
    """A model file that is missing, unreadable, of an unknown kind or not to be trusted."""


class PackingError(Edge4dError):
    """A packing pattern or shape that does not describe the tensor."""


class CaptureError(Edge4dError):
    """`torch.export` could not turn the model into a graph."""


class LoweringError(Edge4dError):
    """The graph holds something that no rule can bring to rank 4."""

    exit_code = 1


class ExportError(Edge4dError):
    """The lowered graph could not be written as an artifact."""


class ValidationError(Edge4dError):
    """A file given to a validator cannot be read as what it should be."""


class GateError(Edge4dError):
    """A graph, or what a runtime made of it, holds more axes than the target takes."""

    exit_code = 1


class ParityError(Edge4dError):
    """Two models do not give the same numbers."""

    exit_code = 1


class RuntimeUnavailable(Edge4dError):
    """A runtime (ONNX Runtime, TensorRT, …) is not installed or cannot run here."""

    exit_code = 3


class RuntimeFailed(Edge4dError):
    """A runtime is here but failed: it hung, its process died, or it refused to build or run an engine."""


class InternalError(Exception):
    """Our bug: stands outside the user-error tree and keeps its traceback."""

    exit_code = 70
