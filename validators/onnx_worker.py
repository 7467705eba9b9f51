"""The process in which ONNX's own C++ works on a file that nobody vouches for.

A request is an order of one byte, eight bytes that state a length, and a model of that length; a reply is the same with
``+`` and a model, ``-`` and what is wrong with it, or ``!`` and what was too much. An empty reply before
the first request says that it is ready. It ends when its input does.
"""

from __future__ import annotations

import os
import struct
import sys
from pathlib import Path
from typing import BinaryIO

__all__ = ["HEADER", "INFER", "INFER_SIZES", "INLINE", "main"]

HEADER = struct.Struct(">cQ")
INFER, INFER_SIZES, INLINE = b"i", b"s", b"f"

_SPARE = 512 * 2**20  # bytes that any request may take
_FACTOR = 200  # and what it may take for each byte of the model, which is a copy without weights


def main() -> int:
    """Serve the parent until it goes away."""
    # Whatever a library below Python prints goes to stderr; stdout carries the protocol alone.
    replies = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    from onnx import ModelProto, inliner, shape_inference

    _say(replies, b"+", b"")  # ready
    while len(head := sys.stdin.buffer.read(HEADER.size)) == HEADER.size:
        order, length = HEADER.unpack(head)
        data = sys.stdin.buffer.read(length)
        _limit_memory(_SPARE + _FACTOR * length)
        try:
            if order == INLINE:
                model = inliner.inline_local_functions(ModelProto.FromString(data))
            else:
                model = shape_inference.infer_shapes(data, data_prop=order == INFER_SIZES)
            result = model.SerializeToString()
        except MemoryError:
            _say(replies, b"!", b"it takes too much memory")
        except Exception as error:  # the C++ side raises types of its own, and RuntimeError
            _say(replies, b"-", (str(error) or type(error).__name__).encode("utf-8", "replace"))
        else:
            _say(replies, b"+", result)
    return 0


def _say(replies: BinaryIO, status: bytes, data: bytes) -> None:
    replies.write(HEADER.pack(status, len(data)) + data)
    replies.flush()


def _limit_memory(more: int) -> None:
    """Let the process grow by so many bytes and no further; without effect where the system has no such limit."""
    statistics = Path("/proc/self/statm")
    if not statistics.exists():
        return
    import resource

    now = int(statistics.read_text().split()[0]) * resource.getpagesize()
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    soft = now + more if hard == resource.RLIM_INFINITY else min(now + more, hard)
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
