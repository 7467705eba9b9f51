"""Ranks of operators that ONNX shape inference does not know, or gives up on when an input's numbers are unknown.

Only ranks, for which far less has to be known than for shapes: the length of a list of axes, not the axes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from edge4d.validators.inventory import normal_domain
from edge4d.validators.values import Value

if TYPE_CHECKING:
    import onnx

__all__ = ["infer_ranks"]

_Ranks = list[int | None]

# Domains in which an operator of a known name does what that name says.
_DOMAINS = frozenset({"", "com.microsoft", "com.microsoft.nchwc", "com.ms.internal.nhwc"})

# Every output has the rank of the first input.
_LIKE_FIRST = frozenset(
    """
    Abs Acos Acosh Asin Asinh Atan Atanh AveragePool BatchNormalization BiasAdd BiasDropout BiasGelu BiasSoftmax
    BiasSplitGelu Cast CastLike Ceil Celu CenterCropPad Clip Conv ConvInteger ConvTranspose
    ConvTransposeWithDynamicPads Cos Cosh CumSum DepthToSpace DequantizeLinear Dropout DynamicQuantizeLinear Elu Erf
    Exp FastGelu Floor FusedConv Gelu GlobalAveragePool GlobalLpPool GlobalMaxPool GridSample GroupNorm
    GroupNormalization HardSigmoid HardSwish Hardmax Identity InstanceNormalization Inverse IsInf IsNaN LRN
    LayerNormalization LeakyRelu Log LogSoftmax LpNormalization LpPool MatMulBnb4 MatMulNBits MaxPool MaxUnpool
    MaxpoolWithMask MeanVarianceNormalization Mish Neg NhwcConv NhwcFusedConv NhwcMaxPool Not Pad QLinearAveragePool
    QLinearConv QLinearGlobalAveragePool QLinearLeakyRelu QLinearSigmoid QLinearSoftmax QuantizeLinear QuickGelu
    RandomNormalLike RandomUniformLike Reciprocal Relu ReorderInput ReorderOutput Resize ReverseSequence
    RotaryEmbedding Round ScatterElements ScatterND Selu Shrink Sigmoid Sign SimplifiedLayerNormalization Sin Sinh
    SkipGroupNorm SkipLayerNormalization SkipSimplifiedLayerNormalization Slice Softmax Softplus Softsign
    SpaceToDepth Split Sqrt Swish Tan Tanh ThresholdedRelu Tile TopK Transpose Trilu Upsample
    """.split()  # noqa: SIM905 - a hundred quoted names are no better to read
)

# Of those, the ones whose other outputs have a rank of their own: scales and zero points, means and variances.
_REST = {"DynamicQuantizeLinear": 0, "BatchNormalization": 1}

# The output has the greatest rank among the inputs: numpy's broadcasting.
_BROADCAST = frozenset(
    """
    Add And BitwiseAnd BitwiseOr BitwiseXor Div Equal Greater GreaterOrEqual Less LessOrEqual Max Mean Min Mod Mul Or
    PRelu Pow Sub Sum Where Xor
    """.split()  # noqa: SIM905
)

_FIXED = {
    "BlackmanWindow": 1,
    "HammingWindow": 1,
    "HannWindow": 1,
    "MelWeightMatrix": 2,
    "STFT": 4,
    "Flatten": 2,
    "Gemm": 2,
    "FusedGemm": 2,
    "QGemm": 2,
    "Shape": 1,
    "Size": 0,
    "NonZero": 2,
    "NonMaxSuppression": 2,
}


# ONNX Runtime's fused parts of recurrent networks and transformers, output by output. An attention gives
# [batch, sequence, hidden], and keeps keys and values for the next call: two values of four axes, or one of five.
_TRANSFORMERS: Mapping[str, tuple[int, ...]] = {
    "DynamicQuantizeLSTM": (4, 3, 3),
    "Attention": (3, 5),
    "QAttention": (3, 5),
    "MultiHeadAttention": (3, 4, 4),
    "DecoderMaskedMultiHeadAttention": (3, 4, 4),
    "GroupQueryAttention": (3, 4, 4),
    "EmbedLayerNormalization": (3, 1, 3),
    "QEmbedLayerNormalization": (3, 1),
    "LongformerAttention": (3,),
}


def infer_ranks(
    node: onnx.NodeProto, inputs: Sequence[Value], bodies: Mapping[str, Sequence[Value]], opset: int
) -> _Ranks:
    """The rank of every output, None where it does not follow.

    Args:
        node: the node.
        inputs: what is known about its inputs.
        bodies: what is known about the outputs of its subgraphs, by attribute name.
        opset: the version of ONNX's own operator set.
    """
    count = len(node.output)
    op, domain = node.op_type, normal_domain(node.domain)
    unknown: _Ranks = [None] * count
    if domain not in _DOMAINS:
        return unknown
    if op == "If" and not domain:
        return _if_ranks(bodies, count)
    if op == "Loop" and not domain:
        return _loop_ranks(inputs, bodies.get("body", ()), count)
    if op in _LIKE_FIRST:
        first = inputs[0].rank if inputs else None
        return [first, *[_REST.get(op, first)] * (count - 1)][:count]
    if op in _BROADCAST:
        # Before opset 7, broadcasting was an attribute and the result had the shape of the first input.
        ranks = [value.rank for value in inputs[: 1 if opset < 7 and not domain and op not in _VARIADIC else None]]
        return [_greatest(ranks)]
    if op in _FIXED:
        return [_FIXED[op]] * count
    if domain and op in _TRANSFORMERS:
        return [*_TRANSFORMERS[op], *unknown][:count]
    if op in _RULES and (not domain or op in _MICROSOFT):
        try:
            return [_RULES[op](node, inputs), *unknown[1:]]
        except IndexError:  # the node has fewer inputs than its operator
            return unknown
    return unknown


_VARIADIC = frozenset({"Max", "Mean", "Min", "Sum"})
_MICROSOFT = frozenset(
    """
    DynamicQuantizeMatMul ExpandDims FusedMatMul FusedMatMulActivation GatherBlockQuantized MatMulInteger16
    MatMulIntegerToFloat QLinearAdd QLinearConcat QLinearMul QLinearReduceMean QLinearWhere TransposeMatMul
    """.split()  # noqa: SIM905
)


def _greatest(ranks: Sequence[int | None]) -> int | None:
    known = [rank for rank in ranks if rank is not None]
    return max(known) if known and len(known) == len(ranks) else None


def _if_ranks(bodies: Mapping[str, Sequence[Value]], count: int) -> _Ranks:
    """An output has a rank when both branches agree on it."""
    then, other = bodies.get("then_branch", ()), bodies.get("else_branch", ())
    if len(then) != count or len(other) != count:
        return [None] * count
    return [a.rank if a.rank == b.rank else None for a, b in zip(then, other, strict=True)]


def _loop_ranks(inputs: Sequence[Value], body: Sequence[Value], count: int) -> _Ranks:
    """Carried values keep the rank they start with (the body is held to it elsewhere); the others gain an axis."""
    carried = max(len(inputs) - 2, 0)
    ranks: _Ranks = []
    for i in range(count):
        inner = body[i + 1].rank if i + 1 < len(body) else None
        if i < carried:
            ranks.append(inner if inner == inputs[i + 2].rank else None)
        else:
            ranks.append(None if inner is None else inner + 1)
    return ranks


def _input(inputs: Sequence[Value], i: int) -> Value | None:
    return inputs[i] if i < len(inputs) and inputs[i].name else None


def _ints(node: onnx.NodeProto, name: str) -> list[int] | None:
    return next((list(a.ints) for a in node.attribute if a.name == name and not a.ref_attr_name), None)


def _int(node: onnx.NodeProto, name: str, default: int) -> int:
    return next((int(a.i) for a in node.attribute if a.name == name), default)


def _axes(node: onnx.NodeProto, inputs: Sequence[Value], name: str = "axes") -> int | None:
    """How many axes an attribute or the second input lists."""
    if (listed := _ints(node, name)) is not None:
        return len(listed)
    given = _input(inputs, 1)
    return None if given is None else given.length


def _plus(rank: int | None, more: int | None) -> int | None:
    return None if rank is None or more is None or rank + more < 0 else rank + more


def _unsqueeze(node: onnx.NodeProto, inputs: Sequence[Value]) -> int | None:
    return _plus(inputs[0].rank, _axes(node, inputs))


def _squeeze(node: onnx.NodeProto, inputs: Sequence[Value]) -> int | None:
    axes = _axes(node, inputs)
    return None if axes is None else _plus(inputs[0].rank, -axes)  # without axes it depends on the sizes


def _reshape(node: onnx.NodeProto, inputs: Sequence[Value]) -> int | None:
    return _axes(node, inputs, "shape")


def _expand(node: onnx.NodeProto, inputs: Sequence[Value]) -> int | None:
    return _greatest([inputs[0].rank, _axes(node, inputs)])


def _constant_of_shape(node: onnx.NodeProto, inputs: Sequence[Value]) -> int | None:
    return inputs[0].length


def _gather(node: onnx.NodeProto, inputs: Sequence[Value]) -> int | None:
    rank = _plus(inputs[0].rank, inputs[1].rank)
    return _plus(rank, -1)


def _gather_nd(node: onnx.NodeProto, inputs: Sequence[Value]) -> int | None:
    """The indices' last axis tells how many axes of the data an index goes through."""
    shape = inputs[1].shape
    through = shape[-1] if shape else None
    if not isinstance(through, int) or shape is None:
        return None
    return _plus(inputs[0].rank, len(shape) - 1 - through - _int(node, "batch_dims", 0))


def _one_hot(node: onnx.NodeProto, inputs: Sequence[Value]) -> int | None:
    return _plus(inputs[0].rank, 1)


def _matmul(node: onnx.NodeProto, inputs: Sequence[Value]) -> int | None:
    """numpy's: a vector's axis is summed away, the axes in front are broadcast."""
    a, b = inputs[0].rank, inputs[1].rank
    if a is None or b is None or 0 in (a, b):
        return None
    return max(a, b, 2) - (a == 1) - (b == 1)


def _reduce(node: onnx.NodeProto, inputs: Sequence[Value]) -> int | None:
    rank = inputs[0].rank
    if _int(node, "keepdims", 1):
        return rank
    if _ints(node, "axes") is None and _input(inputs, 1) is None:
        return rank if _int(node, "noop_with_empty_axes", 0) else 0
    axes = _axes(node, inputs)
    if axes == 0:
        return rank if _int(node, "noop_with_empty_axes", 0) else 0
    return None if axes is None else _plus(rank, -axes)


def _arg_reduce(node: onnx.NodeProto, inputs: Sequence[Value]) -> int | None:
    return inputs[0].rank if _int(node, "keepdims", 1) else _plus(inputs[0].rank, -1)


def _concat(node: onnx.NodeProto, inputs: Sequence[Value]) -> int | None:
    return next((value.rank for value in inputs if value.rank is not None), None)


def _qlinear_binary(node: onnx.NodeProto, inputs: Sequence[Value]) -> int | None:
    return _greatest([inputs[0].rank, inputs[3].rank]) if len(inputs) > 3 else None


def _qlinear_where(node: onnx.NodeProto, inputs: Sequence[Value]) -> int | None:
    """A condition, then two values, each with its scale and zero point."""
    return _greatest([inputs[i].rank for i in (0, 1, 4)])


def _qlinear_reduce(node: onnx.NodeProto, inputs: Sequence[Value]) -> int | None:
    rank, axes = inputs[0].rank, _ints(node, "axes")
    if _int(node, "keepdims", 1):
        return rank
    return 0 if not axes else _plus(rank, -len(axes))


def _qlinear_concat(node: onnx.NodeProto, inputs: Sequence[Value]) -> int | None:
    return _concat(node, inputs[2::3])


_RULES: dict[str, Callable[[onnx.NodeProto, Sequence[Value]], int | None]] = {
    "Unsqueeze": _unsqueeze,
    "Squeeze": _squeeze,
    "Reshape": _reshape,
    "Expand": _expand,
    "ConstantOfShape": _constant_of_shape,
    "Gather": _gather,
    "GatherBlockQuantized": _gather,
    "GatherND": _gather_nd,
    "OneHot": _one_hot,
    "MatMul": _matmul,
    "FusedMatMul": _matmul,
    "FusedMatMulActivation": _matmul,
    "TransposeMatMul": _matmul,
    "DynamicQuantizeMatMul": _matmul,
    "MatMulIntegerToFloat": _matmul,
    "MatMulInteger16": _matmul,
    "Concat": _concat,
    "ArgMax": _arg_reduce,
    "ArgMin": _arg_reduce,
    "QLinearAdd": _qlinear_binary,
    "QLinearMul": _qlinear_binary,
    "QLinearConcat": _qlinear_concat,
    "QLinearWhere": _qlinear_where,
    "QLinearReduceMean": _qlinear_reduce,
    "ExpandDims": _one_hot,
}
for _kind in ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare"):
    _RULES[f"Reduce{_kind}"] = _reduce
