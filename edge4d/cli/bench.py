"""`edge4d bench`: frames per second, latency and memory, side by side."""

from pathlib import Path
from typing import Annotated

import typer

from edge4d.cli.options import Factory, InputShapes, Json, Providers, Seed, Threads, TrustPickle, parse_shapes
from edge4d.cli.output import emit_json, emit_text, print_error, stage


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
    seed: Seed = 0,
    time_limit: Annotated[
        float, typer.Option("--time-limit", min=0.1, help="Seconds to load, to warm up, and for a turn.")
    ] = 600.0,
    min_speedup: Annotated[
        float | None, typer.Option("--min-speedup", help="Exit with 1 if a candidate is less than this times as fast.")
    ] = None,
    as_json: Json = False,
) -> int:
    """Measure frames per second, latency and memory.

    Each model runs in a process of its own, .onnx and .ort files on ONNX Runtime, engines on their runtimes, anything
    else on PyTorch, and they take turns. Only the runtime's work is timed; packing has its own column. Memory is the
    high-water mark of the whole process. The exit code is 1 if a model fails to run or is too slow, 2 if one cannot be
    read, and 3 if all that is missing is a runtime or a device.

    Examples:
        edge4d bench model.pt2 model.onnx
        edge4d bench model.pt2 model.onnx model.ort --threads 1 --rounds 50
        edge4d bench weights.pt model.onnx --factory mynet.zoo:build --input-shape 1x3x16x112x112
        edge4d bench model.pt2 model.onnx --min-speedup 1.2 --json
    """
    from edge4d.validators.fps_paths import bench_paths

    with stage("measuring"):
        report = bench_paths(
            [reference, *(candidates or [])],
            rounds=rounds,
            warmup=warmup,
            calls_per_round=calls,
            threads=threads,
            providers=provider,
            input_shapes=parse_shapes(input_shape),
            factory=factory,
            trust_pickle=trust_pickle,
            seed=seed,
            time_limit_s=time_limit,
        )
    if as_json:
        emit_json(report.to_dict())
    else:
        emit_text(report.to_text())
    slow = report.slower_than(min_speedup) if min_speedup is not None else ()
    for name in slow:
        print_error(f"{name} is not {min_speedup:g} times as fast as {reference}")
    return max(report.exit_code, 1 if slow else 0)
