"""Why an operator without a rule is refused, and what to do instead, by its family."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge4d.lowering.registry import Decline

if TYPE_CHECKING:
    from torch._ops import OpOverload

__all__ = ["unknown"]

_FAMILIES: tuple[tuple[tuple[str, ...], str, str], ...] = (
    (
        ("linalg_", "_linalg_", "cholesky", "triangular_solve", "lu_", "logdet", "ormqr", "geqrf", "lobpcg"),
        "a matrix decomposition or one that is built on it, for which ONNX has no operator",
        "compute it outside of the model and pass its result in; a small inverse of fixed size can be written out "
        "(by its adjugate), a pseudo-inverse by a fixed number of Newton steps",
    ),
    (
        ("_fft_", "fft_", "stft", "istft"),
        "a Fourier transform, whose numbers are complex",
        "of fixed length it is a matrix product with cosines and sines; else compute it outside of the model",
    ),
)


def unknown(op: OpOverload) -> Decline:
    """The refusal of an operator that has no rule."""
    name = op._schema.name.partition("::")[2]
    for prefixes, reason, way in _FAMILIES:
        if op.namespace == "aten" and name.startswith(prefixes):
            return Decline(reason, f"{way}; or register a rule with edge4d.register_rule")
    return Decline("edge4d has no rule for this operator", "register one with edge4d.register_rule")
