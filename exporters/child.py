"""Work that may hang or die, done by a child process under a time limit.

A runtime's compiler is foreign code: it can loop for ever, crash, or be killed for want of memory. In a child it takes
nothing along, and what became of it is an error like any other.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from edge4d import errors
from edge4d.errors import Edge4dError, InternalError, RuntimeFailed, UsageError
from edge4d.exporters.child_main import find, receive, send

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

    import numpy as np

__all__ = ["DEFAULT_TIMEOUT_S", "Child", "call", "check_timeout", "foreign_environment"]

DEFAULT_TIMEOUT_S = 1800.0
"""Half an hour: large networks take TensorRT minutes on a small board, and a compiler that hangs never ends."""

_START = (
    "import runpy, sys; sys.path[:] = [place for place in sys.path if place]; "
    "runpy.run_path(sys.argv[1], run_name='__main__')"
)
"""What a child runs: by path, for it need not have edge4d; not from the current folder, whose files hide packages."""

_MAIN = Path(__file__).with_name("child_main.py")
_TAIL = 12
"""Lines of a dead child's stderr that are shown."""


def check_timeout(timeout: float | None) -> float:
    """The time limit in seconds; 0 stands for none, with the work done in this very process.

    Raises:
        UsageError: negative, or no number.
    """
    if timeout is None:
        return DEFAULT_TIMEOUT_S
    if isinstance(timeout, bool) or not isinstance(timeout, int | float) or not timeout >= 0:
        raise UsageError(f"timeout {timeout!r}, expected seconds, or 0 for no limit and no process of its own")
    return float(timeout)


def call(target: str, argument: Any, timeout: float, doing: str, python: str | None = None) -> Any:
    """Call one function in a child process.

    Args:
        target: ``package.module:function``, or ``/path/file.py:function`` for an interpreter without edge4d.
        argument: JSON-ready; the function's only argument.
        timeout: seconds; 0 calls it in this process.
        doing: for messages, e.g. ``building m.engine with tensorrt``.
        python: the interpreter; this one's own when None.

    Returns:
        What the function returned, JSON-ready.

    Raises:
        RuntimeFailed: it took longer, or its process died.
        Edge4dError, OSError: what the function raised.
    """
    if timeout == 0 and python is None:
        return find(target)(argument)
    with Child(doing, timeout, python) as child:
        return child.ask({"do": "call", "target": target, "argument": argument})[0]


def foreign_environment() -> dict[str, str]:
    """Our environment without what would lead another interpreter to our packages."""
    return {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}


class Child:
    """A process that takes orders; a context manager, which ends it.

    Args:
        doing: for messages.
        timeout: seconds for each order; 0 for no limit.
        python: the interpreter; this one's own when None.
    """

    def __init__(self, doing: str, timeout: float, python: str | None = None) -> None:
        self.doing = doing
        self._timeout = timeout
        self._stderr: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - `close` closes it
        try:
            self._process = subprocess.Popen(
                [python or sys.executable, "-c", _START, str(_MAIN)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._stderr,
                env=None if python is None else foreign_environment(),
                start_new_session=True,  # its own children end with it, and Ctrl-C is ours to handle
            )
        except OSError as error:
            self._stderr.close()
            raise errors.RuntimeUnavailable(
                f"{doing}: cannot start {python or sys.executable}: {error.strerror}",
                hint="give the path of a Python interpreter that has the runtime installed",
            ) from error
        # What can be imported here can be imported there, unless it is another interpreter.
        self._path = list(sys.path) if python is None else None

    def ask(
        self, order: Mapping[str, Any], arrays: Mapping[str, np.ndarray] | None = None
    ) -> tuple[Any, dict[str, np.ndarray]]:
        """Send one order and wait for its answer.

        Returns:
            (result, arrays by name).

        Raises:
            RuntimeFailed: no answer in time, or the process died.
            Edge4dError, OSError: what went wrong there.
        """
        answers: list[tuple[dict[str, Any], dict[str, np.ndarray]] | None] = []
        exchange = threading.Thread(target=self._exchange, args=(order, arrays, answers), daemon=True)
        exchange.start()
        exchange.join(self._timeout or None)
        if exchange.is_alive():
            self._kill()
            exchange.join()
            raise RuntimeFailed(
                f"{self.doing} took more than {self._timeout:g} s and was stopped" + self._tail(),
                hint="give it more time with --timeout SECONDS, or try a smaller model",
            )
        if answers[0] is None:
            raise RuntimeFailed(f"{self.doing}: its process {self._death()}" + self._tail(), hint=_DEATH_HINT)
        message, results = answers[0]
        if "error" in message:
            _raise(self.doing, message["error"])
        return message["result"], results

    def _exchange(
        self,
        order: Mapping[str, Any],
        arrays: Mapping[str, np.ndarray] | None,
        answers: list[tuple[dict[str, Any], dict[str, np.ndarray]] | None],
    ) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            send(self._process.stdin, {"path": self._path, **order}, arrays)
            answers.append(receive(self._process.stdout))
        except (OSError, ValueError):  # the pipe broke, or broke in the middle of a message
            answers.append(None)

    def _death(self) -> str:
        code = self._process.wait()
        if code >= 0:
            return f"ended with code {code} before it answered"
        names = {number.value: number.name for number in signal.Signals}
        name = names.get(-code, f"signal {-code}")
        return f"was killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")

    def _tail(self) -> str:
        self._stderr.seek(0)
        lines = self._stderr.read().decode(errors="replace").splitlines()[-_TAIL:]
        return "".join(f"\n    {line}" for line in lines)

    def _kill(self) -> None:
        """End it and all that it started."""
        if self._process.poll() is None:
            if hasattr(os, "killpg"):
                os.killpg(self._process.pid, signal.SIGKILL)
            else:
                self._process.kill()
        self._process.wait()

    def close(self) -> None:
        """End the process; may be called twice."""
        self._kill()
        for stream in (self._process.stdin, self._process.stdout, self._stderr):
            if stream is not None:
                try:
                    stream.close()
                except BrokenPipeError:
                    continue  # an order that a dead child never took

    def __enter__(self) -> Child:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self.close()


_DEATH_HINT = "the runtime itself crashed: try another of its versions, or report it to its vendor with this model"


def _raise(doing: str, failure: Mapping[str, Any]) -> None:
    """Raise here what was raised there."""
    kind = getattr(errors, failure["type"], None)
    if isinstance(kind, type) and issubclass(kind, Edge4dError):
        raise kind(failure["message"], hint=failure["hint"])
    if "os" in failure and failure["os"][0] is not None:
        number, words, name = failure["os"]
        raise OSError(number, words, name)
    if failure["type"] == "MemoryError":
        raise MemoryError
    if failure["type"] in ("ImportError", "ModuleNotFoundError"):
        raise errors.RuntimeUnavailable(f"{doing}: {failure['message']}", hint="`edge4d doctor` shows what is missing")
    raise InternalError(f"{doing}: {failure['type']}: {failure['message']}\n{failure['trace']}")
