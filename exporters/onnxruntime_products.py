"""Products of 8 bits, which some processors add in pairs that 16 bits cannot hold.

    255 · 127 + 255 · 127 = 64770   →   32767

On x86 without VNNI (AVX2 alone, AVX-512 of before Cascade Lake) ONNX Runtime multiplies unsigned activations by signed
weights with `vpmaddubsw`, which cuts each sum of two products off there, without a word: errors of tens of percent. By
`session.x64quantprecision` it holds such weights as unsigned ones, 128 higher with a zero point 128 higher: the same
numbers, from kernels that add in 32 bits. Weights within ±64 stay, for their sums fit.

It acts where a session optimises (levels ``extended`` and ``all``), which is where quantisers become operators of 8
bits at all. It does not mend what an engine holds already: not at lower levels, not in an ``.ort``, not operators whose
channels lie last. So an engine with signed weights, as they are where nothing saturates, says so in its metadata, and
is refused where it would be wrong; one of level ``extended``, for any processor, is made with the switch on.
"""

from __future__ import annotations

import base64
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from edge4d.errors import ValidationError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from onnx import GraphProto, NodeProto, TensorProto

__all__ = ["ENTRY", "PRODUCTS", "UNFUSED", "check_products", "mark_products", "pairs_saturate"]

ENTRY = "session.x64quantprecision"
"""ONNX Runtime's own switch. It is left alone where nothing saturates, for it may trade VNNI's kernels for slower ones
there (ONNX Runtime 1.25 and later)."""

UNFUSED: Mapping[str, str] = {ENTRY: "0", "session.disable_quant_qdq": "1"}
"""Settings by which quantisers are computed as the graph says, around operators of float32."""

PRODUCTS = "edge4d.engine.onnxruntime.products"
"""Metadata key of an engine whose products are wrong where pairs of them are added in 16 bits; says ``int32``."""

PROBE = base64.b64decode(
    "CAg6XAoYCgFhCgFiEgF5Ig1NYXRNdWxJbnRlZ2VyEgFnWhMKAWESDgoMCAISCAoCCAQKAghAWhMKAWISDgoMCAMSCAoCCEAKAgggYhMKAXkSDgoMCAYS"
    "CAoCCAQKAgggQgQKABAN"
)
"""An ONNX model: MatMulInteger of a (4, 64) uint8 and b (64, 32) int8. Kept as bytes, for a session needs no onnx."""

_PLACES: Mapping[str, tuple[tuple[int, int | None], ...]] = {
    "QLinearConv": ((3, 2),),
    "QLinearMatMul": ((3, 2),),
    "QGemm": ((3, 2),),
    "MatMulInteger": ((1, 2),),
    "MatMulIntegerToFloat": ((1, 4),),
    "DynamicQuantizeMatMul": ((1, None),),
    "DynamicQuantizeLSTM": ((1, None), (2, None)),
    "QAttention": ((1, 6),),
}
"""Of operators of 8 bits: the inputs that hold weights, and the zero point, which tells the type, of what they are
multiplied by (None: always unsigned)."""

_FITS = 64
"""Weights up to which two products with a byte fit in 16 bits: 2 · 255 · 64 = 32640."""


@lru_cache(maxsize=1)
def pairs_saturate() -> bool:
    """Whether ONNX Runtime cuts sums of two products off here: asked by having it multiply, whatever the processor."""
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 4
    settings.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(PROBE, settings, providers=["CPUExecutionProvider"])
    feeds = {"a": np.full((4, 64), 255, np.uint8), "b": np.full((64, 32), 127, np.int8)}
    return bool((session.run(None, feeds)[0] != 64 * 255 * 127).any())


def check_products(path: Path, metadata: Mapping[str, str], settings: Mapping[str, str]) -> None:
    """Refuse an engine whose products would be cut off here.

    Args:
        path: for the message.
        metadata: what the engine carries.
        settings: of its session; who sets `ENTRY` to 0 wants the kernels that saturate.

    Raises:
        ValidationError: its weights are for a processor that adds products in 32 bits.
    """
    if PRODUCTS in metadata and settings.get(ENTRY) != "0" and pairs_saturate():
        raise ValidationError(
            f"{path} holds 8-bit weights for a processor that adds their products in 32 bits; this one adds pairs of "
            "them in 16, and would compute wrong numbers",
            hint="build it again, here or with --level extended",
        )


def mark_products(model: Path) -> None:
    """Write into an ONNX file that operators multiply bytes by weights which some processors add wrongly, if they do.

    Args:
        model: changed in place; a mark that is no longer true, of the engine that it was made from, goes.
    """
    import onnx

    loaded = onnx.load(model, load_external_data=False)
    kept = [entry for entry in loaded.metadata_props if entry.key != PRODUCTS]
    marked, signed = len(kept) < len(loaded.metadata_props), _holds_signed(loaded.graph, str(model.parent))
    if marked == signed:
        return
    if signed:
        loaded.metadata_props.add(key=PRODUCTS, value="int32")
    else:
        del loaded.metadata_props[:]
        loaded.metadata_props.extend(kept)
    model.write_bytes(loaded.SerializeToString())


def _holds_signed(graph: GraphProto, folder: str) -> bool:
    from onnx import TensorProto, numpy_helper

    for node, tensors in _nodes(graph, {}):
        for place, zero in _PLACES.get(node.op_type, ()):
            weight, other = _constant(node, place, tensors), _constant(node, zero, tensors)
            if weight is None or weight.data_type != TensorProto.INT8:
                continue
            if other is not None and other.data_type == TensorProto.INT8:
                continue  # signed numbers by signed ones have kernels of their own, which add in 32 bits
            if np.abs(numpy_helper.to_array(weight, base_dir=folder).astype(np.int16)).max(initial=0) > _FITS:
                return True
    return False


def _nodes(
    graph: GraphProto, outer: Mapping[str, TensorProto]
) -> Iterator[tuple[NodeProto, Mapping[str, TensorProto]]]:
    """All nodes, those of inner graphs too, each with the constants that it can read."""
    tensors = {**outer, **{tensor.name: tensor for tensor in graph.initializer}}
    for node in graph.node:
        yield node, tensors
        for attribute in node.attribute:
            for inner in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else ())):
                yield from _nodes(inner, tensors)


def _constant(node: NodeProto, place: int | None, tensors: Mapping[str, TensorProto]) -> TensorProto | None:
    return None if place is None or place >= len(node.input) else tensors.get(node.input[place])
