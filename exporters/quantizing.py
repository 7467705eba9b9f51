"""int8 as pairs of QuantizeLinear and DequantizeLinear, by ONNX Runtime's quantiser.

Activations and weights are signed and symmetric, for TensorRT takes nothing else and the others take that too; weights
get a scale for each output channel, biases stay in float32. Graph outputs are not quantised: nothing is gained by it.
"""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge4d.errors import ExportError, UsageError
from edge4d.exporters.onnx import OnnxGraph
from edge4d.exporters.precision import inherit_layers, kept_nodes
from edge4d.quiet import quiet

if TYPE_CHECKING:
    import numpy as np
    import onnx

    from edge4d.exporters.precision import Precision

__all__ = ["QUANTISED", "to_int8"]

QUANTISED = (
    # what computes
    *("Conv", "ConvTranspose", "Gemm", "MatMul", "Add"),
    # what only moves or chooses, so that values stay in 8 bits between two of the former
    *("Relu", "MaxPool", "AveragePool", "GlobalAveragePool", "Concat", "Split", "Slice", "Pad"),
    *("Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten"),
)
"""Operators that are quantised. Softmax, norms and gates lose too much for what they cost."""

_HEAVY = ("Conv", "ConvTranspose", "Gemm", "MatMul")

_LARGE = 2**31 - 2**27
"""Bytes of weights above which they lie beside the protobuf on their way through the quantiser."""


def to_int8(graph: OnnxGraph, precision: Precision, feeds: Sequence[Mapping[str, np.ndarray]]) -> OnnxGraph:
    """Run the graph on the clips, draw ranges, put the pairs in; see `edge4d.exporters.precision.convert`."""
    import onnx

    from edge4d.exporters.writing import write_model

    if not feeds:
        raise UsageError("int8 needs calibration clips, and there is none", hint="--calib CLIPS.npz|FOLDER")
    kept = set(kept_nodes(graph.proto, precision.keep_fp32))
    heavy = [node.name for node in graph.proto.graph.node if node.op_type in _HEAVY and node.name not in kept]
    if not heavy:
        raise UsageError(
            f"nothing to quantise: the graph has no {', '.join(_HEAVY)}" + (" outside --keep-fp32" if kept else ""),
            hint="use --precision fp16",
        )
    _plain_padding(graph, kept)
    with tempfile.TemporaryDirectory(prefix="edge4d-") as folder:
        try:
            source, target = Path(folder, "float.onnx"), Path(folder, "int8.onnx")
            write_model(graph, source, external_above=_LARGE)
            _quantise(source, target, precision, sorted(kept), feeds, external=graph.weight_bytes > _LARGE)
            proto = onnx.load(target)
        except OSError as error:
            raise ExportError(f"cannot quantise in {folder}: {error}", hint="set TMPDIR to a larger disk") from error
    left = [entry for entry in proto.metadata_props if not entry.key.startswith("onnx.")]  # notes of the tool to itself
    del proto.metadata_props[:]
    proto.metadata_props.extend(left)
    _release_outputs(proto)
    inherit_layers(proto)
    return _split(proto)


class _Reader:
    """The clips, one at a time, as the quantiser asks for them."""

    def __init__(self, feeds: Sequence[Mapping[str, np.ndarray]]) -> None:
        self._feeds = feeds
        self.set_range(0, len(feeds))

    def __len__(self) -> int:
        return len(self._feeds)

    def set_range(self, start_index: int, end_index: int) -> None:
        self._waiting = iter(self._feeds[start_index:end_index])

    def get_next(self) -> dict[str, np.ndarray] | None:
        found = next(self._waiting, None)
        return None if found is None else dict(found)


def _quantise(
    source: Path,
    target: Path,
    precision: Precision,
    kept: list[str],
    feeds: Sequence[Mapping[str, np.ndarray]],
    *,
    external: bool,
) -> None:
    tools: Any = import_module("onnxruntime.quantization")
    methods = tools.CalibrationMethod
    try:
        with _silence():
            tools.quantize_static(
                str(source),
                str(target),
                _reader(tools, feeds),
                quant_format=tools.QuantFormat.QDQ,
                op_types_to_quantize=list(QUANTISED),
                per_channel=True,
                activation_type=tools.QuantType.QInt8,
                weight_type=tools.QuantType.QInt8,
                nodes_to_exclude=kept,
                use_external_data_format=external,
                calibrate_method={
                    "minmax": methods.MinMax,
                    "entropy": methods.Entropy,
                    "percentile": methods.Percentile,
                }[precision.method],
                extra_options={
                    "ActivationSymmetric": True,
                    "WeightSymmetric": True,
                    "QuantizeBias": False,  # TensorRT takes no int32 ones
                    "CalibStridedMinMax": 1,  # ranges are drawn after every clip: memory does not grow with them
                },
            )
    except OSError:
        raise
    except Exception as error:  # of ONNX Runtime, which has no type of its own for it
        raise ExportError(
            f"ONNX Runtime's quantiser fails: {type(error).__name__}: {str(error).strip()[:1000]}",
            hint="try another --calibration, keep what it names in float32 with --keep-fp32, or report it",
        ) from error


def _reader(tools: Any, feeds: Sequence[Mapping[str, np.ndarray]]) -> Any:
    """Its own base class is asked for, and known only where ONNX Runtime is installed."""
    return type("Reader", (_Reader, tools.CalibrationDataReader), {})(feeds)


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """The quantiser prints and logs for every clip; stdout is for results."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with quiet(), contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(before)


def _plain_padding(graph: OnnxGraph, kept: set[str]) -> None:
    """Zero is what Pad writes of itself: said once more, TensorRT refuses it in 8 bits.

    Any other number, -inf above all, has no place in a range that the activations set: such a Pad stays in float32.
    """
    from onnx import numpy_helper

    small = {tensor.name: tensor for tensor in graph.proto.graph.initializer}
    for node in graph.proto.graph.node:
        if node.op_type != "Pad" or len(node.input) < 3 or not node.input[2]:
            continue
        number = small.get(node.input[2])
        if number is not None and not numpy_helper.to_array(number).any():
            node.input[2] = ""
            if len(node.input) == 3:
                del node.input[2]
        else:
            kept.add(node.name)
    _drop_unused(graph.proto)


def _release_outputs(proto: onnx.ModelProto) -> None:
    """Take the last pair away where it lies directly before a graph output."""
    maker = {name: node for node in proto.graph.node for name in node.output}
    readers: dict[str, int] = {value.name: 1 for value in proto.graph.output}
    for node in proto.graph.node:
        for name in node.input:
            readers[name] = readers.get(name, 0) + 1
    for value in proto.graph.output:
        back = maker.get(value.name)
        narrow = maker.get(back.input[0]) if back is not None and back.op_type == "DequantizeLinear" else None
        if back is None or narrow is None or narrow.op_type != "QuantizeLinear" or readers[back.input[0]] != 1:
            continue
        own, inner = value.name, narrow.input[0]
        if inner not in maker or readers.get(inner, 0) != 1 or readers[own] != 1:
            continue
        for i, name in enumerate(maker[inner].output):
            if name == inner:
                maker[inner].output[i] = own
        for node in (back, narrow):
            proto.graph.node.remove(node)
    _drop_unused(proto)


def _drop_unused(proto: onnx.ModelProto) -> None:
    used = {name for node in proto.graph.node for name in node.input}
    made = {name for node in proto.graph.node for name in node.output} | used
    used |= {value.name for value in proto.graph.output}
    for entries, names in ((proto.graph.initializer, used), (proto.graph.value_info, made)):
        left = [entry for entry in entries if entry.name in names]
        del entries[:]
        entries.extend(left)


def _split(proto: onnx.ModelProto) -> OnnxGraph:
    """Take the weights of a kilobyte and more out of the protobuf again."""
    from onnx import numpy_helper

    weights = {t.name: numpy_helper.to_array(t) for t in proto.graph.initializer if len(t.raw_data) >= 1024}
    left = [tensor for tensor in proto.graph.initializer if tensor.name not in weights]
    del proto.graph.initializer[:]
    proto.graph.initializer.extend(left)
    return OnnxGraph(proto, weights)
