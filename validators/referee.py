"""A float64 run as referee, where two float32 results differ by more than the limit for want of digits on both sides.

A network of a hundred layers in eager float32 can itself be farther than 1e-5 of the range from what its weights mean.
A candidate is then held against float64 and may be as far from it as float32 PyTorch is, and no farther.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from edge4d.validators.parity import Inputs, compare, merged
from edge4d.validators.parity_report import ParityReport, ParityRow
from edge4d.validators.statistics import measure
from edge4d.validators.tolerances import Tolerance, tolerance_for

__all__ = ["compare_by_referee"]

Model = Callable[..., Mapping[str, np.ndarray]]


def compare_by_referee(
    direct: ParityReport, reference: Model, exact: Model, candidate: Model, inputs: Sequence[Inputs]
) -> ParityReport:
    """Hold a candidate against the float64 run of the reference.

    Args:
        direct: how candidate and reference compared; it stands, with a note, where the model cannot run in float64.
        reference: the model in its own precision; outputs by name.
        exact: the same model in float64.
        candidate: the artifact.
        inputs: the sets, each in the order in which the three take them.

    Returns:
        A report against `exact`. Each output may err by what the table allows for the reference's dtype, or by what
        `reference` itself errs on that very set, whichever is more; a note says how much that is.
    """
    reports, rounding = [], 0.0
    for arrays in inputs:
        given = list(arrays.values()) if isinstance(arrays, Mapping) else list(arrays)
        try:
            true = _run(exact, given)
        except Exception as unable:  # of torch or the user's code: a float32 written into the model, say
            reason = str(unable).strip().splitlines()[0][:200]
            return replace(direct, notes=(*direct.notes, f"no referee: the model does not run in float64 ({reason})"))
        own, got = _run(reference, given), _run(candidate, given)
        rows: list[ParityRow] = []
        for name in dict.fromkeys([*own, *got]):
            if name not in own or name not in got or not np.issubdtype(own[name].dtype, np.floating):
                sides = ({name: side[name]} if name in side else {} for side in (own, got))
                rows.extend(compare(*sides).rows)
                continue
            error = measure(true[name], own[name]).relative if true[name].shape == own[name].shape else 0.0
            rounding = max(rounding, error)
            allowed = Tolerance(max(tolerance_for(own[name].dtype.name).max_error, error))
            rows.extend(compare({name: true[name]}, {name: got[name]}, tolerance=allowed).rows)
        reports.append(ParityReport(tuple(rows), sets=1))
    note = (
        f"held against PyTorch in float64: float32 PyTorch itself is {rounding:.1e} of the range away from it, "
        "so the two float32 results may differ by more than the limit"
    )
    return replace(merged(reports), notes=(note,))


def _run(model: Model, given: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    """Copies in, copies out: nothing is shared between the runs."""
    return {name: np.array(array) for name, array in model(*[np.array(array) for array in given]).items()}
