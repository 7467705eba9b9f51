"""One line for each way in which an operator can be written: op, inputs, attributes, and where it differs, the rest."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tests.loading.onnx_files.models import integers, numbers


@dataclass
class Case:
    op: str
    inputs: list[Any]
    attributes: dict[str, Any] = field(default_factory=dict)
    opset: int = 18
    constants: tuple[int, ...] = ()
    outputs: int = 1
    by: str = "onnxruntime"
    note: str = ""

    def __str__(self) -> str:
        shape = "x".join(map(str, np.shape(self.inputs[0]))) if self.inputs else ""
        told = ",".join(f"{k}={v}" for k, v in self.attributes.items() if k != "value")[:70].replace(" ", "")
        return f"{self.op}-{self.opset}-{shape}-{told}{self.note}"


def ints(*items):
    return np.array(items, dtype=np.int64)


X3, X4, X5 = numbers(2, 4, 7), numbers(2, 4, 7, 6), numbers(2, 4, 5, 7, 6)
BY_RANK = {3: X3, 4: X4, 5: X5}


def conv_cases():
    for rank, x in BY_RANK.items():
        axes = rank - 2
        w = numbers(6, 4, *[3, 2, 3][:axes], seed=1)
        b = numbers(6, seed=2)
        kernel = list(w.shape[2:])
        yield Case("Conv", [x, w, b], {"kernel_shape": kernel, "pads": [1] * 2 * axes}, constants=(1, 2))
        yield Case("Conv", [x, w], {"strides": [2, 1, 2][:axes], "dilations": [1, 2, 1][:axes]}, 7, (1,))
        yield Case("Conv", [x, w, b], {"pads": [0, 1, 2, 1, 0, 0][: 2 * axes]}, 11, (1, 2), note="-uneven")
        for mode in ("SAME_UPPER", "SAME_LOWER", "VALID"):
            yield Case("Conv", [x, w, b], {"auto_pad": mode, "strides": [2] * axes}, constants=(1, 2))
        grouped = numbers(8, 2, *kernel, seed=3)
        yield Case("Conv", [x, grouped], {"group": 2}, constants=(1,))
        yield Case("Conv", [x, numbers(4, 1, *kernel)], {"group": 4, "pads": [1] * 2 * axes}, 22, (1,), note="-depth")
        yield Case("Conv", [x, w, b], {"pads": [1] * 2 * axes, "kernel_shape": kernel}, note="-weights given")
        yield Case("Conv", [x, w], {"auto_pad": "SAME_LOWER", "kernel_shape": kernel}, note="-weights given")
        t = numbers(4, 3, *kernel, seed=4)
        tb = numbers(3, seed=5)
        yield Case("ConvTranspose", [x, t, tb], {"strides": [2] * axes}, constants=(1, 2))
        yield Case("ConvTranspose", [x, t], {"pads": [1] * 2 * axes, "dilations": [2] * axes}, 11, (1,))
        yield Case("ConvTranspose", [x, t, tb], {"strides": [3] * axes, "output_padding": [1, 2, 1][:axes]}, 11, (1, 2))
        yield Case("ConvTranspose", [x, t], {"strides": [2] * axes, "pads": [1, 0, 1, 0, 1, 0][: 2 * axes]}, 11, (1,))
        yield Case("ConvTranspose", [x, t], {"strides": [2] * axes, "pads": [0, 0, 0, 1, 1, 1][-2 * axes :]}, 11, (1,))
        yield Case("ConvTranspose", [x, numbers(4, 2, *kernel)], {"group": 2, "strides": [2] * axes}, constants=(1,))
        for mode in ("SAME_UPPER", "SAME_LOWER", "VALID"):
            yield Case("ConvTranspose", [x, t], {"auto_pad": mode, "strides": [2] * axes}, constants=(1,))
        shorter = [2 * (size - 1) + k - 1 for size, k in zip(x.shape[2:], kernel, strict=True)]
        yield Case("ConvTranspose", [x, t], {"output_shape": shorter, "strides": [2] * axes}, constants=(1,))


def pool_cases():
    for rank, x in BY_RANK.items():
        axes = rank - 2
        for op in ("MaxPool", "AveragePool"):
            for kernel, stride, pads, ceil in (
                ([2] * axes, [2] * axes, [0] * 2 * axes, 0),
                ([3] * axes, [2] * axes, [1] * 2 * axes, 0),
                ([3] * axes, [2] * axes, [0] * 2 * axes, 1),
                ([3] * axes, [2] * axes, [1] * 2 * axes, 1),
                ([3] * axes, [3, 2, 2][:axes], [0] * axes + [1] * axes, 1),
                ([3, 2, 3][:axes], [1] * axes, [1, 0, 2][:axes] + [0, 1, 1][:axes], 0),
                ([2] * axes, [3] * axes, [0] * 2 * axes, 1),
            ):
                own = {"kernel_shape": kernel, "strides": stride, "pads": pads, "ceil_mode": ceil}
                yield Case(op, [x], own)
                if op == "AveragePool":
                    yield Case(op, [x], own | {"count_include_pad": 1}, 19)
            for mode in ("SAME_UPPER", "SAME_LOWER", "VALID"):
                yield Case(op, [x], {"kernel_shape": [3] * axes, "strides": [2] * axes, "auto_pad": mode}, 11)
            yield Case(op, [x], {"kernel_shape": [2] * axes}, 7)
        yield Case("MaxPool", [x], {"kernel_shape": [2] * axes, "dilations": [2] * axes}, 12)
        yield Case(
            "AveragePool", [x], {"kernel_shape": [2] * axes, "dilations": [2] * axes, "pads": [1] * 2 * axes}, 19
        )
        yield Case(
            "AveragePool",
            [x],
            {"kernel_shape": [2] * axes, "dilations": [2] * axes, "pads": [1] * 2 * axes, "count_include_pad": 1},
            19,
        )
        yield Case("GlobalAveragePool", [x])
        yield Case("GlobalMaxPool", [x])
    yield Case("MaxPool", [integers(1, 2, 6, 6, dtype=np.uint8)], {"kernel_shape": [2, 2], "pads": [0, 0, 1, 1]}, 12)


def lp_pool_cases():
    for rank, x in BY_RANK.items():
        axes = rank - 2
        for p in (1, 2, 3):
            yield Case("LpPool", [x], {"kernel_shape": [3] * axes, "p": p, "strides": [2] * axes})
            yield Case("GlobalLpPool", [x], {"p": p})
        yield Case("LpPool", [x], {"kernel_shape": [2] * axes, "pads": [1] * axes + [0] * axes}, 11)
        yield Case("LpPool", [x], {"kernel_shape": [3, 2, 2][:axes], "auto_pad": "SAME_UPPER"}, 11)
        yield Case("LpPool", [x], {"kernel_shape": [3] * axes, "auto_pad": "SAME_LOWER", "strides": [2] * axes}, 22)
        yield Case("LpPool", [x], {"kernel_shape": [2] * axes, "dilations": [2] * axes, "pads": [1] * 2 * axes}, 18)
        yield Case("LpPool", [x], {"kernel_shape": [3] * axes, "strides": [2] * axes, "ceil_mode": 1}, 18)


def recurrent_cases():
    gates = {"LSTM": 4, "GRU": 3, "RNN": 1}
    for op, count in gates.items():
        outputs = 3 if op == "LSTM" else 2
        for direction, passes in (("forward", 1), ("reverse", 1), ("bidirectional", 2)):
            x = numbers(5, 2, 3)
            w, r = numbers(passes, count * 4, 3, seed=1, low=-0.7), numbers(passes, count * 4, 4, seed=2, high=0.7)
            b = numbers(passes, 2 * count * 4, seed=3)
            states = [numbers(passes, 2, 4, seed=4 + i) for i in range(outputs - 1)]
            own = {"hidden_size": 4, "direction": direction}
            resets = [{"linear_before_reset": 0}, {"linear_before_reset": 1}] if op == "GRU" else [{}]
            for reset in resets:
                yield Case(op, [x, w, r], own | reset, 14, (1, 2), outputs)
                yield Case(op, [x, w, r, b], own | reset, 7, (1, 2, 3), outputs)
                yield Case(op, [x, w, r, b, None, *states], own | reset, 22, (1, 2, 3), outputs, note="-states")
            whole = np.full(2, 5, np.int32)
            yield Case(op, [x, w, r, b, whole, states[0]], own, 14, (1, 2, 3, 4, 5), outputs, note="-lengths")
            yield Case(op, [x, w, r, b], own, 14, outputs=outputs, note="-weights given")
        x1 = numbers(1, 1, 3)
        yield Case(op, [x1, w[:1], r[:1]], {"hidden_size": 4}, 14, (1, 2), outputs, note="-one frame")
    for direction, passes in (("forward", 1), ("bidirectional", 2)):
        own = {"hidden_size": 4, "direction": direction, "activations": ["Relu"] * passes}
        w, r = numbers(passes, 4, 3, seed=1), numbers(passes, 4, 4, seed=2)
        yield Case("RNN", [numbers(5, 2, 3), w, r], own, 14, (1, 2), 2)


def later_opset_cases():
    """What changed in these operator sets is which types are taken."""
    for opset in (23, 24, 25, 26):
        yield Case("Transpose", [X5], {"perm": [0, 2, 1, 4, 3]}, opset)
        yield Case("Reshape", [X4, ints(2, 4, 42)], {}, opset, (1,))
        yield Case("Squeeze", [X4[:, :1], ints(1)], {}, opset, (1,))
        yield Case("Unsqueeze", [X4, ints(1)], {}, opset, (1,))
        yield Case("Pad", [X4, ints(0, 0, 1, 0, 0, 0, 0, 2)], {}, opset, (1,))
        yield Case("Flatten", [X4], {"axis": 2}, opset)
        yield Case("TopK", [X3, ints(3)], {"axis": 2}, opset, (1,), 2)
        yield Case("Identity", [X4], {}, opset)
        yield Case("Cast", [X3], {"to": 7}, opset)
        yield Case("Conv", [X5, numbers(6, 4, 3, 2, 3)], {"pads": [1] * 6}, opset, (1,))
        yield Case("MaxPool", [X5], {"kernel_shape": [2, 2, 2]}, opset)


def norm_cases():
    scale, bias, mean = (numbers(4, seed=i) for i in range(3))
    var = numbers(4, seed=9, low=0.5, high=2)
    for x in BY_RANK.values():
        for opset in (7, 9, 15):
            yield Case("BatchNormalization", [x, scale, bias, mean, var], {"epsilon": 1e-3}, opset, (1, 2, 3, 4))
        yield Case("BatchNormalization", [x, scale, bias, mean, var], note="-given")
        yield Case("InstanceNormalization", [x, scale, bias], {"epsilon": 1e-2}, constants=(1, 2))
        for axis in (-1, 1, x.ndim - 2):
            shape = x.shape[axis:] if axis != -1 else x.shape[-1:]
            w, b = numbers(*shape, seed=3), numbers(*shape, seed=4)
            yield Case("LayerNormalization", [x, w, b], {"axis": axis, "epsilon": 1e-3}, 17, (1, 2))
            yield Case("LayerNormalization", [x, w], {"axis": axis}, 17, (1,))
        yield Case("LayerNormalization", [x, numbers(x.shape[-1])], {"axis": 1}, 17, (1,), note="-broadcast")
        yield Case("GroupNormalization", [x, scale, bias], {"num_groups": 2}, 21, (1, 2), by="reference")
        yield Case("GroupNormalization", [x, scale[:2], bias[:2]], {"num_groups": 2}, 18, (1, 2), by="reference")
    for size in (1, 3, 5):
        yield Case("LRN", [X4], {"size": size, "alpha": 0.5, "beta": 0.7, "bias": 1.5})
    yield Case("MeanVarianceNormalization", [X4], {}, 13)
    yield Case("MeanVarianceNormalization", [X4], {"axes": [1, 2]}, 13)


def pointwise_cases():
    positive, unit = numbers(2, 3, 4, seed=1, low=0.1), numbers(2, 3, 4, seed=2, low=-0.9, high=0.9)
    for op in ("Abs", "Neg", "Exp", "Floor", "Ceil", "Sign", "Erf", "Sin", "Cos", "Tan", "Atan", "Sinh", "Cosh",
               "Asinh", "IsNaN", "Relu", "Sigmoid", "Tanh", "Softplus", "Softsign", "HardSwish", "Mish", "Identity",
               "Dropout"):  # fmt: skip
        yield Case(op, [X3 if op not in ("Sinh", "Cosh") else unit])
    for op in ("Log", "Sqrt", "Reciprocal"):
        yield Case(op, [positive])
    for op in ("Asin", "Acos", "Atanh"):
        yield Case(op, [unit])
    yield Case("Acosh", [positive + 1])
    yield Case("Round", [np.array([0.5, 1.5, 2.5, -0.5, -1.5, 0.49], dtype=np.float32)])
    wide = numbers(4, 1, 6, seed=3)
    for op in ("Add", "Sub", "Mul", "Div", "Pow", "Max", "Min", "Sum", "Mean"):
        a = np.abs(X4) + 0.5 if op == "Pow" else X4
        yield Case(op, [a, wide])
        yield Case(op, [a, wide], constants=(1,), note="-const")
        yield Case(op, [wide, a] if op != "Pow" else [np.abs(wide), X4], constants=(0,), note="-swapped")
    for op in ("Max", "Min", "Sum", "Mean"):
        yield Case(op, [X4, wide, numbers(6)])
        yield Case(op, [X4])
    yield Case("Add", [X5, numbers(4, 1, 1, 1, seed=4)], constants=(1,))
    for op in ("Add", "Sub", "Mul", "Div"):
        yield Case(op, [integers(3, 4, low=-9, high=9), integers(4, low=2, high=5, seed=1)], {}, 14)
    yield Case("Pow", [X3, np.array(2, np.float32)], {}, 13, (1,))
    yield Case("Pow", [X3, np.array([3.0], np.float32)], {}, 7, (1,))
    yield Case("Pow", [np.abs(X3), np.array(0.5, np.float32)], {}, 15, (1,))
    yield Case("Pow", [X3, np.array(2, np.int64)], {}, 15, (1,))
    yield Case("Pow", [np.array(3, np.float32), np.array([2], np.float32)], {}, 15, (1,), note="-scalar")
    signed = integers(4, 5, low=-9, high=9)
    yield Case("Mod", [signed, np.array([3, -3, 2, 5, -7])], {})
    yield Case("Mod", [signed, np.array([3, -3, 2, 5, -7])], {"fmod": 1})
    yield Case("Mod", [X3, numbers(7, low=0.5)], {"fmod": 1})
    flags, others = integers(3, 4, high=2).astype(bool), integers(4, high=2, seed=1).astype(bool)
    for op in ("And", "Or", "Xor"):
        yield Case(op, [flags, others])
    yield Case("Not", [flags])
    for op in ("Equal", "Greater", "Less", "GreaterOrEqual", "LessOrEqual"):
        yield Case(op, [integers(3, 4), integers(4, seed=1)])
        yield Case(op, [X4, np.array(0.25, np.float32)], constants=(1,))
    yield Case("Where", [flags, numbers(3, 4), numbers(4, seed=1)])
    yield Case("Where", [flags, numbers(3, 4), np.array(-1e9, np.float32)], constants=(2,))
    special = np.array([1, np.inf, -np.inf, np.nan], np.float32)
    for negative, positive_too in ((1, 1), (0, 1), (1, 0)):
        yield Case("IsInf", [special], {"detect_negative": negative, "detect_positive": positive_too})
    for to, x in ((7, X3), (10, X3), (9, X3), (6, X3), (11, X3), (1, integers(3, 4)), (1, flags), (2, np.abs(X3))):
        yield Case("Cast", [x], {"to": to}, note=f"-{np.asarray(x).dtype}")
    yield Case("CastLike", [X3, integers(1)], {})
    for op in ("BitwiseAnd", "BitwiseOr", "BitwiseXor"):
        yield Case(op, [integers(3, 4), integers(4, seed=1)])
    yield Case("BitwiseNot", [integers(3, 4)])


def activation_cases():
    for op, attributes in (
        ("LeakyRelu", {}), ("LeakyRelu", {"alpha": 0.2}), ("Elu", {}), ("Elu", {"alpha": 0.5}),
        ("Celu", {"alpha": 2.0}),
        ("Selu", {}), ("Selu", {"alpha": 1.5, "gamma": 1.2}), ("ThresholdedRelu", {"alpha": 0.7}),
        ("Shrink", {"bias": 0.2, "lambd": 0.6}), ("HardSigmoid", {}), ("HardSigmoid", {"alpha": 1 / 6, "beta": 0.5}),
        ("HardSigmoid", {"alpha": 0.3, "beta": 0.1}),
    ):  # fmt: skip
        yield Case(op, [X4], attributes)
    yield Case("Gelu", [X3], {}, 20)
    yield Case("Gelu", [X3], {"approximate": "tanh"}, 20)
    for shape in ((4, 1, 1, 1), (1,), (4, 1, 7, 6), (6,)):
        yield Case("PRelu", [X5, numbers(*shape, low=0.1, high=0.5)], constants=(1,), note=f"-{shape}")
    yield Case("PRelu", [X4, numbers(4, 1, 1)], {}, 9, note="-given")
    yield Case("Clip", [X4], {"min": -0.5, "max": 1.0}, 6 + 1)
    yield Case("Clip", [X4], {"max": 1.0}, 10)
    yield Case("Clip", [X4], {}, 10)
    yield Case("Clip", [X4 * np.inf], {"min": 0.0, "max": float(np.finfo(np.float32).max)}, 10, note="-as a Relu")
    low, high = np.array(-0.5, np.float32), np.array(0.75, np.float32)
    yield Case("Clip", [X4, low, high], {}, 11, (1, 2))
    yield Case("Clip", [X4, None, high], {}, 13, (2,))
    yield Case("Clip", [X4, low], {}, 13, (1,))
    yield Case("Clip", [X4, low, high], {}, 13, note="-given")
    yield Case("Clip", [X4, None, high], {}, 13, note="-given")
    yield Case("Clip", [integers(3, 4), np.array(1), np.array(3)], {}, 13, (1, 2))
    for op in ("Softmax", "LogSoftmax", "Hardmax"):
        for x in BY_RANK.values():
            for axis in range(-1, x.ndim):
                for opset in (11, 13):
                    yield Case(op, [x], {"axis": axis}, opset)
            yield Case(op, [x], {}, 12)
            yield Case(op, [x], {}, 13)


def view_cases():
    for shape in ((2, -1), (0, 0, -1), (-1,), (0, 4, 35, 6), (2, 2, 2, 5, 7, 3, 2)):
        yield Case("Reshape", [X5, ints(*shape)], {}, 13, (1,), note=f"-{shape}")
    yield Case("Reshape", [X5, ints(2, -1, 6)], {"allowzero": 1}, 14, (1,))
    for x in BY_RANK.values():
        for axis in (0, 1, 2, -1, x.ndim):
            yield Case("Flatten", [x], {"axis": axis}, 13)
        yield Case("Transpose", [x])
        yield Case("Transpose", [x], {"perm": [*range(1, x.ndim), 0]})
    thin = numbers(1, 3, 1, 4, 1)
    yield Case("Squeeze", [thin], {}, 11)
    yield Case("Squeeze", [thin], {"axes": [0, 2]}, 7)
    yield Case("Squeeze", [thin], {"axes": [-1]}, 11)
    yield Case("Squeeze", [thin, ints(0, -1)], {}, 13, (1,))
    yield Case("Squeeze", [thin], {}, 13)
    yield Case("Unsqueeze", [X3], {"axes": [0, 4]}, 7)
    yield Case("Unsqueeze", [X3], {"axes": [-1, 1]}, 11)
    yield Case("Unsqueeze", [X3, ints(0, -1, 2)], {}, 13, (1,))
    yield Case("Expand", [numbers(3, 1, 4), ints(2, 3, 5, 4)], {}, 13, (1,))
    yield Case("Expand", [numbers(3, 1, 4), ints(1, 4)], {}, 13, (1,))
    for mode in ("DCR", "CRD"):
        yield Case("DepthToSpace", [numbers(2, 12, 3, 4)], {"blocksize": 2, "mode": mode}, 13)
    yield Case("SpaceToDepth", [numbers(2, 3, 4, 6)], {"blocksize": 2}, 13)


def moving_cases():
    for axis in (0, 1, -1):
        yield Case("Concat", [X5, X5 + 1, X5 * 2], {"axis": axis})
    yield Case("Tile", [X5, ints(1, 2, 3, 1, 2)], {}, 13, (1,))
    yield Case("Split", [X5], {"axis": 3, "split": [2, 4, 1]}, 11, outputs=3)
    yield Case("Split", [X5], {"axis": 1}, 7, outputs=2)
    yield Case("Split", [X5, ints(1, 6)], {"axis": -2}, 13, (1,), outputs=2)
    yield Case("Split", [X5], {"axis": 1}, 13, outputs=4)
    yield Case("Split", [X5], {"axis": 3, "num_outputs": 3}, 18, outputs=3)
    yield Case("Slice", [X5], {"starts": [1, -3], "ends": [9, -1], "axes": [1, 3]}, 9)
    yield Case("Slice", [X5], {"starts": [0, 1], "ends": [1, 3]}, 7)
    big = np.iinfo(np.int64).max
    for starts, ends, axes, steps in (
        ([1], [3], [2], None), ([-4], [big], [3], [2]), ([-1], [-big], [4], [-1]), ([5], [1], [3], [-2]),
        ([0, 1], [2, -1], [0, -1], [1, 3]), ([big], [-9], [-2], [-3]), ([-2], [1], [2], [-1]),
        ([-9, -9], [-big, -9], [1, 3], [-2, -1]),
    ):  # fmt: skip
        given = [X5, ints(*starts), ints(*ends), ints(*axes)] + ([ints(*steps)] if steps else [])
        yield Case("Slice", given, {}, 13, tuple(range(1, len(given))), note=f"-{starts}{ends}{steps}")
    yield Case("Slice", [X5, ints(1, 1), ints(2, 4)], {}, 10, (1, 2))
    yield Case("Pad", [X5], {"pads": [0, 0, 1, 2, 0, 0, 0, 1, 0, 3], "value": 1.5}, 7)
    for mode in ("constant", "reflect", "edge"):
        yield Case("Pad", [X4], {"pads": [0, 0, 1, 2, 0, 0, 2, 1], "mode": mode}, 10)
        for pads in ((0, 0, 1, 2, 0, 0, 0, 1, 0, 3), (0, 1, 0, 0, 2, 0, 1, 0, 0, 2), (0, 0, 2, -1, 0, 0, 0, -2, 2, 1)):
            yield Case("Pad", [X5, ints(*pads)], {"mode": mode}, 13, (1,), note=f"-{pads}")
    yield Case("Pad", [X5, ints(0, 0, 1, 1, 1, 0, 0, 1, 0, 2)], {"mode": "wrap"}, 19, (1,), by="reference")
    yield Case("Pad", [X5, ints(0, 0, 1, 1, 1, 0, 0, 1, 0, 2), np.array(-3, np.float32)], {}, 13, (1, 2))
    yield Case("Pad", [X5, ints(1, 2, 0, 1), np.array(2, np.float32), ints(2, -1)], {}, 18, (1, 2, 3))
    yield Case("Pad", [integers(2, 3), ints(1, 0, 0, 2), np.array(7)], {}, 13, (1, 2))


def indexing_cases():
    for axis in (0, 1, -1):
        for index in (np.array(1), ints(0, -1, 1), np.array([[0, 1], [-2, 1]])):
            yield Case("Gather", [X5, index], {"axis": axis}, 13, (1,), note=f"-{index.ndim}")
            yield Case("Gather", [X5, index], {"axis": axis}, 13, note=f"-{index.ndim}-given")
    yield Case("Gather", [numbers(9, 4), integers(2, 3, high=9)], {}, 13, (0,), note="-table")
    yield Case("GatherElements", [X4, integers(2, 4, 3, 6, low=-7, high=7)], {"axis": 2}, 13)
    yield Case("GatherND", [X4, integers(3, 2, high=2)], {}, 13)
    for reduction in ("none", "add", "mul", "max", "min"):
        index = np.stack([np.random.default_rng(i).permutation(7)[:3] for i in range(8)]).reshape(2, 4, 3)
        told = {} if reduction == "none" else {"reduction": reduction}
        yield Case("ScatterElements", [X3, index, numbers(2, 4, 3, seed=4)], {"axis": 2, **told}, 18)
    places = np.array([[0, 1], [1, 3], [1, 0]])
    yield Case("ScatterND", [X3, places, numbers(3, 7, seed=5)], {}, 16)
    yield Case("ScatterND", [X3, places, numbers(3, 7, seed=5)], {"reduction": "add"}, 16)
    yield Case("TopK", [X4], {"k": 2, "axis": 2}, 7 + 2, outputs=2)
    for largest in (0, 1):
        yield Case("TopK", [X5, ints(3)], {"axis": 3, "largest": largest}, 11, (1,), outputs=2)
    yield Case("TopK", [X3, ints(2)], {}, 10, (1,), outputs=2)
    ties = integers(3, 4, 5, high=3).astype(np.float32)
    for op in ("ArgMax", "ArgMin"):
        for axis, keep in ((1, 1), (-1, 0), (0, 1)):
            for last in (0, 1):
                yield Case(op, [ties], {"axis": axis, "keepdims": keep, "select_last_index": last}, 12)
        yield Case(op, [X5], {}, 7)
    for axis in (-1, 0, 1):
        values = np.array([0.5, 2.0], np.float32)
        yield Case("OneHot", [integers(2, 3, low=-4, high=4), np.array(4), values], {"axis": axis}, 11, (1, 2))
    for upper in (0, 1):
        yield Case("Trilu", [X4], {"upper": upper}, 14)
        yield Case("Trilu", [X4, np.array(-2)], {"upper": upper}, 14, (1,))
    for exclusive in (0, 1):
        for reverse in (0, 1):
            told = {"exclusive": exclusive, "reverse": reverse}
            yield Case("CumSum", [X4, np.array(2)], told, 14, (1,))
            far = np.array([[1, 1e8, 3, 4], [1e8, 1, 2, np.inf]], np.float32)
            yield Case("CumSum", [far, np.array(1)], told, 14, (1,), note="-far")
    grid = numbers(2, 3, 5, 2, low=-1.1, high=1.1)
    for mode in ("bilinear", "nearest", "bicubic"):
        for padding in ("zeros", "border", "reflection"):
            told = {"mode": mode, "padding_mode": padding, "align_corners": int(mode == "bilinear")}
            yield Case("GridSample", [X4, grid], told, 16)
    yield Case("GridSample", [X5, numbers(2, 3, 4, 5, 3, low=-1.1, high=1.1)], {"mode": "linear"}, 20)


def reduce_cases():
    for op in ("Sum", "Mean", "Max", "Min", "Prod", "L1", "L2", "LogSum", "LogSumExp", "SumSquare"):
        x = np.abs(X5) + 0.1 if op == "LogSum" else X5
        newer = 13 if op == "Sum" else 18
        yield Case(f"Reduce{op}", [x], {"axes": [2, -1]}, 11)
        yield Case(f"Reduce{op}", [x], {"axes": [1], "keepdims": 0}, 11)
        yield Case(f"Reduce{op}", [x], {}, 7)
        yield Case(f"Reduce{op}", [x, ints(-1, 3)], {"keepdims": 0}, newer, (1,))
        yield Case(f"Reduce{op}", [x, ints(2, 3, 4)], {}, newer, (1,))
        yield Case(f"Reduce{op}", [x], {}, newer)
    yield Case("ReduceSum", [X4], {"noop_with_empty_axes": 1}, 13)
    for op in ("Mean", "Max", "Prod", "L1", "L2", "LogSum", "LogSumExp", "SumSquare"):
        x = np.abs(X4) + 0.1 if op == "LogSum" else X4
        yield Case(f"Reduce{op}", [x], {"noop_with_empty_axes": 1}, 18)
        yield Case(f"Reduce{op}", [x, ints()], {"noop_with_empty_axes": 1}, 18, (1,))
    for op in ("Sum", "Prod", "L1", "SumSquare", "Max"):
        for dtype in (np.int32, np.int64):
            x = integers(3, 4, low=-3, dtype=dtype)
            yield Case(f"Reduce{op}", [x, ints(1)], {}, 18, (1,), note=f"-{dtype.__name__}")
    yield Case("ReduceMax", [integers(3, 4), ints(1)], {}, 18, (1,))
    yield Case("ReduceSum", [integers(3, 4, dtype=np.int32), ints(1)], {}, 13, (1,))


def matmul_cases():
    for a, b in (((4, 5), (5, 3)), ((2, 4, 5), (5, 3)), ((2, 3, 4, 5), (2, 1, 5, 6)), ((5,), (5, 3)), ((2, 4, 5), (5,)),
                 ((2, 2, 3, 4, 5), (3, 5, 2))):  # fmt: skip
        yield Case("MatMul", [numbers(*a), numbers(*b, seed=1)], note=f"-{b}")
        yield Case("MatMul", [numbers(*a), numbers(*b, seed=1)], constants=(1,), note=f"-{b}-const")
    for attributes in ({}, {"transB": 1}, {"transA": 1}, {"alpha": 0.5, "beta": 2.0, "transA": 1, "transB": 1}):
        a = numbers(4, 5) if not attributes.get("transA") else numbers(5, 4)
        b = numbers(5, 3, seed=1) if not attributes.get("transB") else numbers(3, 5, seed=1)
        yield Case("Gemm", [a, b, numbers(3, seed=2)], attributes, 13, (1, 2))
        yield Case("Gemm", [a, b, numbers(4, 1, seed=2)], attributes, 13, (1, 2), note="-column")
        yield Case("Gemm", [a, b], attributes, 13, (1,))
        yield Case("Gemm", [a, b, numbers(1, seed=2)], attributes, 13)
    yield Case("Einsum", [numbers(2, 3, 4), numbers(2, 5, 4)], {"equation": "bij,bkj->bik"}, 12)


def resize_cases():
    empty = np.array([], np.float32)
    shapes = {3: X3[:, :2], 4: X4[:, :2], 5: X5[:1, :2]}
    for rank, x in shapes.items():
        axes = rank - 2
        for coordinates in ("half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric"):
            for mode, extra in (
                ("linear", {}), ("nearest", {"nearest_mode": "floor"}), ("nearest", {"nearest_mode": "ceil"}),
                ("nearest", {"nearest_mode": "round_prefer_floor"}), ("nearest", {"nearest_mode": "round_prefer_ceil"}),
            ):  # fmt: skip
                told = {"mode": mode, "coordinate_transformation_mode": coordinates, **extra}
                scales = np.array([1, 1, 2, 2, 2][:rank], np.float32)
                yield Case("Resize", [x, empty, scales], told, 13, (1, 2), note="-scales")
                sizes = ints(*x.shape[:2], *[size + 3 for size in x.shape[2:]])
                yield Case("Resize", [x, empty, empty, sizes], told, 11, (1, 2, 3), note="-sizes")
                smaller = ints(*x.shape[:2], *[(size + 1) // 2 for size in x.shape[2:]])
                yield Case("Resize", [x, None, None, smaller], told, 18, (3,), note="-smaller")
        yield Case("Upsample", [x], {"mode": "nearest", "scales": [1.0, 1.0, *[2.0] * axes]}, 7)
    x = shapes[4]
    uneven = np.array([1, 1, 1.7, 2.3], np.float32)
    for mode in ("nearest", "linear", "cubic"):
        told = {"mode": mode, "coordinate_transformation_mode": "half_pixel"}
        yield Case("Resize", [x, None, uneven], told, 13, (2,), note="-uneven")
        yield Case("Resize", [x, None, None, ints(5, 9)], {**told, "axes": [2, 3]}, 18, (3,), note="-axes")
    for coordinates in ("half_pixel", "align_corners", "asymmetric"):
        for inside in (0, 1):
            told = {"mode": "cubic", "coordinate_transformation_mode": coordinates, "exclude_outside": inside,
                    "cubic_coeff_a": -0.5}  # fmt: skip
            yield Case("Resize", [x, None, None, ints(2, 2, 11, 9)], told, 13, (3,))
    told = {"mode": "linear", "coordinate_transformation_mode": "half_pixel_symmetric"}
    yield Case("Resize", [x, None, uneven], told, 19, (2,))
    yield Case("Resize", [x, np.array([1, 1, 2, 3], np.float32)], {"mode": "nearest"}, 10, (1,))
    yield Case("Resize", [x, np.array([1, 1, 2, 2], np.float32)], {"mode": "linear"}, 10, (1,))
    yield Case("Upsample", [x, np.array([1, 1, 2, 2], np.float32)], {"mode": "linear"}, 9, (1,))


CASES = [
    case
    for family in (
        conv_cases, pool_cases, lp_pool_cases, recurrent_cases, later_opset_cases, norm_cases, pointwise_cases,
        activation_cases, view_cases, moving_cases, indexing_cases, reduce_cases, matmul_cases, resize_cases,
    )
    for case in family()
]  # fmt: skip
