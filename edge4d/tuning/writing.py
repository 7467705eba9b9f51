"""The tuned network as a file: a `torch.export` archive with its recipe beside it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from edge4d.errors import UsageError
from edge4d.files import staged
from edge4d.quiet import quiet
from edge4d.recipe import recipe_bytes, recipe_path
from edge4d.subject import Subject, evaluation

if TYPE_CHECKING:
    from edge4d.tuning.options import TuneOptions
    from edge4d.tuning.report import TuneReport

__all__ = ["check_writable", "write"]


def check_writable(network: nn.Module, subject: Subject, *, fixed: bool) -> None:
    """Refuse before the training a network that could not be written after it: `torch.export` reads no input by value.

    Args:
        network: as it will be written.
        subject: its example inputs.
        fixed: whether some of its inputs are.

    Raises:
        UsageError: it cannot be written.
    """
    try:
        _program(network, subject)
    except Exception as error:  # of torch, or of the network's own code
        why = (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
        hint = "its forward has to be one that torch.export captures with strict=False, for shapes as in the example"
        if fixed:
            hint = "replace what is counted by an input's values in its forward by numbers, then tune it without --fix"
        raise UsageError(
            f"{subject.source}{' with fixed inputs' if fixed else ''} cannot be written as a .pt2: {why}", hint=hint
        ) from error


def write(
    target: Path,
    student: nn.Module,
    subject: Subject,
    report: TuneReport,
    options: TuneOptions,
    asked: Mapping[str, Any],
) -> None:
    """The archive and its recipe, together or not at all."""
    recipe = recipe_path(target)
    program = _program(student.cpu(), subject)
    sources = list(subject.files or ([subject.path] if subject.path is not None else []))
    facts = {"block": report.block, **asked, **options.to_dict(), "best": report.best.to_dict(), "steps": report.steps}
    with staged(target, recipe) as (archive, beside):
        with quiet():
            torch.export.save(program, archive)
        beside.write_bytes(recipe_bytes("tune", sources, facts, {target.name: archive}, ("torch", "numpy", "av")))


def _program(network: nn.Module, subject: Subject) -> torch.export.ExportedProgram:
    """Captured in evaluation mode, on the device of the network."""
    device = next(network.parameters()).device
    args = tuple(arg.to(device) if isinstance(arg, Tensor) else arg for arg in subject.args)
    with evaluation(network), quiet(), torch.no_grad():
        return torch.export.export(network, args, dict(subject.kwargs), strict=False)
