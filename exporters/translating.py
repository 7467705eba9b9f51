"""torch.onnx and onnxsim as both exports call them: their faults become errors that say what could not be made."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from edge4d.errors import ExportError
from edge4d.quiet import quiet

if TYPE_CHECKING:
    from collections.abc import Iterator

    import onnx

__all__ = ["simplified", "translating"]

_MOST = 1500
"""Characters of torch's own message that are shown; it may carry a whole graph."""


@contextmanager
def translating(what: str, hint: str) -> Iterator[None]:
    """A block that calls `torch.onnx.export`.

    Args:
        what: is translated, as in "torch.onnx cannot translate …".
        hint: what the user can do where that fails.

    Raises:
        ExportError: for any fault inside, by its type and the beginning of its message.
    """
    try:
        yield
    except Exception as error:  # torch.onnx wraps its faults in types of its own, private ones among them
        raise ExportError(
            f"torch.onnx cannot translate {what}: {type(error).__name__}: {str(error)[:_MOST]}", hint=hint
        ) from error


def simplified(proto: onnx.ModelProto, what: str, hint: str | None = None) -> onnx.ModelProto:
    """What onnxsim makes of a model that fits a protobuf.

    Raises:
        ExportError: onnxsim's own check says that the numbers differ.
    """
    import onnxsim

    with quiet():
        made, same = onnxsim.simplify(proto)
    if not same:
        raise ExportError(f"onnxsim's own check says that {what}, simplified, differs", hint=hint)
    result: onnx.ModelProto = made
    return result
