"""ONNX's shape inference and inliner in a process of their own, with a limit on time and on memory.

Both are C++ that trusts its input: a file of a few hundred bytes can ask for a value of a billion axes, or for hours.
What happens to that process is an answer like any other here: "this could not be inferred".
"""

from __future__ import annotations

import atexit
import json
import os
import signal
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, BinaryIO, cast

from edge4d.validators.onnx_worker import HEADER, INFER, INFER_SIZES, INLINE

if TYPE_CHECKING:
    import onnx

__all__ = ["CouldNotInfer", "infer_shapes", "inline_functions", "warm_up"]

TIME_LIMIT_S = 10.0
"""Seconds that a request may take, and `TIME_LIMIT_S_PER_MB` more for each megabyte of the model without weights."""
TIME_LIMIT_S_PER_MB = 10.0
START_LIMIT_S = 120.0
"""Seconds until the process is ready: it imports onnx, which takes a while on a small or busy machine."""

DIED = b"!"
"""Status of a request that was too much, whether or not the process survived it."""

# Bytes of an answer: so many, and so many more for each of the request. That of a graph of 100,000 nodes has three
# times those of its request; a value of very many axes has them in everything that is made of it.
_LARGEST, _LARGEST_FACTOR = 2**24, 30
_START = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from edge4d.validators.onnx_worker import main; sys.exit(main())"
)


class CouldNotInfer(Exception):
    """Why there is no answer, in one line.

    Args:
        message: that line.
        fatal: whether the question was too much for the process, so that it is better not asked again.
    """

    def __init__(self, message: str, *, fatal: bool = False) -> None:
        super().__init__(message)
        self.fatal = fatal


def infer_shapes(model: onnx.ModelProto, *, propagate: bool = False) -> onnx.ModelProto:
    """`onnx.shape_inference.infer_shapes`.

    Args:
        model: is not changed.
        propagate: with ONNX's data propagation, which tells more sizes, but not always the right ones: a Slice of a
            shape whose start it does not know is taken to start at 0.

    Raises:
        CouldNotInfer: ONNX refuses the model, or takes too long or too much memory, or dies.
    """
    return _ask(INFER_SIZES if propagate else INFER, model)


def inline_functions(model: onnx.ModelProto) -> onnx.ModelProto:
    """`onnx.inliner.inline_local_functions`.

    Raises:
        CouldNotInfer: as above.
    """
    return _ask(INLINE, model)


def warm_up() -> None:
    """Start the process, which takes a few tenths of a second, and do not wait for it."""
    with _lock:
        _current()


def _ask(order: bytes, model: onnx.ModelProto) -> onnx.ModelProto:
    import onnx
    from google.protobuf.message import DecodeError, EncodeError  # type: ignore[import-untyped]

    try:
        data = model.SerializeToString()
    except (EncodeError, ValueError) as error:  # above 2 GB, or nested deeper than protobuf writes
        raise CouldNotInfer(f"the graph cannot be written: {error}") from error
    with _lock:
        status, answer = _current().ask(order, data, TIME_LIMIT_S + TIME_LIMIT_S_PER_MB * len(data) / 1e6)
    if status != b"+":
        reason = " ".join(answer.decode("utf-8", "replace").split())[:300] or "for no stated reason"
        raise CouldNotInfer(reason, fatal=status == DIED)
    try:
        inferred: onnx.ModelProto = onnx.ModelProto.FromString(answer)
    except DecodeError as error:
        raise CouldNotInfer("the answer cannot be read") from error
    return inferred


class _Worker:
    """The process; it serves one request after the other until one of them kills it."""

    def __init__(self) -> None:
        self.owner = os.getpid()
        self._process = subprocess.Popen(
            [sys.executable, "-c", _START, json.dumps(sys.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            # A key that interrupts the command reaches this process too, and what it then says is of no use.
            stderr=subprocess.DEVNULL,
            # numpy, which onnx imports, would start a thread for each core.
            env=os.environ | dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"),
        )
        self._late = False
        self._ready = False

    @property
    def alive(self) -> bool:
        """Whether it can be asked; after a fork it belongs to the other process."""
        return self.owner == os.getpid() and self._process.poll() is None

    def ask(self, order: bytes, data: bytes, seconds: float) -> tuple[bytes, bytes]:
        """Status and answer; a process that had to be ended answers like one that refused."""
        if not self._ready:
            status, answer = self._in_time(START_LIMIT_S, b"")
            if status == DIED:
                return status, answer
            self._ready = True
        return self._in_time(seconds, HEADER.pack(order, len(data)) + data)

    def _in_time(self, seconds: float, request: bytes) -> tuple[bytes, bytes]:
        timer = threading.Timer(seconds, self._stop_late)
        timer.start()
        try:
            stdin = cast("BinaryIO", self._process.stdin)
            stdin.write(request)
            stdin.flush()
            status, length = HEADER.unpack(self._read(HEADER.size))
            if length > _LARGEST + _LARGEST_FACTOR * len(request):
                self.stop()
                return DIED, b"the answer is too large"
            return status, self._read(length)
        except (OSError, EOFError):
            self.stop()
            return DIED, self._end(seconds).encode()
        except BaseException:  # interrupted in the middle of an answer: the next one would be taken for this one
            self.stop()
            raise
        finally:
            timer.cancel()

    def stop(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            try:
                cast("BinaryIO", stream).close()
            except OSError:  # what was still to be written to it
                continue

    def _stop_late(self) -> None:
        self._late = True
        self._process.kill()

    def _read(self, length: int) -> bytes:
        data = cast("BinaryIO", self._process.stdout).read(length)
        if len(data) < length:
            raise EOFError
        return data

    def _end(self, seconds: float) -> str:
        if self._late:
            return f"it takes more than {seconds:.0f} s"
        code = self._process.returncode
        try:
            return f"its process died of {signal.Signals(-code).name}"
        except ValueError:
            return f"its process ended with code {code}"


_lock = threading.Lock()
_worker: _Worker | None = None


def _current() -> _Worker:
    global _worker
    if _worker is None or not _worker.alive:
        _worker = _Worker()
    return _worker


@atexit.register
def _stop() -> None:
    if _worker is not None and _worker.owner == os.getpid():
        _worker.stop()
