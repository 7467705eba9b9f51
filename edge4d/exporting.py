"""`edge4d.export`: the whole line, from a model to a gated artifact whose numbers have been checked."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge4d._version import __version__
from edge4d.blocks.choice import BlockSpec, Choice
from edge4d.blocks.registry import EXACT, names
from edge4d.errors import UsageError
from edge4d.planning import Planner
from edge4d.report import ExportReport, PlanReport

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch
    from torch import nn

    from edge4d.subject import Subject
    from edge4d.swap_report import SwapReport
    from edge4d.validators.parity import ParityReport
    from edge4d.validators.profile import Profile

__all__ = ["BLOCKS", "check_block", "export", "plan_report"]

BLOCKS = (EXACT, *names())
"""What ``--block`` takes: `exact` keeps every number, the others are structures that replace a Conv3d."""

Stage = Callable[[str], AbstractContextManager[None]]


def check_block(block: BlockSpec) -> str:
    """The block's label, or a `UsageError` that lists the blocks and the nearest one."""
    return Choice.of(block).label


def export(
    model: nn.Module | torch.export.ExportedProgram | str | Path,
    args: tuple[Any, ...] | None = None,
    kwargs: Mapping[str, Any] | None = None,
    *,
    output: str | Path | None = None,
    block: BlockSpec = "exact",
    block_options: Mapping[str, Any] | None = None,
    calib: Any = None,
    runtime: str | None = None,
    formulations: Sequence[str | tuple[str, str]] = (),
    max_weight_growth: float | None = None,
    input_shapes: Sequence[tuple[int, ...]] = (),
    factory: str | None = None,
    trust_pickle: bool = False,
    opset: int = 18,
    simplify: bool = True,
    parity: bool = True,
    sets: int = 2,
    seed: int = 0,
    force: bool = False,
    profile: str | None = None,
    stage: Stage | None = None,
) -> ExportReport:
    """Export a trained 3-D network as an ONNX graph of rank ≤ 4 and check it.

    Args:
        model: an `nn.Module` (left unchanged), an `ExportedProgram`, or the path of a model file.
        args: example inputs of a module in memory; shapes are fixed by them.
        kwargs: keyword inputs of a module in memory.
        output: the ``.onnx`` to write; beside the model's own file when None.
        block: ``exact`` keeps every number; a structure replaces the 3×3×3 layers; or a choice per layer, as in `swap`.
        block_options: of the structures, e.g. ``{"energy": 0.99}``.
        calib: clips that the structures are fitted on, see `edge4d.calibrating.calibrate`.
        runtime: what the artifact is meant for, a name of `edge4d.planning.RUNTIMES`; formulations that it handles
            badly are left out.
        formulations: ``"layer4.*=taps"``; which formulation layers get, where it fits.
        max_weight_growth: how many times its own weights a layer may get; Winograd's F(4, 3) doubles them.
        input_shapes: logical shapes for a model file that carries none.
        factory: ``package.module:callable`` that builds the module of a state_dict.
        trust_pickle: allow a file that runs code when it is read.
        opset: ONNX operator set.
        simplify: run onnxsim.
        parity: run the artifact in ONNX Runtime against PyTorch on `sets` random inputs.
        sets: how many random inputs.
        seed: of the random inputs.
        force: replace an existing output.
        profile: a device profile, by name or path, whose limits the artifact must keep too.
        stage: wraps each stage of the work, given its name; for progress.

    Returns:
        A report; `.ok` is false when the gate has findings or the numbers differ. The files are written either way.

    Raises:
        UsageError: unknown block, profile, runtime or formulation, existing output without `force`, inputs missing.
        LoadError: the model file cannot be read or must not be trusted.
        CaptureError: torch.export cannot capture the model.
        LoweringError: the model holds operators without a way to rank 4.
        ExportError: the artifact cannot be written.
    """
    from edge4d.exporters.onnx import check_opset
    from edge4d.files import refuse_existing
    from edge4d.subject import Subject
    from edge4d.validators.profile import load_profile

    choice = Choice.of(block)
    choice.check_options(block_options or {})
    clips = _clips(choice, calib)
    planner = Planner.of(runtime, formulations, max_weight_growth)
    check_opset(opset)
    target = _target(model, output)
    if not (isinstance(model, str | Path) and target == Path(model)):  # an ONNX file as MODEL: loading says it best
        refuse_existing(target, force)
    held = load_profile(profile) if profile is not None else None
    clock = _Clock(stage)
    with clock("loading"):
        subject = Subject.of(
            model, args, kwargs, shapes=input_shapes, factory=factory, trust_pickle=trust_pickle, seed=seed
        )
    swapped = _swapped(subject, choice, block, block_options, clips, clock, measure=True, seed=seed)
    options = {
        "block": choice.label,
        **(block_options or {}),
        **_calibrated_on(clips, calib),
        "opset": opset,
        "simplify": simplify,
        "seed": seed,
        "factory": factory,
        **planner.to_dict(),
    }
    report = _export(subject, target, options, planner, sets if parity else 0, clock, held)
    report.swap = swapped
    return report


def plan_report(
    model: nn.Module | torch.export.ExportedProgram | str | Path,
    args: tuple[Any, ...] | None = None,
    kwargs: Mapping[str, Any] | None = None,
    *,
    block: BlockSpec = "exact",
    block_options: Mapping[str, Any] | None = None,
    calib: Any = None,
    runtime: str | None = None,
    formulations: Sequence[str | tuple[str, str]] = (),
    max_weight_growth: float | None = None,
    input_shapes: Sequence[tuple[int, ...]] = (),
    factory: str | None = None,
    trust_pickle: bool = False,
    stage: Stage | None = None,
) -> PlanReport:
    """A dry run of `export`: what every operator above rank 4 becomes, or why it is declined. Arguments as there.

    Raises:
        UsageError: unknown block, inputs missing.
        LoadError: the model file cannot be read or must not be trusted.
        CaptureError: torch.export cannot capture the model.
    """
    from edge4d.lowered import plan
    from edge4d.subject import Subject

    choice = Choice.of(block)
    choice.check_options(block_options or {})
    clips = _clips(choice, calib)
    planner = Planner.of(runtime, formulations, max_weight_growth)
    clock = _Clock(stage)
    with clock("loading"):
        subject = Subject.of(model, args, kwargs, shapes=input_shapes, factory=factory, trust_pickle=trust_pickle)
    swapped = _swapped(subject, choice, block, block_options, clips, clock, measure=False)
    with clock("planning"):
        layers = plan(subject.model, subject.args, subject.kwargs, planner=planner)
    return PlanReport(subject.source, choice.label, layers, subject.notes, swapped)


def _clips(choice: Choice, calib: Any) -> torch.Tensor | None:
    """The calibration clips, read before the model is, since mistakes in them can be told at once."""
    if calib is None:
        return None
    if choice.exact:
        raise UsageError("calibration clips need a block to fit", hint="e.g. --block proposed-add")
    from edge4d.calibrating import read_clips

    return read_clips(calib)


def _calibrated_on(clips: torch.Tensor | None, calib: Any) -> dict[str, Any]:
    """What a recipe keeps of the clips: the name they were given by, how many, and the SHA-256 of their numbers."""
    if clips is None:
        return {}
    import hashlib

    import torch

    digest = hashlib.sha256(clips.cpu().contiguous().view(torch.uint8).numpy().tobytes()).hexdigest()
    name = Path(calib).name if isinstance(calib, str | Path) else None
    return {"calib": {"source": name, "clips": len(clips), "sha256": digest}}


def _target(model: Any, output: str | Path | None) -> Path:
    """Where to write; what cannot work is said before the model is loaded."""
    from edge4d.files import refuse_folder

    if output is None:
        if not isinstance(model, str | Path):
            raise UsageError("export of a module in memory needs an output path", hint='write output="model.onnx"')
        return Path(model).with_suffix(".onnx")
    target = Path(output)
    if target.suffix != ".onnx":
        raise UsageError(f"the output {target} is not named .onnx", hint=f"write -o {target.with_suffix('.onnx')}")
    if isinstance(model, str | Path) and target.exists() and target.samefile(model):
        raise UsageError(f"the output {target} is the model itself", hint="choose another name with -o")
    refuse_folder(target)
    return target


class _Clock:
    """Times the stages and shows them."""

    def __init__(self, stage: Stage | None) -> None:
        self.stage = stage
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        begun = time.perf_counter()
        with self.stage(name) if self.stage is not None else nullcontext():
            yield
        self.seconds[name] = time.perf_counter() - begun


def _swapped(
    subject: Subject,
    choice: Choice,
    block: BlockSpec,
    options: Mapping[str, Any] | None,
    clips: torch.Tensor | None,
    clock: _Clock,
    *,
    measure: bool,
    seed: int = 0,
) -> SwapReport | None:
    """Put the swapped network in the subject's place, so that all that follows, parity too, is about that one."""
    if choice.exact:
        return None
    if subject.graph:
        raise UsageError(
            f"--block {choice.label}: {subject.source} is {subject.graph}, a graph without the nn.Conv3d modules that "
            "a block replaces",
            hint="pass the nn.Module itself, or a state_dict with --factory package.module:callable",
        )
    from edge4d.distance import distances
    from edge4d.swapping import swap_with_report

    with clock("swapping"):
        original = subject.model
        subject.model, report = swap_with_report(
            original, block, args=subject.args, kwargs=subject.kwargs, calib=clips, **(options or {})
        )
    if measure:
        with clock("measuring the change"):
            report.distance = distances(original, subject.model, subject.args, subject.kwargs, seed=seed)
            if clips is not None:
                report.distance += distances(original, subject.model, (), {}, data=clips)
    return report


def _export(
    subject: Subject,
    target: Path,
    options: Mapping[str, Any],
    planner: Planner,
    sets: int,
    clock: _Clock,
    profile: Profile | None,
) -> ExportReport:
    from edge4d.artifact import describe
    from edge4d.exporters.onnx import to_onnx
    from edge4d.exporters.writing import write_artifact
    from edge4d.lowered import lower
    from edge4d.validators.rank import check_rank

    with clock("capturing and lowering"):
        lowered = lower(subject.model, subject.args, subject.kwargs, planner=planner)
    with clock("translating to ONNX"):
        graph = to_onnx(lowered, opset=options["opset"], simplify=options["simplify"])
    described = {"version": __version__, "block": options["block"], "source": subject.source}
    describe(graph.proto, lowered.inputs, lowered.outputs, **described)
    shapes = {"inputs": [port.to_dict() for port in lowered.inputs]}
    with clock("writing"):
        sources = [subject.path] if subject.path is not None else []
        write_artifact(graph, target, sources=sources, options={**options, **shapes})
    with clock("gate"):
        gate = check_rank(target, profile=profile)
    compared = None
    if sets:
        with clock("parity"):
            compared = _parity(subject, target, sets, options["seed"])
    return ExportReport(
        path=target,
        block=options["block"],
        source=subject.source,
        inputs=lowered.inputs,
        outputs=lowered.outputs,
        gate=gate,
        parity=compared,
        layers=lowered.layers,
        opset=options["opset"],
        operators=dict(Counter(node.op_type for node in graph.proto.graph.node).most_common()),
        weight_bytes=graph.weight_bytes,
        folded=lowered.folded,
        notes=subject.notes,
        seconds=clock.seconds,
    )


def _parity(subject: Subject, target: Path, sets: int, seed: int) -> ParityReport | None:
    """The artifact in ONNX Runtime against eager PyTorch; without ONNX Runtime a note says that it was not checked."""
    from edge4d import exporters
    from edge4d.artifact import open as open_artifact
    from edge4d.validators.parity import compare_callables, random_inputs
    from edge4d.validators.referee import compare_by_referee

    probed = exporters.get("onnxruntime").probe()
    if not probed.ok:
        subject.notes.append(f"parity was not checked: {probed.why_not}; {probed.install}")
        return None
    with open_artifact(target) as candidate:
        inputs = [random_inputs(candidate.inputs, seed=seed + i) for i in range(sets)]
        names = [port.name for port in candidate.outputs]
        eager = subject.reference(names)
        report = compare_callables(eager, candidate, inputs)
        if report.ok:
            return report
        return compare_by_referee(report, eager, subject.reference(names, double=True), candidate, inputs)
