"""The other end of `edge4d.exporters.child`: serves one parent, order by order, in a process of its own.

This file imports nothing but the standard library (and numpy when arrays come), for it may run under an interpreter
that has no edge4d: a vendor's toolkit with pins of its own. What it is told to call may be a function of a package
(``package.module:function``) or of a file (``/path/file.py:function``).

A message is a line of JSON, then the bytes of the arrays that its key ``arrays`` lists.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

__all__ = ["find", "main", "receive", "send"]


def send(stream: IO[bytes], message: Mapping[str, Any], arrays: Mapping[str, Any] | None = None) -> None:
    """Write one message and flush it."""
    blocks = [(name, _as_contiguous(array)) for name, array in (arrays or {}).items()]
    listed = [[name, block.dtype.name, list(block.shape)] for name, block in blocks]
    stream.write(json.dumps({**message, "arrays": listed}).encode() + b"\n")
    for _, block in blocks:
        stream.write(block.tobytes())
    stream.flush()


def receive(stream: IO[bytes]) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """The next message and its arrays by name; None when the other side has gone."""
    line = stream.readline()
    if not line.endswith(b"\n"):
        return None
    message: dict[str, Any] = json.loads(line)
    arrays: dict[str, Any] = {}
    for name, dtype, shape in message.pop("arrays"):
        array = _empty(dtype, shape)
        data = stream.read(array.nbytes)
        if len(data) != array.nbytes:
            return None
        array.reshape(-1).view("u1")[:] = memoryview(data)
        arrays[name] = array
    return message, arrays


def _as_contiguous(array: Any) -> Any:
    import numpy as np

    return np.asarray(array, order="C")


def _empty(dtype: str, shape: list[int]) -> Any:
    import numpy as np

    try:
        return np.empty(shape, np.dtype(dtype))
    except TypeError:
        import ml_dtypes  # bfloat16 and its kin, which numpy does not know by name

        return np.empty(shape, getattr(ml_dtypes, dtype))


def find(target: str) -> Callable[[Any], Any]:
    """The function that ``package.module:function`` or ``/path/file.py:function`` names."""
    place, _, name = target.rpartition(":")
    if not place.endswith(".py"):
        found: Callable[[Any], Any] = getattr(importlib.import_module(place), name)
        return found
    spec = importlib.util.spec_from_file_location(Path(place).stem + "_in_child", place)
    if spec is None or spec.loader is None:
        raise ImportError(f"cannot load {place}")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    named: Callable[[Any], Any] = getattr(module, name)
    return named


def main() -> int:
    """Serve until the parent closes the pipe.

    Orders: ``call`` runs a function and gives back its result; ``open`` keeps what a function returns as the session,
    ``run`` runs that session on the arrays sent along.
    """
    # Whatever a library prints goes to stderr, and none can read our orders: the pipes carry the protocol alone.
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    orders = os.fdopen(os.dup(0), "rb")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    session: Any = None
    while (got := receive(orders)) is not None:
        order, arrays = got
        try:
            if order["path"] is not None:
                sys.path[:] = order["path"]
            if order["do"] == "call":
                _die_with_parent()
                send(replies, {"result": find(order["target"])(order["argument"])})
            elif order["do"] == "open":
                session = find(order["target"])(order["argument"])
                send(replies, {"result": _description(session)})
            else:
                results = session.run(arrays)
                send(replies, {"result": getattr(session, "spent", None)}, results)
        except Exception as error:  # everything is told to the parent, which raises it again
            send(replies, {"error": _failure(error)})
    return 0


def _description(session: Any) -> dict[str, Any]:
    def ports(side: Any) -> list[Any]:
        return [port.to_dict() if hasattr(port, "to_dict") else port for port in side]

    return {
        "inputs": ports(session.inputs),
        "outputs": ports(session.outputs),
        "metadata": dict(session.metadata),
        "details": dict(session.details),
    }


def _failure(error: Exception) -> dict[str, Any]:
    failure: dict[str, Any] = {"type": type(error).__name__, "message": getattr(error, "message", str(error))}
    failure["hint"] = getattr(error, "hint", None)
    if isinstance(error, OSError):
        failure["os"] = [error.errno, error.strerror, error.filename]
    failure["trace"] = traceback.format_exc()
    return failure


def _die_with_parent() -> None:
    """On Linux, have the kernel end this process with the thread that started it: no hanging compiler is left behind.

    Only while that thread waits for us. A session may outlive the thread that opened it, and ends when its pipe does.
    """
    if sys.platform == "linux":
        import ctypes

        set_parent_death_signal, kill = 1, 9
        ctypes.CDLL(None).prctl(set_parent_death_signal, kill)


if __name__ == "__main__":
    sys.exit(main())
