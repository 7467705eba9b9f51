"""`edge4d parity`: whether models give the same numbers."""

from pathlib import Path
from typing import Annotated

import typer

from edge4d.cli.options import Factory, Fix, InputShapes, Json, Seed, Submodule, TrustPickle, parse_shapes
from edge4d.cli.output import emit_json, emit_text, note


def command(
    reference: Annotated[Path, typer.Argument(metavar="REFERENCE", help="What the others are held against.")],
    candidates: Annotated[list[Path], typer.Argument(metavar="CANDIDATE…", help="What should give its numbers.")],
    input_shape: InputShapes = None,
    factory: Factory = None,
    trust_pickle: TrustPickle = False,
    submodule: Submodule = None,
    fix: Fix = None,
    clips: Annotated[
        list[Path] | None,
        typer.Option(
            "--clips",
            "--inputs",
            metavar="FILE.npz|FILE.npy",
            help="Sets of inputs, one array for each input, several sets along the first axis; repeatable.",
        ),
    ] = None,
    sets: Annotated[
        int | None, typer.Option("--sets", min=1, help="Sets of random inputs; 2, or none with --clips.")
    ] = None,
    seed: Seed = 0,
    max_error: Annotated[
        float | None,
        typer.Option("--max-error", help="Error allowed, relative to each output's range; by dtype if not given."),
    ] = None,
    stages: Annotated[
        bool, typer.Option("--stages", help="Also hold the lowered PyTorch module and unoptimised ONNX against it.")
    ] = False,
    layers: Annotated[
        bool,
        typer.Option("--layers", help="Compare every source layer inside .onnx files; name the first bad one."),
    ] = False,
    layer_runtime: Annotated[
        str | None, typer.Option("--layer-runtime", metavar="NAME", help="Run the layers on this runtime.")
    ] = None,
    repro: Annotated[
        Path | None, typer.Option("--repro", metavar="DIR", help="A new folder for what reproduces each difference.")
    ] = None,
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Write a report with a plot of the layers.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Compare the numbers of models on the same inputs, output by output.

    Models are ONNX files, or anything that PyTorch writes and `edge4d export` reads. All get the same logical arrays.
    Statistics are computed in float64; names, shapes and the places of NaN and infinity must match, integers exactly.
    The exit code is 1 when an output or a layer differs, and 3 when a runtime is missing.

    Examples:
        edge4d parity model.pt2 model.onnx
        edge4d parity model.onnx quantised.onnx --max-error 0.02 --sets 4
        edge4d parity checkpoint.pth model.onnx --factory my.models:build --clips clips.npz
        edge4d parity model.pt2 model.onnx --layers --html report.html --repro repro
        edge4d parity model.pt2 model.onnx model.openvino.xml --stages
        edge4d parity model.pt2 model.onnx --json | jq '.candidates[].worst'
    """
    from edge4d.checking import check_parity
    from edge4d.files import atomic_write, refuse_folder
    from edge4d.fixed_inputs import parse_fixes
    from edge4d.validators.tolerances import Tolerance

    if html is not None:
        from edge4d.validators.layer_plot import require_matplotlib

        refuse_folder(html)
        if layers:
            require_matplotlib("--html with --layers")
    reports = check_parity(
        reference,
        candidates,
        input_shapes=parse_shapes(input_shape) or (),
        factory=factory,
        trust_pickle=trust_pickle,
        submodule=submodule,
        fix=parse_fixes(fix),
        inputs=clips or (),
        sets=sets,
        seed=seed,
        tolerance=None if max_error is None else Tolerance(max_error),
        stages=stages,
        layers=layers,
        layer_runtime=layer_runtime,
        repro=repro,
    )
    if html is not None:
        from edge4d.validators.parity_html import parity_html

        page = parity_html(str(reference), {str(name): report for name, report in reports.items()})
        atomic_write(html, page.encode())
        note(f"report: {html}")
    if repro is not None and repro.exists():
        note(f"repro: {repro}")
    code = max(report.exit_code for report in reports.values())
    if as_json:
        listed = [{"path": str(path), **report.to_dict()} for path, report in reports.items()]
        emit_json({"ok": code == 0, "exit_code": code, "reference": str(reference), "candidates": listed})
    else:
        for path, report in reports.items():
            emit_text(f"{path} against {reference}\n{report.to_text()}")
    if code:
        raise typer.Exit(code)
