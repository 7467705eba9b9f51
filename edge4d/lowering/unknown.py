"""Why an operator without a rule is refused, and what to do instead, by its family."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from edge4d.lowering.registry import Decline

if TYPE_CHECKING:
    from torch._ops import OpOverload

__all__ = ["unknown"]

_QUANTIZED = "works on quantized tensors, which hold integers and a scale of their own"
_QUANTIZE_LATER = "give the network in floating point; edge4d export --precision int8 quantizes it afterwards"

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
    (
        ("complex", "polar", "view_as_real", "view_as_complex", "_conj", "resolve_conj", "_neg_view", "resolve_neg"),
        "complex numbers, which no runtime takes",
        "compute real and imaginary parts as two tensors",
    ),
    (
        ("fake_quantize", "_fake_quantize", "fused_moving_avg_obs", "_fused_moving_avg_obs"),
        "imitates quantization while a network is trained",
        "export the network without it; edge4d export --precision int8 quantizes",
    ),
    (
        ("quantize_per", "_make_per", "dequantize", "int_repr", "q_scale", "q_zero_point"),
        _QUANTIZED,
        _QUANTIZE_LATER,
    ),
    (
        ("as_strided",),
        "reads memory in an order of its own, which a packed value does not have",
        "use slices, unfold, expand or permute",
    ),
    (
        ("fractional_max_pool",),
        "a pool whose windows are drawn at random",
        "use an adaptive pool of the same sizes in the exported model",
    ),
)


def unknown(op: OpOverload) -> Decline:
    """The refusal of an operator that has no rule."""
    name = op._schema.name.partition("::")[2]
    if torch.Tag.nondeterministic_seeded in op.tags:
        return Decline(
            "draws random numbers, so no two runs of the model agree", "make the model deterministic, e.g. model.eval()"
        )
    for prefixes, reason, way in _FAMILIES:
        if op.namespace == "aten" and name.startswith(prefixes):
            return Decline(reason, f"{way}; or register a rule with edge4d.register_rule")
    if op.namespace in ("quantized", "quantized_decomposed"):
        return Decline(_QUANTIZED, _QUANTIZE_LATER)
    return Decline("edge4d has no rule for this operator", "register one with edge4d.register_rule")
