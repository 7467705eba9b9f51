"""`plan_report`: what an export would make of a model, without making it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge4d.asking import Wishes
from edge4d.blocks.choice import BlockSpec
from edge4d.errors import UsageError
from edge4d.export_steps import AUTOTUNE_BUDGET, Clock, Stage, put_swapped
from edge4d.fixed_inputs import Fixes
from edge4d.report import PlanReport

if TYPE_CHECKING:
    import torch
    from torch import nn

__all__ = ["plan_report"]


def plan_report(
    model: nn.Module | torch.export.ExportedProgram | str | Path,
    args: tuple[Any, ...] | None = None,
    kwargs: Mapping[str, Any] | None = None,
    *,
    block: BlockSpec = "exact",
    block_options: Mapping[str, Any] | None = None,
    calib: Any = None,
    runtime: str | None = None,
    formulations: Sequence[str | tuple[str, str]] = (),
    max_weight_growth: float | None = None,
    max_activation_memory: int | None = None,
    autotune: str | None = None,
    autotune_budget: float = AUTOTUNE_BUDGET,
    precision: str = "fp32",
    input_shapes: Sequence[tuple[int, ...]] = (),
    factory: str | None = None,
    trust_pickle: bool = False,
    submodule: str | None = None,
    fix: Fixes | None = None,
    normalize: Any = None,
    input_layout: Any = None,
    stage: Stage | None = None,
    progress: Callable[[str], None] | None = None,
) -> PlanReport:
    """A dry run of `export`: what every operator above rank 4 becomes, or why it is declined. Arguments as there.

    Raises:
        UsageError: unknown block, inputs missing.
        LoadError: the model file cannot be read or must not be trusted.
        CaptureError: torch.export cannot capture the model.
    """
    from edge4d.calibrating import read_clips
    from edge4d.exporters.precision import Precision
    from edge4d.lowered import plan
    from edge4d.lowering.taking import FOLDS
    from edge4d.subject import Subject

    wishes = Wishes.of(
        block,
        block_options,
        runtime=runtime,
        formulations=formulations,
        max_weight_growth=max_weight_growth,
        max_activation_memory=max_activation_memory,
        precision=Precision(precision).name,
        autotune=autotune,
        autotune_budget=autotune_budget,
        normalize=normalize,
        input_layout=input_layout,
        progress=progress,
    )
    choice = wishes.choice
    if choice.exact and calib is not None:
        raise UsageError("calibration clips need a block to fit", hint="e.g. --block proposed-add")
    clips = read_clips(calib) if calib is not None else None  # mistakes in them can be told at once
    clock = Clock(stage)
    with clock("loading"):
        subject = Subject.of(
            model,
            args,
            kwargs,
            shapes=input_shapes,
            factory=factory,
            trust_pickle=trust_pickle,
            submodule=submodule,
            fix=fix,
        )
    swapped = put_swapped(subject, choice, block, block_options, clips, clock, measure=False)
    with clock("planning"):
        layers = plan(
            subject.model,
            subject.args,
            subject.kwargs,
            planner=wishes.planner,
            asked=wishes.asked,
            fold=FOLDS[precision],
        )
    return PlanReport(subject.source, choice.label, layers, [*subject.notes, *wishes.said()], swapped)
