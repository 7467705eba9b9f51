"""Normalisation: batch norm as one call on [.., C, ..], the others as means over any axes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from edge4d.lowering.reduce import axes_apart, mean
from edge4d.lowering.registry import Decline, Site, lowers
from edge4d.lowering.squares import as_before, widened
from edge4d.lowering.values import Const, Operand, Value

if TYPE_CHECKING:
    from edge4d.lowering.builder import Builder

__all__ = ["normalise"]

aten = torch.ops.aten


def normalise(
    b: Builder, x: Operand, axes: Sequence[int], eps: float, weight: Operand | None = None, bias: Operand | None = None
) -> Operand:
    """(x − mean) / √(var + eps) · weight + bias over logical axes, the biased variance.

    Where every mean is one of the end of memory and each channel has its own, that is one InstanceNormalization. A
    weight meets the deviations' scale first, which is small: one product of x's size less.

    Args:
        weight: broadcasts against x; one number for each channel at axis 1, if the single operator shall take it.
        bias: likewise.
    """
    x = b.given(x)
    single = _instances(b, x, axes, eps, weight, bias)
    if single is not None:
        return single
    own = x.dtype
    x = b.given(widened(b, x))
    weight, bias = (None if operand is None else widened(b, operand) for operand in (weight, bias))
    apart = axes_apart(b, x, axes)
    x = x if apart is None else apart
    deviation = b.lower(aten.sub.Tensor, x, mean(b, x, axes))
    variance = mean(b, b.lower(aten.mul.Tensor, deviation, deviation), axes)
    spread = b.lower(aten.sqrt.default, b.lower(aten.add.Scalar, variance, eps))
    if weight is None:
        result: Operand = b.lower(aten.div.Tensor, deviation, spread)
    else:
        result = b.lower(aten.mul.Tensor, deviation, b.lower(aten.div.Tensor, weight, spread))
    if bias is not None:
        result = b.lower(aten.add.Tensor, result, bias)
    return as_before(b, result, own)


def _instances(
    b: Builder, x: Value, axes: Sequence[int], eps: float, weight: Operand | None, bias: Operand | None
) -> Value | None:
    """The same as one operator on [instances, channels, reduced], or None where memory or weights are not of that form.

    Transposes are no way to that form: with them the operator is as fast as the others together in ONNX Runtime and
    up to 1.5 times slower in OpenVINO.
    """
    packing = x.packing
    inner = tuple(atom for axis in axes for atom in packing.logical[axis])
    outer = packing.memory[: len(packing.memory) - len(inner)]
    channel = packing.logical[1] if len(x.shape) > 1 and 1 not in axes else ()
    if not inner or set(packing.memory[len(outer) :]) != set(inner) or outer[len(outer) - len(channel) :] != channel:
        return None
    given = [operand for operand in (weight, bias) if operand is not None]
    count = math.prod(packing.sizes[atom] for atom in channel)
    per_channel = (1, count, *[1] * (len(x.shape) - 2))
    if any(not isinstance(operand, Const) or operand.shape != per_channel for operand in given):
        return None
    groups = (outer[: len(outer) - len(channel)], channel, packing.memory[len(outer) :])
    node = b.arrange(x, groups)
    flat = []
    for operand, number, name in ((weight, 1.0, "ones"), (bias, 0.0, "zeros")):
        one = operand if isinstance(operand, Const) else Const(torch.full((count,), number, dtype=x.dtype), name)
        flat.append(b.parameter(one.tensor.reshape(count), one.name))
    out = b.emit(aten.instance_norm.default, node, *flat, None, None, True, 0.1, eps, False)
    return b.value(out, packing.reorder(groups))


@dataclass(frozen=True)
class BatchNormSpec:
    """(x − mean) / √(var + eps) · weight + bias with running statistics; `results` of the overload (1 or 3)."""

    x: Operand
    weight: Operand | None
    bias: Operand | None
    mean: Operand
    var: Operand
    eps: float
    results: int


@lowers(
    aten.batch_norm.default,
    aten._native_batch_norm_legit_no_training.default,
    aten.native_batch_norm.default,
    aten.cudnn_batch_norm.default,
)
class BatchNorm:
    """Batch norm in inference (what a preceding convolution could not take up)."""

    def check(self, site: Site) -> BatchNormSpec | Decline:
        given: dict[str, Any] = site.take_all()
        if given.get("training"):
            return Decline(
                "batch norm in training mode depends on the other clips", "call model.eval() before exporting"
            )
        if given["running_mean"] is None or given["running_var"] is None:
            return Decline("batch norm without running statistics", "train it with track_running_stats=True")
        return BatchNormSpec(
            given.get("input"),  # type: ignore[arg-type]
            given["weight"],
            given["bias"],
            given["running_mean"],
            given["running_var"],
            given["eps"] if "eps" in given else given["epsilon"],
            len(site.result) if isinstance(site.result, tuple | list) else 1,
        )

    def rewrite(self, b: Builder, spec: BatchNormSpec) -> Any:
        x = b.given(spec.x)
        groups, dim = x.packing.isolate(1)
        if dim != 1:
            memory = x.packing.memory
            atoms = x.packing.logical[1]
            at = memory.index(atoms[0]) if atoms else x.packing.slot(1)
            groups = (memory[:at], atoms, memory[at + len(atoms) :])
        ones = Const(torch.ones(x.shape[1], dtype=x.dtype), "ones")
        zeros = Const(torch.zeros(x.shape[1], dtype=x.dtype), "zeros")
        weight, bias = spec.weight or ones, spec.bias or zeros
        nodes = [b.given(operand).node for operand in (weight, bias, spec.mean, spec.var)]
        out = b.emit(aten.batch_norm.default, b.arrange(x, groups), *nodes, False, 0.1, spec.eps, False)
        value = b.value(out, x.packing.reorder(groups))
        return [value, *[None] * (spec.results - 1)] if spec.results > 1 else value


@dataclass(frozen=True)
class NormSpec:
    """x, seen under `view`, normalised over `axes`, scaled by what is seen under `affine_shape`, seen as it was."""

    x: Operand
    view: tuple[int, ...]
    axes: tuple[int, ...]
    weight: Operand | None
    bias: Operand | None
    affine_shape: tuple[int, ...]
    eps: float


class _Norm:
    """Shared rewrite of group, instance and layer norm."""

    def rewrite(self, b: Builder, spec: NormSpec | BatchNormSpec) -> Operand:
        if isinstance(spec, BatchNormSpec):
            by_running: Operand = BatchNorm().rewrite(b, spec)
            return by_running
        seen: Operand = b.lower(aten.view.default, spec.x, list(spec.view))
        weight, bias = (
            None if operand is None else b.lower(aten.view.default, operand, list(spec.affine_shape))
            for operand in (spec.weight, spec.bias)
        )
        result: Operand = b.lower(
            aten.view.default, normalise(b, seen, spec.axes, spec.eps, weight, bias), list(spec.x.shape)
        )
        return result


@lowers(aten.group_norm.default)
class GroupNorm(_Norm):
    """Mean and variance over (C/groups, *sizes) of each clip and group."""

    def check(self, site: Site) -> NormSpec | Decline:
        x: Operand = site.take("input")
        groups, sizes = site.take("num_groups"), x.shape[2:]
        site.take("cudnn_enabled")
        view = (x.shape[0], groups, x.shape[1] // groups, *sizes)
        channel = (1, groups, x.shape[1] // groups, *[1] * len(sizes))
        axes = tuple(range(2, len(view)))
        return NormSpec(x, view, axes, site.take("weight"), site.take("bias"), channel, site.take("eps"))


@lowers(aten.instance_norm.default)
class InstanceNorm(_Norm):
    """Mean and variance over *sizes of each clip and channel; with running statistics it is a batch norm."""

    def check(self, site: Site) -> NormSpec | BatchNormSpec | Decline:
        given: dict[str, Any] = site.take_all()
        x: Operand = given["input"]
        if not given["use_input_stats"]:
            g = given
            return BatchNormSpec(x, g["weight"], g["bias"], g["running_mean"], g["running_var"], g["eps"], results=1)
        channel = (1, x.shape[1], *[1] * len(x.shape[2:]))
        axes = tuple(range(2, len(x.shape)))
        return NormSpec(x, x.shape, axes, given["weight"], given["bias"], channel, given["eps"])


@lowers(aten._native_batch_norm_legit.no_stats)
class BatchNormOfClips(_Norm):
    """Batch norm without running statistics: mean and variance over the clips and sizes of each channel."""

    def check(self, site: Site) -> NormSpec | Decline:
        x: Operand = site.take("input")
        if not site.take("training"):
            return Decline("batch norm without running statistics outside training", "give it statistics")
        site.take("momentum")
        channel = (1, x.shape[1], *[1] * len(x.shape[2:]))
        axes = (0, *range(2, len(x.shape)))
        return NormSpec(x, x.shape, axes, site.take("weight"), site.take("bias"), channel, site.take("eps"))

    def rewrite(self, b: Builder, spec: NormSpec | BatchNormSpec) -> list[Operand | None]:  # type: ignore[override]
        return [super().rewrite(b, spec), None, None]


@lowers(aten.layer_norm.default)
class LayerNorm(_Norm):
    """Mean and variance over the last axes; one LayerNormalization where those are one run of memory."""

    def check(self, site: Site) -> NormSpec | Decline:
        x: Operand = site.take("input")
        count = len(site.take("normalized_shape"))
        site.take("cudnn_enable")
        axes = tuple(range(len(x.shape) - count, len(x.shape)))
        return NormSpec(x, x.shape, axes, site.take("weight"), site.take("bias"), x.shape[-count:], site.take("eps"))

    def rewrite(self, b: Builder, spec: NormSpec | BatchNormSpec) -> Operand:
        assert isinstance(spec, NormSpec)
        x = b.given(spec.x)
        inner = tuple(atom for axis in spec.axes for atom in x.packing.logical[axis])
        constant = all(operand is None or isinstance(operand, Const) for operand in (spec.weight, spec.bias))
        if not (inner and constant and x.packing.memory[-len(inner) :] == inner):
            return super().rewrite(b, spec)
        groups = (x.packing.memory[: -len(inner)], inner)
        node = b.arrange(x, groups)
        size = node.meta["val"].shape[-1]
        flat = [
            b.given(b.lower(aten.reshape.default, operand, [size], name=operand.name)).node
            if isinstance(operand, Const)
            else None
            for operand in (spec.weight, spec.bias)
        ]
        return b.value(b.emit(aten.layer_norm.default, node, [size], *flat, spec.eps), x.packing.reorder(groups))


@dataclass(frozen=True)
class RmsSpec:
    """x / √(mean(x²) + eps) · weight over the last axes."""

    x: Value
    axes: tuple[int, ...]
    weight: Operand | None
    eps: float
    dtype: torch.dtype


@lowers(aten.rms_norm.default)
class RmsNorm:
    """Root-mean-square norm over the last axes."""

    def check(self, site: Site) -> RmsSpec | Decline:
        x = site.take("input")
        count = len(site.take("normalized_shape"))
        eps = site.take("eps")
        axes = tuple(range(len(x.shape) - count, len(x.shape)))
        if eps is None:  # of the type in which torch computes
            eps = torch.finfo(torch.promote_types(x.dtype, torch.float32)).eps
        return RmsSpec(x, axes, site.take("weight"), eps, site.dtype)

    def rewrite(self, b: Builder, spec: RmsSpec) -> Operand:
        x = widened(b, spec.x)
        power = mean(b, b.lower(aten.mul.Tensor, x, x), spec.axes)
        scale = b.lower(aten.rsqrt.default, b.lower(aten.add.Scalar, power, spec.eps))
        scaled: Operand = b.lower(aten.mul.Tensor, x, scale)
        if spec.weight is not None:
            scaled = b.lower(aten.mul.Tensor, scaled, widened(b, spec.weight))
        return as_before(b, scaled, spec.dtype)
