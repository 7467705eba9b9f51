"""`edge4d eval`: how often models name the right class."""

from pathlib import Path
from typing import Annotated

import typer

from edge4d.cli.options import (
    Factory,
    Fix,
    InputShapes,
    Json,
    Submodule,
    TrustPickle,
    parse_shapes,
)
from edge4d.cli.output import emit_json, emit_text, progress
from edge4d.cli.video_options import FrameStep, Mean, ShortSide, Split, Std, Workers, video_options


def command(
    models: Annotated[
        list[Path], typer.Argument(metavar="MODEL…", help="PyTorch, ONNX or engines, the original first.")
    ],
    data: Annotated[str, typer.Option("--data", metavar="DATA", help="Labelled clips; see `edge4d tune --help`.")],
    split: Split = None,
    clips: Annotated[int, typer.Option("--clips", help="Stretches of each video, evenly spread.")] = 1,
    crops: Annotated[int, typer.Option("--crops", help="Crops of each stretch, along the longer side.")] = 1,
    min_top1: Annotated[
        float | None, typer.Option("--min-top1", metavar="PERCENT", help="Exit with 1 below this accuracy.")
    ] = None,
    max_drop: Annotated[
        float | None, typer.Option("--max-drop", metavar="POINTS", help="Exit with 1 further below the first model.")
    ] = None,
    input_shape: InputShapes = None,
    factory: Factory = None,
    trust_pickle: TrustPickle = False,
    submodule: Submodule = None,
    fix: Fix = None,
    frame_step: FrameStep = 2,
    short_side: ShortSide = None,
    mean: Mean = None,
    std: Std = None,
    workers: Workers = 0,
    as_json: Json = False,
) -> None:
    """Count right answers on labelled clips: of the original and of what was made of it, on whatever runs them.

    All models get the same clips. Top-1 and top-5 are shares of the clips; scores of several views of a video (--clips
    times --crops) are averaged. The exit code is 1 when a model falls short of --min-top1 or --max-drop.

    Examples:
        edge4d eval model.onnx --data test.npz
        edge4d eval weights.pth model.onnx --factory my.models:build --data videos/ --clips 10 --crops 3
        edge4d eval model.onnx model.int8.onnx --data test.npz --max-drop 1.5
    """
    from edge4d.evaluating import evaluate
    from edge4d.fixed_inputs import parse_fixes

    with progress("measuring") as told:
        report = evaluate(
            models,
            data=data,
            split=split,
            clips=clips,
            crops=crops,
            video=video_options(frame_step, short_side, mean, std),
            min_top1=min_top1,
            max_drop=max_drop,
            input_shapes=parse_shapes(input_shape) or (),
            factory=factory,
            trust_pickle=trust_pickle,
            submodule=submodule,
            fix=parse_fixes(fix),
            workers=workers,
            told=told,
        )
    if as_json:
        emit_json(report.to_dict())
    else:
        emit_text(report.to_text())
    if not report.ok:
        raise typer.Exit(1)
