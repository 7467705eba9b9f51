"""`edge4d export`: the whole line, from a model file to a checked artifact."""

from pathlib import Path
from typing import Annotated

import typer

from edge4d.cli.options import (
    Alignment,
    Blocks,
    Energy,
    Factory,
    Fix,
    Force,
    InputLayout,
    InputShapes,
    Json,
    Normalize,
    Output,
    Seed,
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
    CalibMean,
    Calibration,
    CalibStd,
    KeepFp32,
    OwnPrecision,
    parse_numbers,
)


def command(
    model: Annotated[
        Path, typer.Argument(metavar="MODEL", help="A model file of any kind that PyTorch writes, or an ONNX file.")
    ],
    block: Blocks = None,
    energy: Energy = None,
    alignment: Alignment = None,
    calib: Calib = None,
    runtime: For = None,
    formulation: Formulations = None,
    max_weight_growth: MaxWeightGrowth = None,
    max_activation_memory: MaxActivationMemory = None,
    autotune: Autotune = None,
    autotune_budget: AutotuneBudget = "60s",
    precision: OwnPrecision = None,
    keep_fp32: KeepFp32 = None,
    calibration: Calibration = "minmax",
    calib_mean: CalibMean = None,
    calib_std: CalibStd = None,
    fp16_io: Annotated[
        bool, typer.Option("--fp16-io", help="With --precision fp16: inputs and outputs are float16 too.")
    ] = False,
    normalize: Normalize = None,
    input_layout: InputLayout = None,
    output: Output = None,
    input_shape: InputShapes = None,
    factory: Factory = None,
    trust_pickle: TrustPickle = False,
    submodule: Submodule = None,
    fix: Fix = None,
    dynamic: Annotated[
        str | None,
        typer.Option("--dynamic", metavar="batch", help="Leave the batch open; all else is as in the example."),
    ] = None,
    opset: Annotated[int, typer.Option("--opset", help="ONNX operator set.")] = 18,
    simplify: Annotated[bool, typer.Option(help="Simplify the graph with onnxsim.")] = True,
    parity: Annotated[bool, typer.Option(help="Run the result in ONNX Runtime against PyTorch.")] = True,
    profile: Annotated[
        str | None,
        typer.Option("--profile", metavar="NAME|FILE", help="Hold the result against a device's limits too."),
    ] = None,
    max_error: Annotated[
        float,
        typer.Option("--max-error", help="How far the network may stray, relative to the range of each output."),
    ] = 1e-5,
    seed: Seed = 0,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Rewrite a trained 3-D network as an ONNX graph of rank 4, and check it.

    MODEL is a torch.export archive, a TorchScript archive, a state_dict or training checkpoint (with --factory), a
    pickled module (with --trust-pickle), an ONNX file, or a Hugging Face folder. The result is written beside it as
    MODEL.onnx (beside an ONNX file as MODEL.4d.onnx), with a JSON recipe. It passes the gate (no value above rank 4)
    and gives PyTorch's numbers, or the exit code is 1.

    Examples:
        edge4d export model.pt2
        edge4d export checkpoint.pth --factory my.models:build --input-shape 1x3x16x112x112
        edge4d export model.pt --block exact -o deploy/model.onnx --force
        edge4d export weights.pth --factory my.models:build --block 'layer4.*=proposed-add'
        edge4d export model.pt2 --profile rknn --for rknn
        edge4d export model.pt2 --autotune onnxruntime --autotune-budget 2m
        edge4d export model.pt2 --precision fp16 --keep-fp32 'head*' -o half.onnx
        edge4d export model.pt2 --precision int8 --calib videos/ --calib-mean 0.45 --calib-std 0.225 -o int8.onnx
        edge4d export model.pt2 --normalize 'mean=0.43,0.39,0.37 std=0.22,0.22,0.21' --input-layout nhwc
        edge4d export model.pt2 --formulation 'layer4.*=taps' --max-weight-growth 1.5
        edge4d export ./Qwen2-VL --submodule model.visual --fix 'grid_thw=[[1, 16, 24]]' --input-shape 384x1176
        edge4d export model.pt2 --json | jq .parity.ok
    """
    from edge4d.exporting import export
    from edge4d.fixed_inputs import parse_fixes
    from edge4d.quantities import parse_bytes, parse_duration

    report = export(
        model,
        output=output,
        block=block or "exact",
        block_options=block_options(energy, alignment),
        calib=calib,
        runtime=runtime,
        formulations=formulation or (),
        max_weight_growth=max_weight_growth,
        max_activation_memory=parse_bytes(max_activation_memory) if max_activation_memory is not None else None,
        autotune=autotune,
        autotune_budget=parse_duration(autotune_budget),
        precision=precision,
        keep_fp32=keep_fp32 or (),
        calibration=calibration,
        calib_mean=parse_numbers("--calib-mean", calib_mean),
        calib_std=parse_numbers("--calib-std", calib_std),
        fp16_io=fp16_io,
        normalize=normalize,
        input_layout=input_layout,
        input_shapes=parse_shapes(input_shape),
        factory=factory,
        trust_pickle=trust_pickle,
        submodule=submodule,
        fix=parse_fixes(fix),
        dynamic=dynamic,
        opset=opset,
        simplify=simplify,
        parity=parity,
        max_error=max_error,
        seed=seed,
        force=force,
        profile=profile,
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
