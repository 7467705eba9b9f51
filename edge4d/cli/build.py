"""`edge4d build`: an engine from an ONNX file."""

from pathlib import Path
from typing import Annotated, Any

import typer

from edge4d.cli.options import Force, Json, Output, Providers, Threads
from edge4d.cli.output import emit_json, emit_text, note, stage


def command(
    model: Annotated[Path, typer.Argument(metavar="MODEL.onnx", help="The ONNX file to build from.")],
    runtime: Annotated[str, typer.Option("--runtime", "-r", help="For which runtime; `edge4d doctor` lists them.")],
    output: Output = None,
    optimization: Annotated[
        str | None,
        typer.Option(
            "--optimization", metavar="LEVEL", help="none, basic, extended or all; the runtime's own by default."
        ),
    ] = None,
    provider: Providers = None,
    threads: Threads = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Build a runtime's engine from an ONNX file.

    The engine is opened before it is published, keeps the description of its inputs and outputs, and has a JSON recipe
    with options, versions and hashes beside it. By default it is written beside MODEL.onnx, as MODEL.RUNTIME.onnx or
    with the suffix of that runtime's engines.

    Examples:
        edge4d build model.onnx --runtime onnxruntime
        edge4d build model.onnx --runtime onnxruntime -o model.ort
        edge4d build model.onnx -r onnxruntime --optimization all --json
    """
    from edge4d import exporters
    from edge4d.files import refuse_existing

    exporter = exporters.get(runtime)
    target = output or model.with_name(f"{model.stem}.{exporter.name}{exporter.suffixes[0]}")
    refuse_existing(target, force)
    asked: dict[str, Any] = {"optimization": optimization, "providers": provider, "threads": threads}
    with stage(f"building for {exporter.name}"):
        result = exporter.build(model, target, **{name: value for name, value in asked.items() if value is not None})
    for sentence in result.notes:
        note(f"note: {sentence}")
    if as_json:
        emit_json(result.to_dict())
    else:
        emit_text(str(result.path))
