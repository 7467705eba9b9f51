"""`edge4d.export`: the whole line, from a model to a gated artifact whose numbers have been checked."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge4d._version import __version__
from edge4d.blocks.choice import BlockSpec, Choice
from edge4d.blocks.registry import EXACT, names
from edge4d.errors import UsageError
from edge4d.fixed_inputs import Fixes, fixes_text, parse_fixes
from edge4d.planning import Planner
from edge4d.ports import Port
from edge4d.replanning import MAX_ERROR, lower_within
from edge4d.report import ExportReport, PlanReport

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch
    from torch import nn

    from edge4d.exporters.precision import Precision
    from edge4d.intake_options import Asked
    from edge4d.lowered import Lowered
    from edge4d.sampling import Samples
    from edge4d.subject import Subject
    from edge4d.swap_report import SwapReport
    from edge4d.validators.profile import Profile

__all__ = ["BLOCKS", "check_block", "export", "plan_report"]

BLOCKS = (EXACT, *names())
"""What ``--block`` takes: `exact` keeps every number, the others are structures that replace a Conv3d."""

AUTOTUNE_BUDGET = 60.0
"""Seconds of timing by default."""

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
    max_activation_memory: int | None = None,
    max_error: float = MAX_ERROR,
    autotune: str | None = None,
    autotune_budget: float = AUTOTUNE_BUDGET,
    input_shapes: Sequence[tuple[int, ...]] = (),
    factory: str | None = None,
    trust_pickle: bool = False,
    submodule: str | None = None,
    fix: Fixes | None = None,
    precision: str | None = None,
    keep_fp32: Sequence[str] = (),
    calibration: str = "minmax",
    calib_mean: Sequence[float] = (),
    calib_std: Sequence[float] = (),
    fp16_io: bool = False,
    normalize: Any = None,
    input_layout: Any = None,
    dynamic: str | None = None,
    opset: int = 18,
    simplify: bool = True,
    parity: bool = True,
    sets: int = 2,
    seed: int = 0,
    force: bool = False,
    profile: str | None = None,
    stage: Stage | None = None,
    progress: Callable[[str], None] | None = None,
) -> ExportReport:
    """Export a trained 3-D network as an ONNX graph of rank ≤ 4 and check it.

    Args:
        model: an `nn.Module` (left unchanged), an `ExportedProgram`, or the path of a model file.
        args: example inputs of a module in memory; shapes are fixed by them.
        kwargs: keyword inputs of a module in memory.
        output: the ``.onnx`` to write; beside the model's own file when None, as ``NAME.4d.onnx`` beside ``NAME.onnx``.
        block: ``exact`` keeps every number; a structure replaces the 3×3×3 layers; or a choice per layer, as in `swap`.
        block_options: of the structures, e.g. ``{"energy": 0.99}``.
        calib: clips that the structures are fitted on and the ranges of int8 drawn from: arrays, an ``.npz``, or a
            folder of arrays, frames or videos; see `edge4d.clips.load_clips`.
        runtime: what the artifact is meant for, a name of `edge4d.planning.RUNTIMES`; formulations that it handles
            badly are left out.
        formulations: ``"layer4.*=taps"``; which formulation layers get, where it fits.
        max_weight_growth: how many times its own weights a layer may get; Winograd's F(4, 3) doubles them.
        max_activation_memory: bytes that a formulation may need between a layer's input and its result.
        max_error: how far the network may stray from eager float32, relative to the range of each output; a plan that
            strays further is made again with milder formulations. Looked at with `parity` only.
        autotune: a runtime that is here; formulations are timed on it instead of predicted. Implies `runtime`.
        autotune_budget: seconds that this may take; what it has not come to is predicted.
        input_shapes: logical shapes for a model file that carries none.
        factory: ``package.module:callable`` that builds the module of a state_dict.
        trust_pickle: allow a file that runs code when it is read.
        submodule: the part of the network that is wanted, by its path, e.g. ``model.visual``.
        fix: values by input, which become constants of the graph: ``{"grid_thw": [[1, 16, 24]]}`` for code that
            reads such an input by value. A list (or tensor) becomes a tensor, anything else stays as it is.
        precision: ``fp32``, ``fp16`` or ``int8``; the latter needs `calib`, and leaves Winograd out. When None, the
            model's own types: float32, or float16 where its weights are. Given, a model of other types is first made
            float32.
        keep_fp32: patterns of layers or ONNX operators that stay in float32.
        calibration: how int8 ranges are drawn: ``minmax``, ``entropy`` or ``percentile``.
        calib_mean: what is taken from pictures and videos, whose values go from 0 to 1; one number, or one a channel.
        calib_std: what they are then divided by.
        fp16_io: inputs and outputs are float16 too.
        normalize: the graph takes uint8 frames and makes (frame / scale - mean) / std of them, by channel: a mapping
            with ``mean``, ``std`` and ``scale`` (255), a text ``"mean=0.43,0.39,0.37 std=0.22 scale=255"``, or a
            mapping of those by input name. `calib` then holds such frames too.
        input_layout: ``nhwc`` for frames with their channels last (N T H W C), or a mapping of it by input name.
        dynamic: ``batch`` leaves the first axis of the inputs open; see `edge4d.exporters.open_batch`.
        opset: ONNX operator set.
        simplify: run onnxsim.
        parity: run the artifact in ONNX Runtime against PyTorch, on `sets` random inputs; int8 on the first clips of
            `calib`.
        sets: how many random inputs.
        seed: of the random inputs.
        force: replace an existing output.
        profile: a device profile, by name or path, whose limits the artifact must keep too.
        stage: wraps each stage of the work, given its name; for progress.
        progress: told a line for each layer that is timed.

    Returns:
        A report; `.ok` is false when the gate has findings or the numbers differ. The files are written either way.

    Raises:
        UsageError: unknown block, profile, runtime, formulation or precision, existing output without `force`, inputs
            missing, clips that are missing, too few, or do not fit.
        LoadError: the model file cannot be read or must not be trusted.
        CaptureError: torch.export cannot capture the model, or the import of an ONNX file does not compute the same.
        LoweringError: the model holds operators without a way to rank 4.
        ExportError: the artifact cannot be written.
    """
    from edge4d.calibrating import read_clips
    from edge4d.clips import Pixels
    from edge4d.exporters.autotune import planner_for
    from edge4d.exporters.onnx import check_opset
    from edge4d.exporters.precision import Precision, check_tools
    from edge4d.files import refuse_existing
    from edge4d.intake_options import Asked
    from edge4d.sampling import Samples, check_clips
    from edge4d.subject import Subject
    from edge4d.validators.profile import load_profile

    choice = Choice.of(block)
    choice.check_options(block_options or {})
    types = Precision(precision or "fp32", tuple(keep_fp32), calibration, fp16_io)
    planner, tuner = planner_for(
        Planner.of(runtime or autotune, formulations, max_weight_growth, max_activation_memory, types.name),
        autotune,
        autotune_budget,
        progress,
    )
    if not max_error > 0:
        raise UsageError(f"no network stays within an error of {max_error}", hint="give a number above 0, e.g. 1e-5")
    check_clips(choice, types, calib)
    check_tools(types)
    pixels = Pixels(tuple(calib_mean), tuple(calib_std))
    asked = Asked.of(normalize, input_layout)
    if asked.normalizes and (calib_mean or calib_std):
        raise UsageError(
            "--calib-mean, --calib-std: with --normalize the graph itself normalises, and clips are read as frames",
            hint="leave them out",
        )
    check_opset(opset)
    if dynamic not in (None, "batch"):
        raise UsageError(f"--dynamic {dynamic}: only the batch can be left open", hint="--dynamic batch")
    target = _target(model, output)
    refuse_existing(target, force)
    held = load_profile(profile) if profile is not None else None
    clock = _Clock(stage)
    with clock("loading"):
        subject = Subject.of(
            model,
            args,
            kwargs,
            shapes=input_shapes,
            factory=factory,
            trust_pickle=trust_pickle,
            seed=seed,
            submodule=submodule,
            fix=fix,
        )
    samples = fitted_on = None
    if calib is not None:
        with clock("reading clips"):
            samples = Samples.of(calib, subject, pixels, asked)
            fitted_on = read_clips(samples.for_blocks) if not choice.exact else None
        subject.notes += samples.clips.notes if samples.clips is not None else []
    if parity and subject.imported:
        from edge4d.import_checking import check_import

        with clock("checking the import"):
            check_import(subject, seed)
    swapped = _swapped(subject, choice, block, block_options, fitted_on, clock, measure=True, seed=seed)
    options = {
        "block": choice.label,
        **(block_options or {}),
        **(samples.to_dict() if samples is not None else {}),
        "dynamic": dynamic,
        "opset": opset,
        "simplify": simplify,
        "seed": seed,
        "factory": factory,
        **({"submodule": submodule} if submodule is not None else {}),
        **({"fix": fixes_text(fix)} if fix else {}),
        **planner.to_dict(),
        **({"autotune": autotune} if autotune is not None else {}),
        **({"max_error": max_error} if max_error != MAX_ERROR else {}),
        **types.to_dict(),
        "own_types": precision is None,
        **asked.to_dict(),
        **({"pixels": pixels.to_dict()} if samples is not None and (calib_mean or calib_std) else {}),
    }
    report = _export(
        subject, target, options, planner, types, asked, samples, sets if parity else 0, clock, held, max_error
    )
    report.swap = swapped
    if tuner is not None:
        report.notes.append(tuner.note())
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
    max_activation_memory: int | None = None,
    autotune: str | None = None,
    autotune_budget: float = AUTOTUNE_BUDGET,
    precision: str = "fp32",
    input_shapes: Sequence[tuple[int, ...]] = (),
    factory: str | None = None,
    trust_pickle: bool = False,
    submodule: str | None = None,
    fix: Fixes | None = None,
    normalize: Any = None,
    input_layout: Any = None,
    stage: Stage | None = None,
    progress: Callable[[str], None] | None = None,
) -> PlanReport:
    """A dry run of `export`: what every operator above rank 4 becomes, or why it is declined. Arguments as there.

    Raises:
        UsageError: unknown block, inputs missing.
        LoadError: the model file cannot be read or must not be trusted.
        CaptureError: torch.export cannot capture the model.
    """
    from edge4d.calibrating import read_clips
    from edge4d.exporters.autotune import planner_for
    from edge4d.exporters.precision import Precision
    from edge4d.intake_options import Asked
    from edge4d.lowered import plan
    from edge4d.lowering.taking import FOLDS
    from edge4d.subject import Subject

    choice = Choice.of(block)
    choice.check_options(block_options or {})
    asked = Asked.of(normalize, input_layout)
    planner, tuner = planner_for(
        Planner.of(
            runtime or autotune, formulations, max_weight_growth, max_activation_memory, Precision(precision).name
        ),
        autotune,
        autotune_budget,
        progress,
    )
    if choice.exact and calib is not None:
        raise UsageError("calibration clips need a block to fit", hint="e.g. --block proposed-add")
    clips = read_clips(calib) if calib is not None else None  # mistakes in them can be told at once
    clock = _Clock(stage)
    with clock("loading"):
        subject = Subject.of(
            model,
            args,
            kwargs,
            shapes=input_shapes,
            factory=factory,
            trust_pickle=trust_pickle,
            submodule=submodule,
            fix=fix,
        )
    swapped = _swapped(subject, choice, block, block_options, clips, clock, measure=False)
    with clock("planning"):
        layers = plan(subject.model, subject.args, subject.kwargs, planner=planner, asked=asked, fold=FOLDS[precision])
    if tuner is not None:
        subject.notes.append(tuner.note())
    return PlanReport(subject.source, choice.label, layers, subject.notes, swapped)


def _target(model: Any, output: str | Path | None) -> Path:
    """Where to write; what cannot work is said before the model is loaded."""
    from edge4d.files import refuse_folder

    if output is None:
        if not isinstance(model, str | Path):
            raise UsageError("export of a module in memory needs an output path", hint='write output="model.onnx"')
        path = Path(model)
        if path.is_dir():
            return path.resolve().with_name(f"{path.resolve().name}.onnx")
        return path.with_suffix(".4d.onnx" if path.suffix == ".onnx" else ".onnx")
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
    types: Precision,
    asked: Asked,
    samples: Samples | None,
    sets: int,
    clock: _Clock,
    profile: Profile | None,
    max_error: float,
) -> ExportReport:
    from edge4d.describing import describe
    from edge4d.export_parity import CHECKED_CLIPS, check_numbers, inputs_for, rebatched
    from edge4d.exporters.onnx import to_onnx
    from edge4d.exporters.open_batch import open_batch
    from edge4d.exporters.precision import convert
    from edge4d.exporters.writing import write_artifact
    from edge4d.lowered import lower
    from edge4d.lowering.taking import FOLDS
    from edge4d.port_arrays import pack
    from edge4d.validators.rank import check_rank
    from edge4d.widening import check_runnable, float_types, own_precision, widen

    if options["dynamic"]:
        with clock("lowering at three batches"):
            lowered, graph, inputs, outputs = open_batch(
                subject.model,
                subject.args,
                subject.kwargs,
                planner,
                opset=options["opset"],
                simplify=options["simplify"],
                asked=asked,
                fold=FOLDS[types.name],
            )
        subject.intakes = tuple(port.intake for port in lowered.inputs)
        found = float_types(lowered)
        if found and not options["own_types"]:
            raise UsageError(
                f"--dynamic batch with --precision {types.name}: the model computes in {_said(found)}",
                hint="make it float32 yourself, model.float(), and export that",
            )
        check_runnable(found)
    else:

        def lowered_by(chosen: Planner) -> Lowered:
            how: dict[str, Any] = {"planner": chosen, "asked": asked, "fold": FOLDS[types.name]}
            made = lower(subject.model, subject.args, subject.kwargs, **how)
            if (found := float_types(made)) and not options["own_types"]:
                widen(subject, found)
                made = lower(subject.model, subject.args, subject.kwargs, **how)
                found = float_types(made)
            check_runnable(found)
            subject.intakes = tuple(port.intake for port in made.inputs)
            return made

        with clock("capturing and lowering"):
            if sets and types.name == "fp32":
                lowered, planner = lower_within(subject, planner, max_error, options["seed"], lowered_by)
            else:
                lowered = lowered_by(planner)
        with clock("translating to ONNX"):
            graph = to_onnx(lowered, opset=options["opset"], simplify=options["simplify"])
        inputs, outputs = lowered.inputs, lowered.outputs
    judged = own_precision(float_types(lowered)) if types.name == "fp32" else types.name
    clips = samples.batches(lowered.inputs) if samples is not None and types.name == "int8" else []
    if types.name != "fp32":
        with clock(f"converting to {types.name}"):
            by_name = {port.name: port for port in inputs}
            graph = convert(graph, types, [{n: pack(a, by_name[n]) for n, a in clip.items()} for clip in clips])
    if types.narrow_ports:
        inputs, outputs = (tuple(map(_narrowed, side)) for side in (inputs, outputs))
    described = {"version": __version__, "block": options["block"], "source": subject.source, "precision": judged}
    describe(graph.proto, inputs, outputs, **described, fixed=parse_fixes(options.get("fix")))
    shapes: dict[str, Any] = {"inputs": [port.to_dict() for port in inputs]}
    if clips:
        shapes["calibration_runs"] = len(clips)
    with clock("writing"):
        places = [*(subject.files or [subject.path]), samples.file if samples is not None else None]
        sources = [path for path in places if path is not None]
        tools = ("onnxruntime",) if types.name != "fp32" else ()
        write_artifact(graph, target, sources=sources, options={**options, **shapes}, packages=tools)
    with clock("gate"):
        gate = check_rank(target, profile=profile)
    compared = None
    if sets:
        with clock("parity"):
            ports = inputs if options["dynamic"] else lowered.inputs
            shown = rebatched(clips, inputs) if options["dynamic"] else clips
            given = shown[:CHECKED_CLIPS] or inputs_for(subject, ports, sets, options["seed"])
            compared = check_numbers(subject, target, given, judged)
    return ExportReport(
        path=target,
        block=options["block"],
        source=subject.source,
        inputs=inputs,
        outputs=outputs,
        gate=gate,
        parity=compared,
        layers=lowered.layers,
        opset=options["opset"],
        operators=dict(Counter(node.op_type for node in graph.proto.graph.node).most_common()),
        weight_bytes=graph.weight_bytes,
        folded=lowered.folded,
        notes=subject.notes,
        seconds=clock.seconds,
        precision=types.to_dict() | {"precision": judged} | ({"runs": len(clips)} if clips else {}),
    )


def _said(types: Mapping[torch.dtype, Any]) -> str:
    return ", ".join(sorted(str(dtype).removeprefix("torch.") for dtype in types))


def _narrowed(port: Port) -> Port:
    return replace(port, dtype="float16") if port.dtype == "float32" else port
