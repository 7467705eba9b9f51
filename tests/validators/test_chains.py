"""How a value came about."""

from __future__ import annotations

from edge4d.validators import check_rank
from tests.validators import onnx_models as zoo
from tests.validators.onnx_models import ints, model, node


def chain_of(proto, value, code="E4D001"):
    (found,) = [f for f in check_rank(proto).findings if f.code == code and f.where.value == value]
    return [(step.op, step.value, step.skipped) for step in found.chain]


def test_from_the_input_to_the_value():
    assert chain_of(zoo.hidden_rank_5(), "x_r5") == [(None, "x", 0), ("Reshape", "x_r5", 0)]
    assert chain_of(zoo.hidden_rank_5(), "x_relu") == [(None, "x", 0), ("Reshape", "x_r5", 0), ("Relu", "x_relu", 0)]


def test_nodes_that_change_no_rank_are_counted():
    nodes = [node("Relu", "x", "a0"), *(node("Relu", f"a{i}", f"a{i + 1}") for i in range(9))]
    nodes += [node("Unsqueeze", "a9 ax", "b"), node("Neg", "b", "c"), node("Neg", "c", "d")]
    proto = model(*nodes, weights=[ints("ax", 0)], outputs=[("d", None)])
    assert chain_of(proto, "d") == [
        (None, "x", 0), ("Relu", "a9", 9), ("Unsqueeze", "b", 0), ("Neg", "d", 1),
    ]  # fmt: skip


def test_into_and_out_of_subgraphs():
    assert chain_of(zoo.rank_5_in_loop(), "a_r5")[0] == (None, "x", 0)
    assert chain_of(zoo.rank_5_in_if(), "x_relu")[0] == (None, "x", 0)
    steps = chain_of(zoo.growing_loop(), "y", "E4D002")
    assert steps[-1][:2] == ("Loop", "y")


def test_a_long_chain_keeps_its_beginning_and_its_end():
    nodes = []
    for i in range(40):
        nodes += [node("Unsqueeze", f"v{i} ax", f"u{i}"), node("Squeeze", f"u{i} ax", f"v{i + 1}")]
    proto = model(*nodes, inputs=[("v0", [1, 4, 8, 8])], weights=[ints("ax", 0)], outputs=[("v40", None)])
    found = [f for f in check_rank(proto).findings if f.where.value == "u39"]
    steps = found[0].chain
    assert len(steps) < 12
    assert (steps[0].value, steps[0].cut, steps[-1].value) == ("v0", True, "u39")
