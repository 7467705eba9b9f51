"""`run_with_all_values` sees what is inside a graph, not only what goes in and out."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from .exposed import run_with_all_values


def _model(nodes: list[onnx.NodeProto], initializers: list[onnx.TensorProto]) -> onnx.ModelProto:
    clip = helper.make_tensor_value_info("clip", TensorProto.FLOAT, (2, 3, 4, 6))
    out = helper.make_tensor_value_info("out", TensorProto.FLOAT, (2, 3, 4, 6))
    graph = helper.make_graph(nodes, "test", [clip], [out], initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def _shape(name: str, *sizes: int) -> onnx.TensorProto:
    return helper.make_tensor(name, TensorProto.INT64, (len(sizes),), sizes)


@pytest.fixture
def hidden_rank_5() -> onnx.ModelProto:
    """Rank 4 at both ends, rank 5 in between."""
    nodes = [
        helper.make_node("Reshape", ["clip", "split"], ["five"]),
        helper.make_node("Relu", ["five"], ["positive"]),
        helper.make_node("Reshape", ["positive", "merge"], ["out"]),
    ]
    return _model(nodes, [_shape("split", 2, 3, 4, 2, 3), _shape("merge", 2, 3, 4, 6)])


@pytest.fixture
def clip() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((2, 3, 4, 6), dtype=np.float32)


def test_sees_a_rank_5_interior(hidden_rank_5: onnx.ModelProto, clip: np.ndarray) -> None:
    values = run_with_all_values(hidden_rank_5, {"clip": clip})
    ranks = {name: value.ndim for name, value in values.items()}
    assert ranks == {"clip": 4, "split": 1, "merge": 1, "five": 5, "positive": 5, "out": 4}
    np.testing.assert_array_equal(values["out"], np.maximum(clip, 0))


def test_shapes_that_the_model_claims_do_not_hide_it(hidden_rank_5: onnx.ModelProto, clip: np.ndarray) -> None:
    lie = helper.make_tensor_value_info("five", TensorProto.FLOAT, None)
    hidden_rank_5.graph.value_info.append(lie)
    assert run_with_all_values(hidden_rank_5, {"clip": clip})["five"].ndim == 5


def test_an_interior_without_rank_5_shows_none(clip: np.ndarray) -> None:
    nodes = [helper.make_node("Relu", ["clip"], ["positive"]), helper.make_node("Neg", ["positive"], ["out"])]
    values = run_with_all_values(_model(nodes, []), {"clip": clip})
    assert {name: value.ndim for name, value in values.items()} == {"clip": 4, "positive": 4, "out": 4}


def test_the_model_is_left_as_it_was(hidden_rank_5: onnx.ModelProto, clip: np.ndarray) -> None:
    before = hidden_rank_5.SerializeToString(deterministic=True)
    run_with_all_values(hidden_rank_5, {"clip": clip})
    assert hidden_rank_5.SerializeToString(deterministic=True) == before


def test_nothing_is_optimised_away(clip: np.ndarray) -> None:
    """An Identity chain is the first thing an optimiser removes."""
    nodes = [helper.make_node("Identity", ["clip"], ["copy"]), helper.make_node("Identity", ["copy"], ["out"])]
    assert set(run_with_all_values(_model(nodes, []), {"clip": clip})) == {"clip", "copy", "out"}


def test_refuses_control_flow(clip: np.ndarray) -> None:
    inner = helper.make_graph(
        [helper.make_node("Identity", ["clip"], ["inner"])],
        "branch",
        [],
        [helper.make_tensor_value_info("inner", TensorProto.FLOAT, None)],
    )
    condition = helper.make_tensor("condition", TensorProto.BOOL, (), [True])
    branch = helper.make_node("If", ["condition"], ["out"], name="choose", then_branch=inner, else_branch=inner)
    with pytest.raises(ValueError, match=r"'choose' \(If\) has a subgraph"):
        run_with_all_values(_model([branch], [condition]), {"clip": clip})
