"""Where a run stands, on disk: whole or not at all, and read without running code."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from edge4d.errors import ExportError, UsageError
from edge4d.files import staged

__all__ = ["check_space", "checkpoint_path", "read_checkpoint", "write_checkpoint"]

SCHEMA = 1


def checkpoint_path(output: Path) -> Path:
    """Beside the output: ``tuned.pt2`` has ``tuned.pt2.checkpoint``."""
    return output.with_name(output.name + ".checkpoint")


def check_space(output: Path, needed: int) -> None:
    """Say before the first step that a disk is too full.

    Raises:
        ExportError: less than `needed` bytes are free where the output goes.
    """
    free = shutil.disk_usage(output.parent).free
    if free < needed:
        raise ExportError(
            f"cannot write {output}: {free / 1e6:.0f} MB are free, checkpoint and result take about {needed / 1e6:.0f}",
            hint="free some space or write to another disk with -o",
        )


def write_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """Replace the checkpoint by a newer one.

    Raises:
        ExportError: it cannot be written; the former one is still there.
    """
    with staged(path) as (temporary,):
        torch.save({"schema": SCHEMA, **state}, temporary)


def read_checkpoint(path: Path, identity: Mapping[str, Any]) -> dict[str, Any]:
    """The state of an unfinished run.

    Args:
        path: of the checkpoint.
        identity: of the run that is to go on; it must be the same one.

    Raises:
        UsageError: not a checkpoint of a run, or one of another run.
    """
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        schema, before = state["schema"], dict(state["identity"])
    except Exception as error:  # torch.load raises whatever a broken archive makes it raise
        raise UsageError(
            f"{path} is no checkpoint of a run: {(str(error).splitlines() or [type(error).__name__])[0][:200]}",
            hint="add --force to begin anew",
        ) from error
    if schema != SCHEMA:
        raise UsageError(f"{path} has layout {schema}, this edge4d reads {SCHEMA}", hint="add --force to begin anew")
    if differing := [name for name in identity if before.get(name) != identity[name]]:
        said = "; ".join(f"{name}: {before.get(name)} then, {identity[name]} now" for name in differing)
        raise UsageError(
            f"{path} belongs to a run with other options ({said})",
            hint="give the same ones, or add --force to begin anew",
        )
    return state
