"""Which of the options of a command that takes several models concern which of its files."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge4d.errors import LoadError, UsageError
from edge4d.loading.huggingface import is_folder
from edge4d.loading.sniff import Format, sniff

if TYPE_CHECKING:
    from edge4d.fixed_inputs import Fixes

__all__ = ["is_network", "options_of", "refuse_unused"]

_GRAPHS = (Format.PROGRAM, Format.TORCHSCRIPT, Format.ONNX)


def is_network(path: Path) -> bool:
    """Whether a file holds a network of parts that read inputs, not a graph that was made of one."""
    return is_folder(path) or sniff(path) not in _GRAPHS


def options_of(path: Path, factory: str | None, submodule: str | None, fix: Fixes | None) -> dict[str, Any]:
    """``factory``, ``submodule`` and ``fix`` of `load_model` for one of several files; None where not meant for it.

    A graph needs no factory, has no parts, and has read its inputs' values already; a folder needs no factory.
    """
    network = is_network(path)
    return {
        "factory": factory if network and not is_folder(path) else None,
        "submodule": submodule if network else None,
        "fix": fix if network else None,
    }


def refuse_unused(paths: Iterable[Path], submodule: str | None, fix: Fixes | None) -> None:
    """Refuse ``--submodule`` and ``--fix`` where every file is a graph.

    Raises:
        UsageError: naming the option.
    """
    from edge4d.exporters import has_runtime

    asked = [f"--submodule {submodule}"] if submodule is not None else []
    asked += [f"--fix {name}" for name in fix or ()]
    if asked and not any(_may_be_network(path) for path in paths if not has_runtime(path)):
        raise UsageError(
            f"{', '.join(asked)}: every file here is a graph, which takes the inputs it was made with",
            hint="give the network among the files, or fix the input where the graph is made (edge4d export --fix)",
        )


def _may_be_network(path: Path) -> bool:
    """What cannot be read is told by who reads it."""
    try:
        return is_network(path)
    except LoadError:
        return True
