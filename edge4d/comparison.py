"""The paper's Table II, measured: what every structure costs in a reference network, and how fast it runs.

Parameters and multiply-accumulates are counted without computing anything; frames per second are those of the exported
rank-4 graphs, and of the Conv3D network as a usual 5-D graph, in ONNX Runtime, in turns.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from edge4d import blocks, models
from edge4d.comparison_table import PAPER, Comparison, PaperFigures, Row
from edge4d.errors import UsageError

if TYPE_CHECKING:
    import torch
    from torch import nn

    from edge4d.models.eco_lite import EcoLite
    from edge4d.validators.fps import CandidateFps, FpsReport

__all__ = ["PAPER", "Comparison", "PaperFigures", "Row", "compare_structures", "count_macs"]

Stage = Callable[[str], AbstractContextManager[None]]

NATIVE = "conv3d-5d"
"""The Conv3D network as a graph with 5-D tensors and 3-D convolutions: what there is without edge4d."""


_P3D = "; the paper does not say what makes its own larger than spatial + temporal (12/27 of a Conv3d)"
_UNDEFINED = {
    "p3d-a": f"Qiu et al.'s figure 2(a): 3×3 C→S, then 3 S→S{_P3D}",
    "p3d-b": f"Qiu et al.'s figure 2(b): 3×3 C→S beside 3 C→S, added{_P3D}",
    "p3d-c": f"Qiu et al.'s figure 2(c): 3×3 C→S, plus 3 S→S of its result{_P3D}",
    "rank-1": "three full 1-D convolutions, C→S, S→S, S→S; the paper does not say how wide its own are",
}
"""Structures that the paper names without defining them: what is built here, and why the figures differ."""


def compare_structures(
    model: str = "eco-lite",
    *,
    structures: Sequence[str] = (),
    frames: int | None = None,
    rounds: int = 5,
    threads: int | None = None,
    stage: Stage | None = None,
) -> Comparison:
    """Count and time a reference network under each structure.

    Args:
        model: a name of `edge4d.models`.
        structures: names of `edge4d.blocks`; all when empty.
        frames: T of the clip; the network's own when None.
        rounds: turns of each network in ONNX Runtime; 0 counts only and needs no runtime.
        threads: CPU threads of ONNX Runtime; all that this process may use when None.
        stage: wraps each stage of the work, given its name; for progress.

    Raises:
        UsageError: unknown network or structure, a negative number of rounds, too few frames.
        RuntimeUnavailable: rounds are asked for and ONNX Runtime is not there.
    """
    kind = models.get(model)
    wanted = [blocks.get(name).name for name in dict.fromkeys(structures or blocks.names())]
    if rounds < 0:
        raise UsageError(f"rounds must be 0 or more, got {rounds}")
    if rounds:
        _need_runtime()
    length = kind.frames if frames is None else frames
    in_paper = model == "eco-lite" and length == kind.frames
    rows: list[Row] = []
    frame_macs, shape = 0, cast("tuple[int, ...]", ())
    with tempfile.TemporaryDirectory(prefix="edge4d-") as folder:
        paths: dict[str, Path] = {}
        for name in wanted:
            title = blocks.get(name).title
            with _staged(stage, f"{title}: counting"):
                row, frame_macs, shape = _count(model, name, length, in_paper)
            if rounds:
                with _staged(stage, f"{title}: exporting"):
                    row, paths[name] = _export(model, row, length, Path(folder))
            rows.append(row)
        if not rounds:
            return Comparison(model, shape, tuple(rows), frame_macs, notes=_notes(rows, frame_macs, False))
        with _staged(stage, "Conv3D as a 5-D graph: exporting"):
            native = _export_native(model, length, Path(folder))
        with _staged(stage, "measuring"):
            from edge4d.validators.fps_paths import bench_paths

            report = bench_paths([native, *paths.values()], rounds=rounds, warmup=1, threads=threads)
    timed = tuple(_with_speed(row, found) for row, found in zip(rows, report.candidates[1:], strict=True))
    return Comparison(
        model,
        shape,
        timed,
        frame_macs,
        native=_rates(report.candidates[0]),
        speed=_how(report),
        notes=(*_notes(rows, frame_macs, True), _said(report)),
    )


def count_macs(module: nn.Module, *args: torch.Tensor) -> int:
    """Multiply-accumulates of a call, by torch's counter (two of its operations are one); nothing is computed.

    Args:
        module: left unchanged.
        args: inputs, of which only shape and dtype count.
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    ghost = copy.deepcopy(module).to("meta")
    counter = FlopCounterMode(display=False)
    with torch.no_grad(), counter:
        ghost(*(arg.to("meta") for arg in args))
    return int(counter.get_total_flops()) // 2


def _count(model: str, name: str, frames: int, in_paper: bool) -> tuple[Row, int, tuple[int, ...]]:
    """A line without its speed, the 2D-Net's work, and the clip's shape."""
    import torch

    from edge4d.lowered import lower

    network = _build(model, name, frames)
    _, c, t, h, w = network.input_shape
    planes = torch.empty(t, c, h, w, device="meta")
    ghost = copy.deepcopy(network).to("meta")
    with torch.no_grad():
        features = torch.zeros(ghost.features(torch.empty(network.input_shape, device="meta")).shape)
    lowered = lower(network.net3d, (features,))
    row = Row(
        structure=name,
        title=blocks.get(name).title,
        parameters=sum(parameter.numel() for parameter in network.parameters()),
        macs=count_macs(network.net3d, features),
        graph_macs=count_macs(lowered.module, *lowered.pack(features)),
        paper=PAPER.get(name) if in_paper else None,
    )
    return row, count_macs(network.net2d, planes), network.input_shape


def _build(model: str, name: str, frames: int) -> EcoLite:
    """The same random weights for every call, without a trace in the caller's generator."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return models.build(model, name, frames=frames).eval()


def _export(model: str, row: Row, frames: int, folder: Path) -> tuple[Row, Path]:
    import torch

    from edge4d.exporting import export

    network = _build(model, row.structure, frames)
    clip = torch.randn(network.input_shape, generator=torch.Generator().manual_seed(0))
    report = export(network, (clip,), output=folder / f"{row.structure}.onnx", sets=1)
    return replace(row, ok=report.ok), folder / f"{row.structure}.onnx"


def _export_native(model: str, frames: int, folder: Path) -> Path:
    """What torch.onnx itself makes of the Conv3D network."""
    import torch

    from edge4d.exporters.native import write_native

    network = _build(model, "conv3d", frames)
    path = folder / f"{NATIVE}.onnx"
    write_native(network, (torch.zeros(network.input_shape),), path)
    return path


def _need_runtime() -> None:
    from edge4d import exporters
    from edge4d.errors import RuntimeUnavailable

    probed = exporters.get("onnxruntime").probe()
    if not probed.ok:
        raise RuntimeUnavailable(
            f"frames per second cannot be measured: ONNX Runtime: {probed.why_not}",
            hint=f"{probed.install}, or count only with --rounds 0",
        )


def _staged(stage: Stage | None, label: str) -> AbstractContextManager[None]:
    return stage(label) if stage is not None else nullcontext()


def _with_speed(row: Row, found: CandidateFps) -> Row:
    return replace(row, speedup=found.speedup, **_rates(found))


def _rates(found: CandidateFps) -> dict[str, Any]:
    return {
        "frames_per_s": found.frames_per_s,
        "latency_ms": found.latency_ms["p50"] if found.latency_ms is not None else None,
        "failure": found.failure,
    }


def _how(report: FpsReport) -> dict[str, Any]:
    details = next((dict(c.details) for c in report.candidates if c.failure is None), {})
    return {"rounds": report.rounds, "machine": dict(report.machine), **{k: details.get(k) for k in _HOW}}


_HOW = ("runtime", "version", "providers", "threads")


def _said(report: FpsReport) -> str:
    how = _how(report)
    machine = ", ".join(f"{key} {value}" for key, value in how["machine"].items())
    return (
        f"FPS: the whole network on {how['runtime']} {how['version']}, {how['threads']} threads, {how['rounds']} "
        f"interleaved rounds, {machine}; the paper's are of a V100. Speedup is over the 5-D graph."
    )


def _notes(rows: Sequence[Row], frame_macs: int, timed: bool) -> tuple[str, ...]:
    notes = [
        f"MACs are those of the 3D-Net for one clip, as the paper counts; the 2D-Net adds {frame_macs / 1e9:.3g} G. "
        "The 4-D graph leaves out taps that see nothing but padding."
    ]
    notes += [f"{row.title}: {_UNDEFINED[row.structure]}." for row in rows if row.paper and row.structure in _UNDEFINED]
    if not timed:
        notes.append("FPS was not measured (0 rounds).")
    return tuple(notes)
