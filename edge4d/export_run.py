"""From a loaded network to the written file: lowering, translation, precision, gate and parity."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge4d._version import __version__
from edge4d.errors import UsageError
from edge4d.export_steps import Clock
from edge4d.fixed_inputs import parse_fixes
from edge4d.planning import Planner
from edge4d.ports import Port
from edge4d.replanning import lower_within
from edge4d.report import ExportReport

if TYPE_CHECKING:
    import torch

    from edge4d.exporters.precision import Precision
    from edge4d.intake_options import Asked
    from edge4d.lowered import Lowered
    from edge4d.sampling import Samples
    from edge4d.subject import Subject
    from edge4d.validators.profile import Profile

__all__ = ["run_export"]


def run_export(
    subject: Subject,
    target: Path,
    options: Mapping[str, Any],
    planner: Planner,
    types: Precision,
    asked: Asked,
    samples: Samples | None,
    sets: int,
    clock: Clock,
    profile: Profile | None,
    max_error: float,
) -> ExportReport:
    """Lower, translate, convert, write and check a network whose structures are swapped already.

    Args:
        subject: the network and its example inputs; replaced by a float32 copy where its types ask for that.
        target: the ``.onnx`` to write.
        options: what the recipe keeps; `block`, `dynamic`, `opset`, `simplify`, `seed` and `own_types` are read here.
        planner: chooses the formulations; a milder one takes its place where `max_error` asks for it.
        types: the precision to convert to.
        asked: how the inputs take their frames.
        samples: clips, which int8 needs.
        sets: random input sets for parity; 0 for none.
        clock: times and shows the steps.
        profile: a device's limits, held by the gate too.
        max_error: of the lowered network against the model, relative to each output's range.

    Raises:
        UsageError, LoweringError, ExportError: as `edge4d.export`.
    """
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
                at=subject.at if subject.script is not None else None,
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
