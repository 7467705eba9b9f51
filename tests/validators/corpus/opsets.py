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


def _imports(*versions, ir=10):
    proto = model(node("Relu", "x", "y"), ir=ir)
    del proto.opset_import[:]
    for domain, version in versions:
        proto.opset_import.add(domain=domain, version=version)
    return proto


# Which meaning holds, if any, is for each runtime to guess; of what is yet to come nobody knows it.
add("two_operator_sets", lambda: _imports(("", 18), ("ai.onnx", 6)), "E4D006")
add("operator_set_of_another_domain_alone", lambda: _imports(("vendor", 1)), "E4D006")
add("operator_set_0", lambda: _imports(("", 0)), "E4D006", refused="opset|version")
add("operator_set_of_the_future", lambda: _imports(("", 999)), "E4D002", refused="Opset 999|opset 999")
add("ir_version_of_the_future", lambda: _imports(("", 18), ir=999), "E4D007", refused="IR version")
add("the_same_operator_set_twice", lambda: _imports(("", 18), ("ai.onnx", 18)))
