"""`edge4d plan`: a dry run of the lowering."""

from pathlib import Path
from typing import Annotated

import typer

from edge4d.cli.options import (
    Alignment,
    Blocks,
    Energy,
    Factory,
    Fix,
    InputLayout,
    InputShapes,
    Json,
    Normalize,
    Submodule,
    TrustPickle,
    block_options,
    parse_shapes,
)
from edge4d.cli.output import emit_json, emit_text, note, stage
from edge4d.cli.planning_options import (
    Autotune,
    AutotuneBudget,
    For,
    Formulations,
    MaxActivationMemory,
    MaxWeightGrowth,
)
from edge4d.cli.precision_options import (
    Calib,
    PrecisionName,
)


def command(
    model: Annotated[
        Path, typer.Argument(metavar="MODEL", help="A model file of any kind that PyTorch writes, or an ONNX file.")
    ],
    block: Blocks = None,
    energy: Energy = None,
    alignment: Alignment = None,
    calib: Calib = None,
    precision: PrecisionName = "fp32",
    runtime: For = None,
    formulation: Formulations = None,
    max_weight_growth: MaxWeightGrowth = None,
    max_activation_memory: MaxActivationMemory = None,
    autotune: Autotune = None,
    autotune_budget: AutotuneBudget = "60s",
    normalize: Normalize = None,
    input_layout: InputLayout = None,
    input_shape: InputShapes = None,
    factory: Factory = None,
    trust_pickle: TrustPickle = False,
    submodule: Submodule = None,
    fix: Fix = None,
    as_json: Json = False,
) -> None:
    """Show what every operator above rank 4 would become, what it costs, or why it is declined.

    Nothing is written. The exit code is 1 when something is declined.

    Examples:
        edge4d plan model.pt2
        edge4d plan checkpoint.pth --factory my.models:build --input-shape 1x3x16x112x112
        edge4d plan model.pt2 --autotune openvino
        edge4d plan model.pt2 --json | jq '.layers[] | select(.becomes == null)'
    """
    from edge4d.dry_run import plan_report
    from edge4d.fixed_inputs import parse_fixes
    from edge4d.quantities import parse_bytes, parse_duration

    report = plan_report(
        model,
        block=block or "exact",
        block_options=block_options(energy, alignment),
        calib=calib,
        precision=precision,
        runtime=runtime,
        formulations=formulation or (),
        max_weight_growth=max_weight_growth,
        max_activation_memory=parse_bytes(max_activation_memory) if max_activation_memory is not None else None,
        autotune=autotune,
        autotune_budget=parse_duration(autotune_budget),
        normalize=normalize,
        input_layout=input_layout,
        input_shapes=parse_shapes(input_shape),
        factory=factory,
        trust_pickle=trust_pickle,
        submodule=submodule,
        fix=parse_fixes(fix),
        stage=stage,
        progress=note,
    )
    for sentence in report.notes:
        note(f"note: {sentence}")
    if as_json:
        emit_json(report.to_dict())
    else:
        emit_text(report.to_text())
    if not report.ok:
        raise typer.Exit(1)
