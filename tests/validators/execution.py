"""The true rank of every value of a model, by running it in ONNX Runtime.

Each value at any depth gets a probe, ``Size(Shape(value))``, a scalar. Scalars are handed upwards out of branches
(-1 where the other branch was taken) and loops (the greatest over the rounds), and leave the model as outputs.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, inliner, numpy_helper, shape_inference

from edge4d.validators.inventory import Inventory, Scope, Site, normal_domain, take_inventory

__all__ = ["observe"]

Key = tuple[str, str]
"""(path of the graph, name of the value) as the gate's findings state them."""

_NO_TENSORS = {"SequenceConstruct", "SequenceInsert", "SequenceErase", "SequenceEmpty", "SplitToSequence", "Optional"}
_SMALL = {TensorProto.INT4, TensorProto.UINT4}  # for which ONNX Runtime has no Shape
_ENTERED = {"If", "Loop", "Scan"}


def observe(proto: ModelProto, feeds: Mapping[str, Any] | None = None, *, seed: int = 0) -> dict[Key, set[int]]:
    """Ranks that the values have when the model runs, with each boolean input both true and false.

    Values inside local functions have the names that ONNX's inliner gives them. Sequences and optionals are left out.

    Args:
        proto: is not changed.
        feeds: inputs by name: an array, or the shape of one.
        seed: of the other inputs.

    Raises:
        Exception: whatever ONNX Runtime says when it cannot run the model.
    """
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    ort.set_default_logger_severity(4)
    # As it is first: a probed model that runs proves little if the model itself does not.
    ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    probed, keys = _probed(proto)
    session = ort.InferenceSession(probed.SerializeToString(), options, providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(seed)
    seen: dict[Key, set[int]] = {}
    switches = [port.name for port in session.get_inputs() if port.type == "tensor(bool)"]
    for truths in product((True, False), repeat=len(switches)):
        arrays = _inputs(probed, feeds or {}, rng, dict(zip(switches, truths, strict=True)))
        names = [port.name for port in session.get_inputs()]
        results = session.run(list(keys) or None, {name: arrays[name] for name in names})
        for key, rank in zip(keys.values(), results, strict=bool(keys)):
            if int(rank) >= 0:
                seen.setdefault(key, set()).add(int(rank))
        for name, array in arrays.items():
            if isinstance(array, np.ndarray):
                seen.setdefault(("graph", name), set()).add(array.ndim)
    return seen


def _inputs(
    proto: ModelProto, feeds: Mapping[str, Any], rng: np.random.Generator, truths: Mapping[str, bool]
) -> dict[str, Any]:
    weights = {tensor.name for tensor in proto.graph.initializer}
    sizes: dict[str, int] = {}
    arrays: dict[str, Any] = {}
    for port in proto.graph.input:
        given = feeds.get(port.name)
        if port.name in weights and given is None:
            continue
        if isinstance(given, (np.ndarray, list)):
            arrays[port.name] = given
            continue
        tensor = port.type.tensor_type
        dims = [
            d.dim_value if d.HasField("dim_value") else sizes.setdefault(d.dim_param, int(rng.integers(1, 4)))
            for d in tensor.shape.dim
        ]
        arrays[port.name] = _array(
            tensor.elem_type, dims if given is None else list(given), rng, truths.get(port.name, True)
        )
    return arrays


def _array(elem: int, dims: list[int], rng: np.random.Generator, truth: bool) -> np.ndarray:
    if elem == TensorProto.BOOL:
        return np.full(dims, truth)
    if elem == TensorProto.STRING:
        return np.full(dims, "a", dtype=object)
    dtype = helper.tensor_dtype_to_np_dtype(elem)
    if elem in (TensorProto.INT64, TensorProto.INT32):
        return np.full(dims, 2, dtype)
    return rng.integers(0, 3, dims).astype(dtype)


def _probed(proto: ModelProto) -> tuple[ModelProto, dict[str, Key]]:
    """A copy with probes, and what each of its new outputs tells of."""
    copy = onnx.ModelProto()
    copy.CopyFrom(inliner.inline_local_functions(proto) if proto.functions else proto)
    kinds = _kinds(copy)
    inventory = take_inventory(copy, "model")
    counter = iter(range(10**9))
    found: dict[str, Key] = _probe_scope(inventory, inventory.main, kinds, counter)
    for name in found:
        copy.graph.output.append(helper.make_tensor_value_info(name, TensorProto.INT64, []))
    del copy.graph.value_info[:]
    return copy, found


def _kinds(copy: ModelProto) -> dict[str, str]:
    """Which values are no tensors, as far as ONNX tells."""
    kinds: dict[str, str] = {}
    try:
        inferred = shape_inference.infer_shapes(copy)
    except Exception:  # a model may be beyond it and run all the same
        inferred = copy
    for scope in take_inventory(inferred, "model").scopes:
        if scope.graph is not None:
            for entry in (*scope.graph.input, *scope.graph.output, *scope.graph.value_info):
                kind = entry.type.WhichOneof("value") or "tensor_type"
                kinds[entry.name] = "small" if entry.type.tensor_type.elem_type in _SMALL else kind
    return kinds


def _probe_scope(inventory: Inventory, scope: Scope, kinds: Mapping[str, str], counter: Any) -> dict[str, Key]:
    """Add probes to a graph and all within it; returns the names of the scalars at this level."""
    found: dict[str, Key] = {}
    body = scope.body
    nodes = list(body.node)
    del body.node[:]
    if scope is not inventory.main:
        for name in scope.input_names:
            _probe(body.node, scope, name, kinds, counter, found)
    for site, source in zip(scope.sites, nodes, strict=True):
        copy = body.node.add()
        copy.CopyFrom(source)
        _rebind(site, copy)
        inner = {key: _probe_scope(inventory, s, kinds, counter) for key, s in site.scopes.items()}
        if copy.op_type in _ENTERED and not normal_domain(copy.domain):
            found |= _lift(body.node, site, copy, inner, counter)
        for name in source.output:
            if name and source.op_type not in _NO_TENSORS:
                _probe(body.node, scope, name, kinds, counter, found)
    return found


def _rebind(site: Site, copy: NodeProto) -> None:
    """Point the scopes of a node at the graphs of its copy."""
    for (name, i), inner in site.scopes.items():
        attribute = next(a for a in copy.attribute if a.name == name)
        inner.body = attribute.g if attribute.HasField("g") else attribute.graphs[i]


def _probe(nodes: Any, scope: Scope, name: str, kinds: Mapping[str, str], counter: Any, found: dict[str, Key]) -> None:
    if kinds.get(name, "tensor_type") != "tensor_type":
        return
    out = f"probe.{next(counter)}"
    nodes.add(op_type="Shape", input=[name], output=[f"{out}.shape"])
    nodes.add(op_type="Size", input=[f"{out}.shape"], output=[out])
    found[out] = (scope.path, name)


def _lift(
    nodes: Any, site: Site, copy: NodeProto, inner: Mapping[tuple[str, int], dict[str, Key]], counter: Any
) -> dict[str, Key]:
    """Hand the scalars of the bodies on to the graph of the node."""
    found: dict[str, Key] = {}
    first = next(iter(site.scopes.values())).body
    while len(copy.output) < len(first.output) - (copy.op_type == "Loop"):  # outputs at the end may be left out
        copy.output.append("")
    for key, scalars in inner.items():
        for name, told in scalars.items():
            for other, scope in site.scopes.items():
                graph = scope.body
                if other == key:
                    graph.output.append(helper.make_tensor_value_info(name, TensorProto.INT64, []))
                else:
                    none = f"{name}.none"
                    constant = graph.node.add(op_type="Constant", output=[none])
                    constant.attribute.append(
                        helper.make_attribute("value", numpy_helper.from_array(np.array(-1, np.int64)))
                    )
                    graph.output.append(helper.make_tensor_value_info(none, TensorProto.INT64, []))
            out = f"probe.{next(counter)}"
            found[out] = told
            if copy.op_type == "If":
                copy.output.append(out)
                continue
            copy.output.append(f"{out}.all")
            _reduce(nodes, f"{out}.all", out)
            for attribute in copy.attribute:
                if attribute.name in ("scan_output_axes", "scan_output_directions"):
                    attribute.ints.append(0)
    return found


def _reduce(nodes: Any, name: str, out: str) -> None:
    """The greatest of a list, -1 for an empty one."""
    least = nodes.add(op_type="Constant", output=[f"{out}.least"])
    least.attribute.append(helper.make_attribute("value", numpy_helper.from_array(np.array([-1], np.int64))))
    both = nodes.add(op_type="Concat", input=[f"{out}.least", name], output=[f"{out}.both"])
    both.attribute.append(helper.make_attribute("axis", 0))
    top = nodes.add(op_type="ReduceMax", input=[f"{out}.both"], output=[out])
    top.attribute.append(helper.make_attribute("keepdims", 0))
