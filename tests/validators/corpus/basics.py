"""The models of the gate's own tests, which these here extend, under their own names."""

from __future__ import annotations

from tests.validators import onnx_models
from tests.validators.corpus.case import add

# Why ONNX Runtime refuses some of them, as it says it.
_REFUSED = {
    **dict.fromkeys(("loop_of_rank_4", "nested_loops", "rank_5_in_loop", "growing_loop"), "has unknown shape: i"),
    "axes_in_another_file": "external",
    "function_of_another_opset": "Unsqueeze",
    "rank_5_in_function_of_another_opset": "Unsqueeze",
    "attribute_of_rank_5": "vendor",
    "unknown_operator": "vendor",
    "unknown_operator_with_claims": "vendor",
    "unknown_operator_with_a_body": "vendor",
    "pool3d_of_unknown_rank": "vendor",
    "resize_of_three_axes": "Linear",
    "empty_graph": "does not exist",
    "undefined_name": "ghost",
    "produced_twice": "Duplicate definition",
}
# Findings that follow from the one that the model is about.
_BESIDES = {
    "attribute_of_rank_5": {"E4D002"},
    "pool3d_of_unknown_rank": {"E4D002"},
    "empty_graph": {"E4D006"},
    "undefined_name": {"E4D002"},
}
_FEEDS = {"input_without_shape": {"x": (1, 4, 8, 8)}}


def _enter() -> None:
    for make in onnx_models.GOOD:
        add(make.__name__, make, refused=_REFUSED.get(make.__name__))
    codes: dict[str, set[str]] = {}
    for make, code, *_ in onnx_models.BAD:
        codes.setdefault(make.__name__, set(_BESIDES.get(make.__name__, ()))).add(code)
    for make in dict.fromkeys(make for make, *_ in onnx_models.BAD):
        name = make.__name__
        add(name, make, *codes[name], refused=_REFUSED.get(name), **_FEEDS.get(name, {}))


_enter()
