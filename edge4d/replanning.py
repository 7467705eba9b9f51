"""Keeping the numbers: a plan that strays too far from eager PyTorch is made again with milder formulations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from edge4d.offers import MILDER
from edge4d.planning import Planner

if TYPE_CHECKING:
    from edge4d.lowered import Lowered
    from edge4d.subject import Subject

__all__ = ["MAX_ERROR", "error_of", "lower_within"]

MAX_ERROR = 1e-5
"""How far a network may stray by default, relative to the range of each output."""

_WORTH = 2.0
"""Where no plan keeps the limit: how many times closer the mildest must come for the fastest to be given up."""


def lower_within(
    subject: Subject, planner: Planner, limit: float, seed: int, lower: Callable[[Planner], Lowered]
) -> tuple[Lowered, Planner]:
    """Lower with the fastest plan whose numbers stay within `limit`, or the mildest; `subject.notes` say which.

    Args:
        subject: the model; run eagerly, once, if the plan holds a transform at all.
        planner: what the user asked.
        limit: largest error of any output, relative to its range.
        seed: of the random inputs.
        lower: makes a lowered model with a planner.
    """
    lowered = lower(planner)
    if not _transforms(lowered, planner):
        return lowered, planner
    error = error_of(subject, lowered, seed)
    if error is None or error <= limit:
        return lowered, planner
    first, fastest, tried = error, lowered, planner
    while tried.mild + 1 < len(MILDER):
        tried = replace(tried, mild=tried.mild + 1)
        if not any(layer.becomes in MILDER[tried.mild] for layer in lowered.layers):
            continue  # it leaves out what this plan has none of: the plan would be the same
        lowered = lower(tried)
        error = error_of(subject, lowered, seed)
        if error is None or error <= limit:
            break
    if error is not None and error > limit and first <= _WORTH * error:
        subject.notes.append(
            f"the network strays by {first:.2g} of the range, more than --max-error {limit:g}, and by {error:.2g} "
            "without any transform: its own layers amplify rounding, as PyTorch's do; the fastest plan stands"
        )
        return fastest, planner
    said = (
        f"the fastest plan strays by {first:.2g} of the output's range, more than --max-error {limit:g}; planned again"
    )
    without = ", ".join(sorted(MILDER[tried.mild]))
    if error is not None and error > limit:
        said += f" without {without}, it still strays by {error:.2g}"
    else:
        said += f" without {without}: {error or 0:.2g}"
    subject.notes.append(said)
    return lowered, tried


def _transforms(lowered: Lowered, planner: Planner) -> bool:
    """Whether a milder plan would be another one."""
    return any(layer.becomes in MILDER[-1] for layer in lowered.layers) and planner.mild + 1 < len(MILDER)


def error_of(subject: Subject, lowered: Lowered, seed: int) -> float | None:
    """Largest difference to eager PyTorch relative to the range of each output, on one random input.

    Returns:
        None where there is nothing to compare: no output of float32 or more, or one that is not finite or constant.
    """
    import torch

    from edge4d.export_parity import inputs_like
    from edge4d.lowered import unpack
    from edge4d.subject import torch_of

    arrays = list(inputs_like(subject, lowered.inputs, seed).values())
    expected = subject.reference()(*[array.copy() for array in arrays])  # a model may write into what it is given
    with torch.inference_mode():
        got = lowered.module(*lowered.pack(*map(torch_of, arrays)))
    worst: float | None = None
    for port, have, want in zip(lowered.outputs, got, expected, strict=True):
        wanted = torch_of(want)
        if wanted.dtype not in (torch.float32, torch.float64) or not bool(torch.isfinite(wanted).all()):
            continue
        spread = float(wanted.max() - wanted.min())
        if not spread > 0:
            continue
        error = float((unpack(have, port).double() - wanted.double()).abs().max()) / spread
        worst = error if worst is None else max(worst, error)
    return worst
