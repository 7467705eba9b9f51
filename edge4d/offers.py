"""Which exact formulation of a 3-D convolution is offered to which runtime, and why.

The planner weighs what is offered. A name that no row has is offered to all; `tests/test_offers.py` wants each in one.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["AVOIDED", "BLOCKED", "CHANNELS_LAST", "GATHERS", "GENERAL_WITHOUT", "MILDER", "OFFERS", "RUNTIMES", "Offer"]


@dataclass(frozen=True)
class Offer:
    """Formulations that the same runtimes get, for the same reason.

    Attributes:
        forms: names in `edge4d.lowering.conv.rules.FORMULATIONS`.
        to: the runtimes whose graphs may have them, and ``all`` for a graph that is meant for every runtime; by words.
        why: of what is left out.
    """

    forms: frozenset[str]
    to: str
    why: str


_ROWS = frozenset(f"{inner}+rows-{tile}" for inner in ("taps", "winograd-2", "winograd-4", "short") for tile in (2, 4))
"""Transforms along rows, on top of what is done along time."""

_TIME = frozenset({"winograd-2", "winograd-3", "winograd-4", "short"})
"""Frames are combined along time by a product with a small matrix."""

OFFERS: tuple[Offer, ...] = (
    Offer(
        frozenset({"patchify", "taps", "padded", "phases", "interleaved"}),
        "all onnxruntime openvino tensorrt rknn",
        "for every layer there is one among them, so that no runtime is left without",
    ),
    Offer(
        frozenset({"temporal"}),
        "all onnxruntime openvino tensorrt",
        "RKNN's compiler runs the changes to and from temporal packing on the CPU",
    ),
    Offer(
        frozenset({"stacked", "folded"}),
        "all onnxruntime tensorrt",
        "RKNN's compiler takes apart again what is stacked, and runs the transposes of `folded` on the CPU; both copy "
        "frames that OpenVINO takes for views in the others",
    ),
    Offer(
        _TIME,
        "all onnxruntime openvino tensorrt",
        "RKNN's compiler makes a product along time a 1x1 convolution with a change of layout before it, on the CPU",
    ),
    Offer(
        frozenset({"winograd-split"}),
        "all tensorrt rknn",
        "slices and sums of whole frames in place of that product, for NPUs; ONNX Runtime and OpenVINO get the product",
    ),
    Offer(
        frozenset({"winograd-split-4", "space-to-depth"}),
        "rknn",
        "made for NPUs, and not timed elsewhere",
    ),
    Offer(
        frozenset({"regrouped"}),
        "onnxruntime tensorrt rknn",
        "timed on CPUs only, where the gain is small: not for a graph that is meant for all",
    ),
    Offer(
        frozenset({"ranges"}),
        "openvino",
        "pays where cuts of a clip are views, as they are in OpenVINO",
    ),
    Offer(
        frozenset({"shifted"}),
        "all onnxruntime",
        "its sums pay in ONNX Runtime's blocks of channels; not timed elsewhere",
    ),
    Offer(
        _ROWS,
        "onnxruntime openvino",
        "cheap in the layouts that these give to convolutions on CPUs; GPUs have such an algorithm of their own",
    ),
)
"""The table. What is left out, a runtime handles badly, or nobody has timed it there; more in docs/engines.md."""


def _left_out(reader: str) -> frozenset[str]:
    return frozenset().union(*(offer.forms for offer in OFFERS if reader not in offer.to.split()))


RUNTIMES: dict[str, frozenset[str]] = {
    name: _left_out(name) for name in ("onnxruntime", "openvino", "tensorrt", "rknn")
}
"""The runtimes that `--for` takes, each with what it leaves out."""

GENERAL_WITHOUT = _left_out("all")
"""What is left out of a graph that is meant for all runtimes."""

GATHERS = frozenset({"rknn"})
"""Runtimes that take every n-th frame by a Gather: RKNN's compiler runs a slice with a step on the CPU."""

CHANNELS_LAST = frozenset({"openvino"})
"""Runtimes that hold the values of convolutions with channels last in memory; see `lowering/channels_last.py`."""

BLOCKED = frozenset({None, "onnxruntime"})
"""Graphs, by the runtime they are for (None: for all), that are made for ONNX Runtime's blocks of channels and its
memory: channels of depthwise convolutions fill blocks (`lowering/filling.py`), and sums add within the convolution that
is computed last (`lowering/sums.py`). Not timed on the others."""

_TRANSFORMS = _TIME | _ROWS | {"winograd-split", "winograd-split-4"}

AVOIDED: dict[str, frozenset[str]] = {"int8": _TRANSFORMS}
"""What a precision cannot bear. Winograd's sums of frames and its combined taps have ranges so unlike each other that
eight bits for all of them lose the small ones; docs/precision.md has the figures."""

MILDER: tuple[frozenset[str], ...] = (
    frozenset(),
    frozenset({"winograd-4+rows-4", "short+rows-4"}),
    frozenset({"winograd-3", "winograd-4", "winograd-split-4", "short"})
    | {name for name in _ROWS if name.endswith("-4") or not name.startswith(("taps", "winograd-2"))},
    _TRANSFORMS,
)
"""What is left out when the numbers come out too far off, step by step: first large factors along time and
rows at once, then all transforms with large factors, then every transform."""
