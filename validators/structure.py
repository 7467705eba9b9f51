"""Rules of ONNX without which nothing inferred about a graph means anything: names exist, once, before their use."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Callable, Iterator

from edge4d.validators.findings import Finding, Where, finding
from edge4d.validators.inventory import Inventory, Scope, Site, all_sites, callee, normal_domain

__all__ = ["structure_findings"]

_UPGRADE = "check it with a newer onnx: pip install --upgrade onnx"

_Place = Callable[[Site | Scope, str | None], Where]


def structure_findings(inventory: Inventory, where: _Place) -> Iterator[Finding]:
    """E4D006 invalid-graph, E4D007 section-not-checked, and E4D002 for operator sets that are yet to come.

    Args:
        inventory: the model taken apart.
        where: makes the place of a finding from a node or scope and a value's name.
    """
    for scope in (inventory.main, *inventory.functions.values()):
        yield from _names(scope, ChainMap(), where)
    if not inventory.main.output_names:
        yield finding("E4D006", "the graph has no outputs", where(inventory.main, None))
    yield from _operator_sets(inventory, where)
    if len(inventory.functions) != len(inventory.model.functions):
        yield finding("E4D006", "two local functions have the same name", where(inventory.main, None))
    if inventory.model.training_info:
        yield finding("E4D007", "training_info holds graphs of its own", where(inventory.main, None))
    for scope in inventory.functions.values():
        for attribute in getattr(scope.body, "attribute_proto", ()):
            if attribute.HasField("g") or attribute.graphs:
                message = f"the default of attribute {attribute.name!r} is a graph"
                yield finding("E4D007", message, where(scope, None), hint="give the graph where the function is called")


def _operator_sets(inventory: Inventory, where: _Place) -> Iterator[Finding]:
    """What an operator does depends on the version of its set; of a version to come nobody knows."""
    import onnx

    model = inventory.model
    if model.ir_version > onnx.IR_VERSION:
        message = f"the file is of IR version {model.ir_version}, of which onnx {onnx.__version__} may not see all"
        yield finding("E4D007", message, where(inventory.main, None), hint=_UPGRADE)
    newest = onnx.defs.onnx_opset_version()
    for scope in (inventory.main, *inventory.functions.values()):
        body = model if scope is inventory.main else scope.body
        versions = {entry.version for entry in body.opset_import if not normal_domain(entry.domain)}
        if len(versions) > 1:
            given = " and ".join(str(version) for version in sorted(versions)[:5])
            yield finding("E4D006", f"ONNX's operator set is imported as version {given}", where(scope, None))
        elif versions and min(versions) < 1:
            yield finding("E4D006", f"there is no operator set {min(versions)} of ONNX", where(scope, None))
        elif versions and max(versions) > newest:
            message = (
                f"no rank is proven: the graph is written in operator set {max(versions)} of ONNX, "
                f"of which onnx {onnx.__version__} knows {newest}"
            )
            yield finding("E4D002", message, where(scope, None), hint=_UPGRADE)
    if not any(not normal_domain(entry.domain) for entry in model.opset_import):
        nodes = (site for site in all_sites(inventory.main) if not normal_domain(site.node.domain))
        first = next((site for site in nodes if callee(site.node) not in inventory.functions), None)
        if first is not None:
            message = f"the file imports no operator set of ONNX, but has a node of it, {first.op}"
            yield finding("E4D006", message, where(first, None))


def _names(scope: Scope, outer: ChainMap[str, None], where: _Place) -> Iterator[Finding]:
    """Go through a scope in order; what is visible around it is looked up, not copied."""
    inputs = scope.input_names
    made = dict.fromkeys(inputs)
    visible = outer.new_child(made)
    if len(made) != len(inputs):
        yield finding("E4D006", "two inputs have the same name", where(scope, None))
    for name in scope.initializer_names:
        # An initializer may share its name with an input, whose default it then is.
        if name in made and name not in inputs:
            yield finding("E4D006", f"two initializers are called {name!r}", where(scope, name))
        made[name] = None
    for site in scope.sites:
        for name in site.node.input:
            if name and name not in visible:
                message = f"input {name!r} is produced nowhere, or only after this node"
                yield finding("E4D006", message, where(site, name))
        for inner in site.scopes.values():
            yield from _names(inner, visible, where)
        for name in site.node.output:
            if name and name in made:
                yield finding("E4D006", f"{name!r} is produced a second time", where(site, name))
            made[name] = None
    for name in scope.output_names:
        if name not in visible:
            yield finding("E4D006", f"output {name!r} is produced nowhere", where(scope, name))
