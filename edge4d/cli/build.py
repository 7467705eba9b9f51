"""`edge4d build`: an engine from an ONNX file."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from edge4d.cli.options import Force, Json, Output, Providers, Threads, parse_shapes
from edge4d.cli.output import emit_json, emit_text, note, stage


def command(
    model: Annotated[Path, typer.Argument(metavar="MODEL.onnx", help="The ONNX file to build from.")],
    runtime: Annotated[str, typer.Option("--runtime", "-r", help="For which runtime; `edge4d doctor` lists them.")],
    output: Output = None,
    device: Annotated[
        list[str] | None,
        typer.Option(
            "--device",
            metavar="NAME",
            help="openvino: CPU, GPU, NPU…; tensorrt_rtx: sm_86…, once for each architecture; rknn: rk3588….",
        ),
    ] = None,
    level: Annotated[
        str | None,
        typer.Option(
            "--level",
            "--optimization",
            metavar="LEVEL",
            help="onnxruntime: none, basic, extended (runs on any processor) or all (the default).",
        ),
    ] = None,
    provider: Providers = None,
    threads: Threads = None,
    arena: Annotated[
        bool | None, typer.Option("--arena/--no-arena", help="onnxruntime: keep freed memory for later calls.")
    ] = None,
    shape_range: Annotated[
        list[str] | None,
        typer.Option(
            "--shape-range",
            metavar="NAME=MIN:BEST:MAX",
            help="tensorrt: shapes of an input that leaves sizes open, e.g. clip=1x3x64x64:8x3x64x64:16x3x64x64.",
        ),
    ] = None,
    workspace: Annotated[
        int | None, typer.Option("--workspace", metavar="MIB", min=1, help="tensorrt: memory that a layer may use.")
    ] = None,
    timing_cache: Annotated[
        Path | None, typer.Option("--timing-cache", metavar="FILE", help="tensorrt: read if it is there, then written.")
    ] = None,
    dla: Annotated[
        int | None, typer.Option("--dla", metavar="CORE", min=0, help="tensorrt: this DLA core, the GPU for the rest.")
    ] = None,
    layers: Annotated[
        bool, typer.Option("--layers", help="tensorrt: write the layers as OUTPUT.layers.json; rknn: show them all.")
    ] = False,
    python: Annotated[
        str | None,
        typer.Option(
            "--python",
            metavar="PATH",
            help="rknn: the interpreter that has its toolkit; EDGE4D_RKNN_PYTHON by default.",
        ),
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option(
            "--option",
            metavar="NAME=VALUE",
            help="A setting of the runtime's own, e.g. NUM_STREAMS=2 (openvino), session.NAME=… or cuda.device_id=1.",
        ),
    ] = None,
    no_gate: Annotated[
        bool, typer.Option("--no-gate", help="Build a graph of more than four axes, too, e.g. for a comparison.")
    ] = False,
    timeout: Annotated[
        float | None,
        typer.Option(
            "--timeout", metavar="SECONDS", min=0, help="For the runtime's compiler; 1800 by default, 0 for no limit."
        ),
    ] = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Build a runtime's engine from an ONNX file.

    The model goes through the gate first, and what the runtime makes of it again. The runtime's compiler works in a
    process of its own. The engine has a JSON recipe with options, versions, hashes and the description of its inputs
    and outputs beside it. By default it is written beside MODEL.onnx, as MODEL.RUNTIME.onnx or with the suffix of that
    runtime's engines; MODEL.rknn for rknn.

    Examples:
        edge4d build model.onnx --runtime onnxruntime
        edge4d build model.onnx --runtime onnxruntime -o model.ort --level all
        edge4d build model.onnx --runtime openvino --device CPU
        edge4d build model.onnx --runtime tensorrt_rtx --device sm_86 --device sm_120
        edge4d build model.onnx --runtime rknn --device rk3588 --python rknn-env/bin/python
        edge4d build native_5d.onnx -r tensorrt_rtx --no-gate --json
    """
    from edge4d import exporters
    from edge4d.files import refuse_existing

    exporter = exporters.get(runtime)
    ending = exporter.suffixes[0]
    if ending != f".{exporter.name}":
        ending = f".{exporter.name}{ending}"
    target = output or model.with_name(model.stem + ending)
    refuse_existing(target, force)
    asked: dict[str, Any] = {
        "device": device or None,
        "optimization": level,
        "providers": provider,
        "threads": threads,
        "arena": arena,
        "shapes": _shape_ranges(shape_range) or None,
        "workspace_mib": workspace,
        "timing_cache": timing_cache,
        "dla": dla,
        "layers": layers or None,
        "python": python,
        "settings": _settings(option) or None,
    }
    given = {name: value for name, value in asked.items() if value is not None}
    with stage(f"building for {exporter.name}"):
        result = exporter.build(model, target, max_rank=None if no_gate else 4, timeout=timeout, **given)
    if result.summary:
        note(result.summary)
    for sentence in result.notes:
        note(f"note: {sentence}")
    if as_json:
        emit_json(result.to_dict())
    else:
        emit_text(str(result.path))


def _settings(texts: Sequence[str] | None) -> dict[str, str]:
    """``["NUM_STREAMS=2"]`` as a mapping.

    Raises:
        UsageError: a text without ``=``, or a name given twice.
    """
    from edge4d.errors import UsageError

    found: dict[str, str] = {}
    for text in texts or ():
        name, sign, value = text.partition("=")
        if not name or not sign:
            raise UsageError(f"--option {text!r}, expected NAME=VALUE")
        if name in found:
            raise UsageError(f"--option {name} was given twice")
        found[name] = value
    return found


def _shape_ranges(texts: Sequence[str] | None) -> dict[str, tuple[tuple[int, ...], ...]]:
    """``["clip=1x3x64x64:8x3x64x64:16x3x64x64"]`` as least, best and greatest shape by name.

    Raises:
        UsageError: no name, or not three shapes.
    """
    from edge4d.errors import UsageError

    found: dict[str, tuple[tuple[int, ...], ...]] = {}
    for text in texts or ():
        name, _, shapes = text.rpartition("=")
        parts = parse_shapes(shapes.split(":"))
        if not name or len(parts) != 3:
            raise UsageError(f"--shape-range {text!r}, expected NAME=MIN:BEST:MAX, three shapes of one input")
        found[name] = parts
    return found
