"""The same network in every operator set since 7, with rank 4 and with rank 5 within."""

from __future__ import annotations

from onnx import defs

from tests.validators.corpus.case import add
from tests.validators.onnx_models import floats, ints, model, node


def _ir(opset):
    return 3 if opset < 9 else 4 if opset < 10 else 8 if opset < 19 else 10


def network(opset, *, wide):
    """Conv, norm, pool, squeeze and unsqueeze as that operator set spells them."""
    old = opset < 13  # axes and sums: attributes until then
    squeeze = node("Squeeze", "g", "s", axes=[3]) if old else node("Squeeze", "g three", "s")
    unsqueeze = node("Unsqueeze", "s", "u", axes=[3]) if old else node("Unsqueeze", "s three", "u")
    nodes = [
        node("Conv", "x w", "c", kernel_shape=[3, 3]),
        node("BatchNormalization", "c p q r t", "n"),
        node("MaxPool", "n", "m", kernel_shape=[2, 2]),
        node("GlobalAveragePool", "m", "g"),
        squeeze,
        unsqueeze,
        node("Reshape", "u s5" if wide else "u s3", "v"),
        node("Softmax", "v", "a", axis=1),
        node("Reshape", "a s4", "y"),
    ]
    norm = [floats(name, 4) for name in "pqrt"]
    shapes = [ints("s5", 1, 2, 2, 1, 1) if wide else ints("s3", 1, 4, 1), ints("s4", 1, 4, 1, 1)]
    weights = [floats("w", 4, 4, 3, 3), *norm, *shapes] + ([] if old else [ints("three", 3)])
    inputs = [("x", [1, 4, 8, 8])]
    if _ir(opset) < 4:  # every weight is an input as well
        inputs += [(w.name, list(w.dims), w.data_type) for w in weights]
    return model(*nodes, inputs=inputs, outputs=[("y", [1, 4, 1, 1])], weights=weights, opset=opset, ir=_ir(opset))


LATEST = min(defs.onnx_opset_version(), 25)
for _opset in range(7, LATEST + 1):
    add(f"opset_{_opset}", lambda o=_opset: network(o, wide=False))
    add(f"opset_{_opset}_rank_5", lambda o=_opset: network(o, wide=True), "E4D001")
