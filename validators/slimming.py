"""A light copy of a model for shape inference: no weights, no claims about shapes, every node with its number.

What the file says about its own values (``value_info``, shapes of outputs and of subgraph inputs) is left out, since
shape inference would believe it. Numbers survive inlining, so whatever is inferred finds back to the node in the file.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from math import prod
from typing import TYPE_CHECKING, cast

from edge4d.validators.inventory import FunctionId, Inventory, Scope, Site, all_sites, callee, normal_domain
from edge4d.validators.values import forget_long_names

if TYPE_CHECKING:
    import onnx

__all__ = ["number_of", "result_of", "slim_function_call", "slim_model"]

_NUMBER = "edge4d.number"
_RESULT = "edge4d.result"
_SMALL = 1024  # elements; shapes, axes, pads and scales are far smaller, weights that matter are larger


def slim_model(inventory: Inventory) -> onnx.ModelProto:
    """The copy of the whole model; the inventory's model is not changed."""
    model = _frame(inventory, inventory.main, inventory.model)
    source, graph = inventory.model.graph, model.graph
    for value in source.input:
        port = graph.input.add()
        port.CopyFrom(value)
        forget_long_names(port.type)
    _add_body(graph, inventory, inventory.main)
    # Since IR 4 an initializer that is an input too is a default that a user may override: no constant.
    if source_ir(inventory) >= 4:
        inputs = {value.name for value in source.input}
        kept = [tensor for tensor in graph.initializer if tensor.name not in inputs]
        del graph.initializer[:]
        graph.initializer.extend(kept)
    return model


def source_ir(inventory: Inventory) -> int:
    """The file's IR version."""
    return int(inventory.model.ir_version)


def slim_function_call(
    inventory: Inventory,
    scope: Scope,
    types: Iterable[onnx.TypeProto | None],
    attributes: Mapping[str, onnx.AttributeProto],
) -> onnx.ModelProto:
    """A function's body as a model of its own, in the function's own operator sets.

    Args:
        inventory: the model it belongs to.
        scope: the function.
        types: of its inputs at one call, in order; None where unknown, missing at the end where the call has fewer.
        attributes: of the call, by name; the function's defaults stand in for those not given.
    """
    import onnx

    function = scope.body
    assert isinstance(function, onnx.FunctionProto)
    model = _frame(inventory, scope, function)
    known = list(types)
    for i, name in enumerate(function.input):
        value = model.graph.input.add(name=name)
        type_proto = known[i] if i < len(known) else None
        if type_proto is not None:
            value.type.CopyFrom(type_proto)
        else:
            # Inference passes over an operator whose input has no element type, even where the rank needs none.
            value.type.tensor_type.elem_type = onnx.TensorProto.FLOAT
    _add_body(model.graph, inventory, scope)
    defaults = {attribute.name: attribute for attribute in function.attribute_proto}
    _bind(model.graph.node, {**defaults, **attributes})
    return model


def result_of(node: onnx.NodeProto) -> tuple[int, int] | None:
    """(number of a call in the file, which of its outputs) that a marker hands on; None for any other node."""
    for entry in node.metadata_props:
        if entry.key == _RESULT:
            site, _, i = entry.value.partition(":")
            return int(site), int(i)
    return None


def number_of(node: onnx.NodeProto) -> int | None:
    """Which node of the file a node of the copy stands for; None for one that inlining added."""
    for entry in node.metadata_props:
        if entry.key == _NUMBER:
            return int(entry.value)
    return None


def _frame(inventory: Inventory, root: Scope, owner: onnx.ModelProto | onnx.FunctionProto) -> onnx.ModelProto:
    """Everything but the main graph: operator sets, and the functions that may be inlined into a scope.

    A function written in another version of ONNX's operator set is never inlined, so it and what it alone calls are
    left out.
    """
    import onnx

    model = onnx.ModelProto(ir_version=max(source_ir(inventory), 4))
    model.opset_import.extend(owner.opset_import)
    model.graph.name = "slim"
    for scope in _reachable(inventory, root, _version(owner)):
        source = scope.body
        assert isinstance(source, onnx.FunctionProto)
        function = model.functions.add(name=source.name, domain=source.domain, overload=source.overload)
        function.input.extend(source.input)
        function.output.extend(source.output)
        function.attribute.extend(source.attribute)
        function.opset_import.extend(source.opset_import)
        for attribute in source.attribute_proto:
            _copy_attribute(function.attribute_proto.add(), attribute, inventory, None)
        _copy_nodes(function, inventory, scope)
        _import_own_operators(function, model)
    _import_own_operators(model, inventory.model)
    return model


def _version(owner: onnx.ModelProto | onnx.FunctionProto) -> int | None:
    return next((int(entry.version) for entry in owner.opset_import if not normal_domain(entry.domain)), None)


def _reachable(inventory: Inventory, root: Scope, version: int | None) -> Iterator[Scope]:
    """Functions that a scope calls, and that those call, as far as all are in the same version of the operator set."""
    seen: set[FunctionId] = set()
    waiting = [root]
    while waiting:
        for site in all_sites(waiting.pop()):
            key = callee(site.node)
            scope = inventory.functions.get(key)
            if scope is None or key in seen:
                continue
            seen.add(key)
            if _version(cast("onnx.FunctionProto", scope.body)) in (version, None) or version is None:
                waiting.append(scope)
                yield scope


def _add_body(graph: onnx.GraphProto, inventory: Inventory, scope: Scope) -> None:
    """Nodes, weights without their numbers, and outputs without types."""
    import onnx

    if (source := scope.graph) is not None:
        for tensor in source.initializer:
            _copy_tensor(graph.initializer.add(), tensor)
        for sparse in source.sparse_initializer:
            # As a dense one: shape inference takes a sparse one for the 1-D list of its values.
            dense = graph.initializer.add(name=sparse.values.name, data_type=sparse.values.data_type)
            dense.data_location = onnx.TensorProto.EXTERNAL
            dense.dims.extend(sparse.dims)
    for name in scope.output_names:
        graph.output.add(name=name)
    _copy_nodes(graph, inventory, scope)


def _import_own_operators(target: onnx.ModelProto | onnx.FunctionProto, model: onnx.ModelProto) -> None:
    """Markers are operators of ONNX, which a model may do without."""
    from onnx import defs

    versions = {normal_domain(entry.domain): entry.version for entry in model.opset_import}
    if "" not in {normal_domain(entry.domain) for entry in target.opset_import}:
        target.opset_import.add(domain="", version=versions.get("", defs.onnx_opset_version()))


def _copy_nodes(target: onnx.GraphProto | onnx.FunctionProto, inventory: Inventory, scope: Scope) -> None:
    """Copy the nodes; a call, which inlining takes away, hands its results on through markers, which stay."""
    for site in scope.sites:
        copy = target.node.add()
        _copy_node(copy, inventory, site)
        if not inventory.functions or callee(site.node) not in inventory.functions:
            continue
        for i, name in enumerate(site.node.output):
            if name:
                copy.output[i] = f"edge4d.call.{site.index}.{i}"
                marker = target.node.add(op_type="Identity", input=[copy.output[i]], output=[name])
                marker.metadata_props.add(key=_RESULT, value=f"{site.index}:{i}")


def _copy_node(target: onnx.NodeProto, inventory: Inventory, site: Site) -> None:
    source = site.node
    target.op_type, target.domain, target.name = source.op_type, source.domain, source.name
    target.overload = source.overload
    target.input.extend(source.input)
    target.output.extend(source.output)
    target.metadata_props.add(key=_NUMBER, value=str(site.index))
    for attribute in source.attribute:
        _copy_attribute(target.attribute.add(), attribute, inventory, site)


def _copy_attribute(
    target: onnx.AttributeProto, source: onnx.AttributeProto, inventory: Inventory, site: Site | None
) -> None:
    heavy = source.HasField("t") or source.tensors or source.HasField("sparse_tensor") or source.sparse_tensors
    nested = source.HasField("g") or source.graphs
    if not heavy and not nested:
        target.CopyFrom(source)
        return
    target.name, target.type, target.ref_attr_name = source.name, source.type, source.ref_attr_name
    if source.HasField("t"):
        _copy_tensor(target.t, source.t)
    for tensor in source.tensors:
        _copy_tensor(target.tensors.add(), tensor)
    if source.HasField("sparse_tensor"):
        _copy_sparse(target.sparse_tensor, source.sparse_tensor)
    for sparse in source.sparse_tensors:
        _copy_sparse(target.sparse_tensors.add(), sparse)
    if site is None:
        return
    for (name, i), scope in site.scopes.items():
        if name == source.name:
            graph = target.graphs.add() if source.graphs else target.g
            graph.name = f"{name}{i}"
            for formal in scope.input_names:
                graph.input.add(name=formal)
            _add_body(graph, inventory, scope)


def _copy_tensor(target: onnx.TensorProto, source: onnx.TensorProto) -> None:
    """Whole when it is small and in the file; else without its numbers, marked as lying elsewhere.

    The mark matters: shape inference takes an empty tensor for one of rank 0, but leaves an external one alone.
    """
    from onnx import TensorProto

    if source.data_location != TensorProto.EXTERNAL and 0 <= prod(source.dims) <= _SMALL:
        target.CopyFrom(source)
        return
    target.name, target.data_type, target.data_location = source.name, source.data_type, TensorProto.EXTERNAL
    target.dims.extend(source.dims)


def _copy_sparse(target: onnx.SparseTensorProto, source: onnx.SparseTensorProto) -> None:
    target.dims.extend(source.dims)
    _copy_tensor(target.values, source.values)
    _copy_tensor(target.indices, source.indices)


def _bind(nodes: Iterable[onnx.NodeProto], attributes: Mapping[str, onnx.AttributeProto]) -> None:
    """Replace references to the call's attributes by their values; one that has none is left out, as ONNX says."""
    for node in nodes:
        kept = []
        for attribute in node.attribute:
            if attribute.ref_attr_name:
                if attribute.ref_attr_name not in attributes:
                    continue
                name = attribute.name
                attribute.CopyFrom(attributes[attribute.ref_attr_name])
                attribute.name = name
            for graph in [attribute.g] if attribute.HasField("g") else attribute.graphs:
                _bind(graph.node, attributes)
            kept.append(attribute)
        # Taken out and put back as copies: protobuf has no way to remove by condition.
        copies = [type(attribute).FromString(attribute.SerializeToString()) for attribute in kept]
        del node.attribute[:]
        node.attribute.extend(copies)
