"""`edge4d tune`: a network with a structure of the paper learns to give what the original gave."""

import os
from pathlib import Path
from typing import Annotated

import typer

from edge4d.cli.options import (
    Blocks,
    Energy,
    Factory,
    Fix,
    Force,
    InputShapes,
    Json,
    Seed,
    Submodule,
    TrustPickle,
    parse_shapes,
)
from edge4d.cli.output import emit_json, emit_text, note, progress, stage
from edge4d.cli.video_options import FrameStep, Mean, ShortSide, Split, Std, Workers, video_options


def command(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A state_dict or checkpoint, or a pickled module.")],
    data: Annotated[
        str,
        typer.Option("--data", metavar="DATA", help="Clips to learn from: a folder, list, .npz, package.module:name."),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE.pt2", help="Where the tuned network goes.")],
    block: Blocks = None,
    energy: Energy = None,
    val: Annotated[
        str | None, typer.Option("--val", metavar="DATA", help="Clips to measure on; a tenth of --data if not given.")
    ] = None,
    split: Split = None,
    labels: Annotated[
        bool | None, typer.Option("--labels/--no-labels", help="Learn from labels too; yes where there are some.")
    ] = None,
    input_shape: InputShapes = None,
    factory: Factory = None,
    trust_pickle: TrustPickle = False,
    submodule: Submodule = None,
    fix: Fix = None,
    budget: Annotated[
        str | None, typer.Option("--budget", metavar="10m", help="End in time, with the best network so far.")
    ] = None,
    epochs: Annotated[
        float | None, typer.Option("--epochs", help="Passes over the clips; 20, or what --budget has time for.")
    ] = None,
    steps: Annotated[int | None, typer.Option("--steps", help="Optimiser steps, instead of --epochs.")] = None,
    recipe: Annotated[
        str,
        typer.Option(
            "--recipe", metavar="match|train", help="Few clips, norms as in use; or many with labels, as in training."
        ),
    ] = "match",
    batch: Annotated[
        int | None, typer.Option("--batch", help="Clips a step, of all processes (16; train: 32).")
    ] = None,
    accumulate: Annotated[int, typer.Option("--accumulate", help="Parts of a batch, to save memory.")] = 1,
    rate: Annotated[float | None, typer.Option("--rate", help="Peak learning rate (0.003; train: 0.004).")] = None,
    vary: Annotated[
        str | None,
        typer.Option(
            "--vary", metavar="KINDS", help="How clips vary (mirror,reverse,shift; train: none); also flip, turn."
        ),
    ] = None,
    patience: Annotated[int, typer.Option("--patience", help="Measurements without progress before the end.")] = 6,
    norms: Annotated[
        str | None,
        typer.Option("--norms", metavar="frozen|train", help="Norms and dropout as in use, or as in training."),
    ] = None,
    trained: Annotated[str, typer.Option("--train", metavar="all|blocks", help="Which weights learn.")] = "all",
    amp: Annotated[
        str, typer.Option("--amp", metavar="auto|off|bf16|fp16", help="Mixed precision; auto uses bf16 on a GPU.")
    ] = "auto",
    frame_step: FrameStep = 2,
    short_side: ShortSide = None,
    mean: Mean = None,
    std: Std = None,
    flip: Annotated[bool, typer.Option(help="Mirror videos left to right at random.")] = True,
    workers: Workers = 0,
    device: Annotated[str | None, typer.Option("--device", help="cpu or cuda; a GPU if there is one.")] = None,
    seed: Seed = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an unfinished run.")] = False,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Bring the accuracy back: a network with a structure of the paper learns from the original.

    Conv3d layers are replaced and fitted as `edge4d export --block` does it; then the network learns to give the
    original's layer outputs and scores on DATA, and the labels where there are any. The best network on held-out clips
    is written, ready for `edge4d export`.

    DATA is a folder with one subfolder of videos for each class (UCF-101's layout, with --split one of its split
    files), a folder of videos without classes, a .csv of videos and labels (Kinetics' own too), an .npz with clips and
    labels, an .npy of clips, or package.module:name of a Dataset of your own.

    A run that was stopped or killed goes on with --resume. Under torchrun the work is shared by all processes.

    Examples:
        edge4d tune weights.pth --factory my.models:build --input-shape 1x3x16x112x112 --data videos/ -o tuned.pt2
        edge4d tune model.pt --trust-pickle --data clips.npz --block proposed-cat --budget 10m -o tuned.pt2
        edge4d tune model.pt --trust-pickle --data UCF-101/ --split trainlist01.txt --resume -o tuned.pt2
        torchrun --nproc-per-node 8 -m edge4d tune model.pt --trust-pickle --data list.csv --batch 64 -o tuned.pt2
    """
    from edge4d.fixed_inputs import parse_fixes
    from edge4d.tuning.options import TuneOptions, parse_duration, parse_kinds
    from edge4d.tuning.tune import tune

    options = TuneOptions.of(
        recipe,
        epochs=epochs,
        steps=steps,
        batch=batch,
        accumulate=accumulate,
        rate=rate,
        patience=patience,
        norms=norms,
        trained=trained,
        amp=amp,
        vary=parse_kinds(vary) if vary is not None else None,
        budget=parse_duration(budget) if budget is not None else None,
        workers=workers,
        seed=seed,
    )
    with progress("training") as told:
        report = tune(
            model,
            data=data,
            output=output,
            block=block or "proposed-add",
            block_options={"energy": energy} if energy is not None else None,
            val=val,
            split=split,
            labels=labels,
            options=options,
            video=video_options(frame_step, short_side, mean, std) | {"flip": flip},
            input_shapes=parse_shapes(input_shape),
            factory=factory,
            trust_pickle=trust_pickle,
            submodule=submodule,
            fix=parse_fixes(fix),
            device=device,
            resume=resume,
            force=force,
            stage=stage,
            told=told,
        )
    if int(os.environ.get("RANK", "0")):
        return  # of several processes the first one speaks
    for sentence in report.notes:
        note(f"note: {sentence}")
    if as_json:
        emit_json(report.to_dict())
    else:
        emit_text(report.to_text())
