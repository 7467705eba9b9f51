"""Rules of ONNX without which nothing inferred about a graph means anything: names exist, once, before their use."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Callable, Iterator

from edge4d.validators.findings import Finding, Where, finding
from edge4d.validators.inventory import Inventory, Scope, Site

__all__ = ["structure_findings"]

_Place = Callable[[Site | Scope, str | None], Where]


def structure_findings(inventory: Inventory, where: _Place) -> Iterator[Finding]:
    """E4D006 invalid-graph and E4D007 section-not-checked.

    Args:
        inventory: the model taken apart.
        where: makes the place of a finding from a node or scope and a value's name.
    """
    for scope in (inventory.main, *inventory.functions.values()):
        yield from _names(scope, ChainMap(), where)
    if not inventory.main.output_names:
        yield finding("E4D006", "the graph has no outputs", where(inventory.main, None))
    if len(inventory.functions) != len(inventory.model.functions):
        yield finding("E4D006", "two local functions have the same name", where(inventory.main, None))
    if inventory.model.training_info:
        yield finding("E4D007", "training_info holds graphs of its own", where(inventory.main, None))


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
