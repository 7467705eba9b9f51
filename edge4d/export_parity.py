"""Whether an artifact that was just written gives PyTorch's numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge4d.errors import UsageError
from edge4d.ports import OPEN, Port

if TYPE_CHECKING:
    from edge4d.subject import Subject
    from edge4d.validators.parity import ParityReport

__all__ = ["CHECKED_CLIPS", "check_numbers", "inputs_for", "inputs_like", "rebatched"]

CHECKED_CLIPS = 32
"""Runs of calibration clips on which an int8 artifact is held against the network."""

_BATCHES = (1, 4, 3)
"""At which an artifact of an open batch is held against the network; none but 3 is one it was made from."""


def inputs_for(subject: Subject, ports: Sequence[Port], sets: int, seed: int) -> list[dict[str, Any]]:
    """Random logical arrays by input name, `sets` times; of an open batch at each of several batches."""
    batches = _BATCHES if any(OPEN in port.shape for port in ports) else (1,)

    def at(batch: int) -> list[Port]:
        return [replace(port, shape=tuple(batch if size == OPEN else size for size in port.shape)) for port in ports]

    return [inputs_like(subject, at(batches[i % len(batches)]), seed + i) for i in range(max(sets, len(batches)))]


def inputs_like(subject: Subject, ports: Sequence[Port], seed: int) -> dict[str, Any]:
    """Random logical arrays by input name, once.

    Integers are drawn from those of the example inputs, where it has others than zeros: as an index or a length, a
    random one may be out of bounds.
    """
    import numpy as np

    from edge4d.validators.parity import random_inputs

    generator = np.random.default_rng(seed)
    arrays = random_inputs(ports, seed)
    for port, example in zip(ports, subject.tensors, strict=True):
        known = example.numpy() if "int" in port.dtype and port.intake is None else np.zeros(0)
        if known.any():
            arrays[port.name] = generator.choice(np.unique(known), port.shape).astype(port.dtype)
    return arrays


def rebatched(runs: Sequence[Mapping[str, Any]], ports: Sequence[Port]) -> list[dict[str, Any]]:
    """The same clips in batches of several sizes in turn, for a graph whose batch is open.

    Args:
        runs: logical arrays by input name, all of one batch.
        ports: the graph's inputs; those without an open size are as in the first run.

    Returns:
        Runs of 1, 4, 3, 1, … clips; such as fill no batch are left out.
    """
    import numpy as np

    if not runs:
        return []
    stacks = {p.name: np.concatenate([run[p.name] for run in runs]) for p in ports if OPEN in p.shape}
    count, start = min(map(len, stacks.values())), 0
    found: list[dict[str, Any]] = []
    while start + (batch := _BATCHES[len(found) % len(_BATCHES)]) <= count:
        found.append(dict(runs[0]) | {name: stack[start : start + batch] for name, stack in stacks.items()})
        start += batch
    return found


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
        eager, candidate = _told(subject.reference(names)), in_types_of(opened)
        if precision != "fp32":
            limits = tolerance_for(precision)
            report = compare_callables(eager, candidate, inputs, tolerance=limits)
            on = f" on {len(inputs)} runs of the calibration clips" if precision == "int8" else ""
            return replace(report, notes=(*report.notes, f"held to the limits of {precision}{on}: {limits.to_text()}"))
        report = compare_callables(eager, candidate, inputs)
        if report.ok:
            return report
        return compare_by_referee(report, eager, subject.reference(names, double=True), candidate, inputs)


def _told(eager: Callable[..., Any]) -> Callable[..., Any]:
    """The model, whose own failure on inputs that were made for the check is told as such."""

    def run(*arrays: Any) -> Any:
        try:
            return eager(*arrays)
        except Exception as error:  # of torch or of the user's own code, which may raise anything
            raise UsageError(
                f"the artifact is written, but the model itself fails on the inputs that were made to check it: "
                f"{type(error).__name__}: {str(error).strip()[:300]}",
                hint="give example inputs that it takes, or export with --no-parity and check it on clips of your own: "
                "edge4d parity MODEL MODEL.onnx --clips clips.npz",
            ) from error

    return run
