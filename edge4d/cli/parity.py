"""`edge4d parity`: whether models give the same numbers."""

from pathlib import Path
from typing import Annotated

import typer

from edge4d.cli.options import Factory, InputShapes, Json, Seed, TrustPickle, parse_shapes
from edge4d.cli.output import emit_json, emit_text


def command(
    reference: Annotated[Path, typer.Argument(metavar="REFERENCE", help="What the others are held against.")],
    candidates: Annotated[list[Path], typer.Argument(metavar="CANDIDATE…", help="What should give its numbers.")],
    input_shape: InputShapes = None,
    factory: Factory = None,
    trust_pickle: TrustPickle = False,
    inputs: Annotated[
        Path | None,
        typer.Option(
            "--inputs",
            metavar="CLIPS.npz",
            help="An array for each input, of one batch or of several, instead of random ones.",
        ),
    ] = None,
    sets: Annotated[int, typer.Option("--sets", min=1, help="Sets of random inputs.")] = 2,
    seed: Seed = 0,
    max_error: Annotated[
        float | None,
        typer.Option("--max-error", help="Error allowed, relative to each output's range; by dtype if not given."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Compare the numbers of models on the same inputs, output by output.

    Models are ONNX files, or anything that PyTorch writes and `edge4d export` reads. All get the same logical arrays.
    Statistics are computed in float64; names, shapes and the places of NaN and infinity must match, integers exactly.
    The exit code is 1 when an output differs.

    Examples:
        edge4d parity model.pt2 model.onnx
        edge4d parity model.onnx quantised.onnx --max-error 0.02 --sets 4
        edge4d parity checkpoint.pth model.onnx --factory my.models:build --inputs clips.npz
        edge4d parity model.pt2 model.onnx --json | jq '.candidates[].worst'
    """
    from edge4d.checking import check_parity
    from edge4d.validators.tolerances import Tolerance

    reports = check_parity(
        reference,
        candidates,
        input_shapes=parse_shapes(input_shape) or (),
        factory=factory,
        trust_pickle=trust_pickle,
        inputs=inputs,
        sets=sets,
        seed=seed,
        tolerance=None if max_error is None else Tolerance(max_error),
    )
    code = max(report.exit_code for report in reports.values())
    if as_json:
        listed = [{"path": str(path), **report.to_dict()} for path, report in reports.items()]
        emit_json({"ok": code == 0, "exit_code": code, "reference": str(reference), "candidates": listed})
    else:
        for path, report in reports.items():
            emit_text(f"{path} against {reference}\n{report.to_text()}")
    if code:
        raise typer.Exit(code)
