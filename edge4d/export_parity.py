"""Whether an artifact that was just written gives PyTorch's numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge4d.ports import OPEN, Port

if TYPE_CHECKING:
    from edge4d.subject import Subject
    from edge4d.validators.parity import ParityReport

__all__ = ["CHECKED_CLIPS", "check_numbers", "inputs_for"]

CHECKED_CLIPS = 32
"""Runs of calibration clips on which an int8 artifact is held against the network."""

_BATCHES = (1, 4, 3)
"""At which an artifact of an open batch is held against the network; none but 3 is one it was made from."""


def inputs_for(ports: Sequence[Port], sets: int, seed: int) -> list[dict[str, Any]]:
    """Random logical arrays by input name, `sets` times; of an open batch at each of several batches."""
    from edge4d.validators.parity import random_inputs

    batches = _BATCHES if any(OPEN in port.shape for port in ports) else (1,)

    def at(batch: int) -> list[Port]:
        return [replace(port, shape=tuple(batch if size == OPEN else size for size in port.shape)) for port in ports]

    return [random_inputs(at(batches[i % len(batches)]), seed + i) for i in range(max(sets, len(batches)))]


def check_numbers(
    subject: Subject, target: Path, inputs: Sequence[Mapping[str, Any]], precision: str
) -> ParityReport | None:
    """The artifact in ONNX Runtime against eager PyTorch; without ONNX Runtime a note says that it was not checked."""
    from edge4d import exporters
    from edge4d.artifact import in_types_of
    from edge4d.artifact import open as open_artifact
    from edge4d.validators.parity import compare_callables
    from edge4d.validators.referee import compare_by_referee
    from edge4d.validators.tolerances import tolerance_for

    probed = exporters.get("onnxruntime").probe()
    if not probed.ok:
        subject.notes.append(f"parity was not checked: {probed.why_not}; {probed.install}")
        return None
    with open_artifact(target) as opened:
        names = [port.name for port in opened.outputs]
        eager, candidate = subject.reference(names), in_types_of(opened)
        if precision != "fp32":
            limits = tolerance_for(precision)
            report = compare_callables(eager, candidate, inputs, tolerance=limits)
            on = f" on {len(inputs)} runs of the calibration clips" if precision == "int8" else ""
            return replace(report, notes=(*report.notes, f"held to the limits of {precision}{on}: {limits.to_text()}"))
        report = compare_callables(eager, candidate, inputs)
        if report.ok:
            return report
        return compare_by_referee(report, eager, subject.reference(names, double=True), candidate, inputs)
