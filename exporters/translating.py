"""torch.onnx and onnxsim as both exports call them: their faults become errors that say what could not be made."""

from __future__ import annotations

import re
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
        operator, reason = _told(error)
        raise ExportError(f"torch.onnx cannot translate {operator}{what}: {reason}", hint=hint) from error


def _told(error: BaseException) -> tuple[str, str]:
    """("aten.x.default of " where an operator is at fault, what is said of it): the innermost fault has both.

    The outermost one is torch's advice to its own developers.
    """
    operator, chain = "", [error]
    while (inner := chain[-1].__cause__) is not None:
        chain.append(inner)
    for fault in chain:
        if found := re.search(r"call_function\[target=torch\.ops\.([\w.]+)\]", str(fault)):
            operator = f"{found[1]} of "
    fault = chain[-1] if operator else error
    return operator, f"{type(fault).__name__}: {str(fault)[:_MOST]}"


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
