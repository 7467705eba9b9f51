"""A session that lives in a child process: a runtime that crashes while it runs is an error, not the end of us."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from edge4d.errors import UsageError
from edge4d.exporters.child import Child
from edge4d.ports import Port

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np

__all__ = ["RemoteSession", "open_here"]


def open_here(argument: Mapping[str, Any]) -> Any:
    """What the child runs: open the engine in its own process."""
    from pathlib import Path

    from edge4d.exporters import get

    return get(argument["runtime"]).open(Path(argument["path"]), **argument["options"], timeout=0)


class RemoteSession:
    """See `edge4d.exporters.protocol.Session`; every `run` sends the arrays there and back.

    Args:
        path: the engine, for messages.
        target: what opens it there; gets `argument` and returns a session, or for an interpreter without edge4d
            anything with the same attributes, its ports as mappings.
        argument: JSON-ready.
        timeout: seconds to open it, and for each run; 0 for no limit.
        python: the interpreter; this one's own when None.

    Raises:
        RuntimeFailed: it took longer, or its process died.
        Edge4dError: what the target raised.
    """

    def __init__(self, path: Path, target: str, argument: Any, timeout: float, python: str | None = None) -> None:
        self.path = path
        self._child: Child | None = None
        child = Child(f"opening {path}", timeout, python)
        try:
            told, _ = child.ask({"do": "open", "target": target, "argument": argument})
        except BaseException:
            child.close()
            raise
        child.doing = f"running {path}"
        self._child = child
        self.inputs = tuple(Port.from_dict(port) for port in told["inputs"])
        self.outputs = tuple(Port.from_dict(port) for port in told["outputs"])
        self.metadata: Mapping[str, str] = told["metadata"]
        self.details: Mapping[str, Any] = told["details"]
        self.spent: Mapping[str, float] | None = None

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run once on packed arrays by name.

        Raises:
            UsageError: the session is closed.
            RuntimeFailed: it took too long or its process died; the session is closed then.
            Edge4dError: what the runtime said.
        """
        if self._child is None:
            raise UsageError(f"{self.path}: the session is closed", hint="open it again")
        self.spent, results = self._child.ask({"do": "run"}, feeds)
        return results

    def close(self) -> None:
        """End the child process."""
        if self._child is not None:
            self._child.close()
            self._child = None

    def __enter__(self) -> RemoteSession:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
