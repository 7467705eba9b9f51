"""`edge4d bench`: frames per second, latency and memory, side by side."""

from pathlib import Path
from typing import Annotated

import typer

from edge4d.cli.options import (
    Factory,
    Fix,
    Force,
    InputShapes,
    Json,
    Providers,
    Seed,
    Submodule,
    Threads,
    TrustPickle,
    parse_shapes,
)
from edge4d.cli.output import emit_json, emit_text, note, print_error, stage


def command(
    reference: Annotated[Path, typer.Argument(metavar="REFERENCE", help="What the others are compared with.")],
    candidates: Annotated[list[Path] | None, typer.Argument(metavar="CANDIDATE", help="Further models.")] = None,
    rounds: Annotated[int, typer.Option("--rounds", min=1, help="Turns of each model.")] = 20,
    warmup: Annotated[int, typer.Option("--warmup", min=0, help="Calls of each before, not timed.")] = 3,
    calls: Annotated[int, typer.Option("--calls", min=1, help="Timed calls in a turn.")] = 1,
    threads: Threads = None,
    provider: Providers = None,
    input_shape: InputShapes = None,
    factory: Factory = None,
    trust_pickle: TrustPickle = False,
    submodule: Submodule = None,
    fix: Fix = None,
    seed: Seed = 0,
    time_limit: Annotated[
        float, typer.Option("--time-limit", min=0.1, help="Seconds to load, to warm up, and for a turn.")
    ] = 600.0,
    native: Annotated[
        bool,
        typer.Option(
            "--native",
            help="Also export REFERENCE, a PyTorch model, by torch.onnx with its five axes, and time that on every "
            "runtime that a candidate runs on.",
        ),
    ] = False,
    min_fps: Annotated[
        float | None,
        typer.Option(
            "--min-fps",
            metavar="N",
            help="Exit with 1 if a candidate (REFERENCE, if it stands alone) gives fewer frames per second: frames, "
            "not clips.",
        ),
    ] = None,
    min_ratio: Annotated[
        float | None,
        typer.Option(
            "--min-ratio",
            "--min-speedup",
            metavar="N",
            help="Exit with 1 if a candidate is less than N times as fast as REFERENCE. Two names of one option.",
        ),
    ] = None,
    plot: Annotated[
        Path | None, typer.Option("--plot", metavar="FILE", help="Draw frames per second (.png, .svg, .pdf).")
    ] = None,
    force: Force = False,
    as_json: Json = False,
) -> int:
    """Measure frames per second, latency and memory.

    Each model runs in a process of its own, .onnx and .ort files on ONNX Runtime, engines on their runtimes, anything
    else on PyTorch, and they take turns. Only the runtime's work is timed; packing has its own column, and so have
    copies to a device where the runtime tells them apart. Memory is the high-water mark of the whole process, build
    time comes from an engine's recipe. The exit code is 1 if a model fails to run or is too slow, 2 if one cannot be
    read, and 3 if all that is missing is a runtime or a device.

    Examples:
        edge4d bench model.pt2 model.onnx
        edge4d bench model.pt2 model.onnx model.ort --threads 1 --rounds 50
        edge4d bench weights.pt model.onnx --factory mynet.zoo:build --input-shape 1x3x16x112x112
        edge4d bench model.pt2 model.onnx model.openvino.xml --native --plot fps.png
        edge4d bench model.pt2 model.onnx --min-ratio 1.2 --min-fps 30 --json
    """
    from edge4d.fixed_inputs import parse_fixes
    from edge4d.validators.fps_floors import Floors
    from edge4d.validators.fps_paths import bench_paths

    paths = [reference, *(candidates or [])]
    floors = Floors(min_fps, min_ratio)
    floors.check_count(len(paths))
    if plot is not None:
        from edge4d.files import refuse_existing
        from edge4d.plotting import check_plot

        refuse_existing(plot, force)
        check_plot(plot)

    with stage("measuring"):
        report = bench_paths(
            paths,
            rounds=rounds,
            warmup=warmup,
            calls_per_round=calls,
            threads=threads,
            providers=provider,
            input_shapes=parse_shapes(input_shape),
            factory=factory,
            trust_pickle=trust_pickle,
            submodule=submodule,
            fix=parse_fixes(fix),
            seed=seed,
            time_limit_s=time_limit,
            native=native,
        ).held_to(floors)
    if as_json:
        emit_json(report.to_dict())
    else:
        emit_text(report.to_text())
    if plot is not None and any(line.frames_per_s for line in report.candidates):
        from edge4d.validators.fps_plot import plot_fps

        note(f"plot: {plot_fps(report, plot)}")
    for shortfall in report.shortfalls:
        print_error(shortfall.to_text())
    return report.exit_code
