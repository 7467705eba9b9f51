"""Every graph, subgraph and function body of a model, and every node in them, each with a number and a path."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from edge4d.errors import ValidationError

if TYPE_CHECKING:
    import onnx

__all__ = ["FunctionId", "Inventory", "Scope", "Site", "all_sites", "callee", "normal_domain", "take_inventory"]

FunctionId = tuple[str, str, str]
"""(domain, name, overload) of a local function."""

_DEEPEST = 32  # graphs within graphs; in a file, protobuf itself stops there
_LONGEST = 100  # functions that call each other; inlining takes the square of it, and C++ a stack frame each
_LONGEST_NAME = 2000  # characters; it stands in every finding about its node, of which a few bytes more make another
_LONGEST_PATH = 2000
_MOST_NODES = 200_000  # after inlining; a file of a few hundred bytes can ask for 2**100


@dataclass(eq=False)
class Scope:
    """One list of nodes: the main graph, a branch or body of a node, or the body of a local function.

    Attributes:
        path: for people, e.g. ``graph / If 'gate' / then_branch`` or ``function my::Block``.
        body: the graph or function itself, as it stands in the file.
        parent: the scope whose names are visible here too; None for the main graph and functions.
        sites: its nodes in order.
        owner: of a subgraph, its node and (attribute name, number within the attribute).
    """

    path: str
    body: onnx.GraphProto | onnx.FunctionProto
    parent: Scope | None
    sites: list[Site] = field(default_factory=list)
    owner: tuple[Site, tuple[str, int]] | None = None

    @property
    def graph(self) -> onnx.GraphProto | None:
        """The body when it is a graph, None when it is a function's."""
        import onnx

        return self.body if isinstance(self.body, onnx.GraphProto) else None

    @property
    def input_names(self) -> list[str]:
        """Names of the formal inputs in order."""
        return [entry if isinstance(entry, str) else entry.name for entry in self.body.input]

    @property
    def output_names(self) -> list[str]:
        """Names of the outputs in order."""
        return [entry if isinstance(entry, str) else entry.name for entry in self.body.output]

    @property
    def initializer_names(self) -> list[str]:
        """Names of the weights, dense then sparse."""
        if (graph := self.graph) is None:
            return []
        return [t.name for t in graph.initializer] + [t.values.name for t in graph.sparse_initializer]


@dataclass(eq=False)
class Site:
    """One node of the file.

    Attributes:
        index: its number, unique in the model.
        place: its number in its own scope.
        scope: where it stands.
        node: the node itself.
        scopes: its subgraphs by (attribute name, number within the attribute).
    """

    index: int
    place: int
    scope: Scope
    node: onnx.NodeProto
    scopes: dict[tuple[str, int], Scope] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """The node's name, or its place in its graph."""
        return self.node.name or f"#{self.place}"

    @property
    def op(self) -> str:
        """The operator, with its domain unless that is ONNX's own."""
        domain = normal_domain(self.node.domain)
        return _printable(f"{domain}::{self.node.op_type}" if domain else self.node.op_type)


@dataclass(eq=False)
class Inventory:
    """A model taken apart.

    Attributes:
        model: the model, never changed.
        main: the scope of the main graph.
        functions: the scopes of the local functions.
        scopes: all of them, the main graph first.
        sites: all nodes; ``sites[i].index == i``.
    """

    model: onnx.ModelProto
    main: Scope
    functions: dict[FunctionId, Scope]
    scopes: list[Scope]
    sites: list[Site]

    def callers_of_nothing(self) -> list[FunctionId]:
        """Functions that no node calls; every other function is called from the main graph or from one of these."""
        called = {callee(site.node) for site in self.sites}
        return [name for name in self.functions if name not in called]


def normal_domain(domain: str) -> str:
    """ONNX's own domain has two spellings."""
    return "" if domain == "ai.onnx" else domain


def callee(node: onnx.NodeProto) -> FunctionId:
    """The function that a node would call if there were one."""
    return normal_domain(node.domain), node.op_type, node.overload


def take_inventory(model: onnx.ModelProto, name: str) -> Inventory:
    """Walk the model once.

    Args:
        model: is not changed.
        name: how messages call it.

    Raises:
        ValidationError: a function that calls itself, or calls that multiply beyond every measure.
    """
    main = Scope("graph", model.graph, None)
    functions = {}
    _refuse_names(name, (entry.domain for entry in model.opset_import))
    for body in model.functions:
        _refuse_names(name, (body.domain, body.name, body.overload))
        domain = normal_domain(body.domain)
        title = _printable(f"{domain}::{body.name}" + (f":{body.overload}" if body.overload else ""))
        functions[domain, body.name, body.overload] = Scope(f"function {title}", body, None)
    found = Inventory(model, main, functions, [], [])
    for scope in (main, *functions.values()):
        _walk(scope, found, name, 0)
    _refuse_explosion(found, name)
    return found


def _printable(text: str) -> str:
    """Names in messages stay on their line, and no terminal takes them for commands."""
    return text if text.isprintable() else ascii(text)[1:-1]


def _within(path: str, step: str) -> str:
    """The path of a graph within another; the middle of a very long one is left out."""
    longer = f"{path} / {step}"
    half = _LONGEST_PATH // 2
    return longer if len(longer) <= _LONGEST_PATH else f"{longer[:half]}…{longer[-half:]}"


def _refuse_names(name: str, texts: Iterable[str]) -> None:
    """Protobuf gives bytes where a text is none."""
    given = tuple(texts)
    if bytes in map(type, given):
        raise ValidationError(f"{name}: not a valid ONNX model: a name in it is not UTF-8")
    longest = max(map(len, given), default=0)
    if longest > _LONGEST_NAME:
        raise ValidationError(f"{name}: a name of {longest} characters, expected at most {_LONGEST_NAME}; refused")


def _names_of(body: onnx.GraphProto | onnx.FunctionProto) -> Iterator[str]:
    import onnx

    yield from (entry.name for entry in body.value_info)
    if isinstance(body, onnx.FunctionProto):
        yield from (*body.input, *body.output, *body.attribute)
        yield from (entry.domain for entry in body.opset_import)
        yield from (attribute.name for attribute in body.attribute_proto)
        return
    for ports in (body.input, body.output, body.initializer):
        yield from (entry.name for entry in ports)
    yield from (sparse.values.name for sparse in body.sparse_initializer)


def _walk(scope: Scope, found: Inventory, name: str, depth: int) -> None:
    if depth > _DEEPEST:
        raise ValidationError(f"{name}: graphs lie more than {_DEEPEST} deep within each other; refused")
    _refuse_names(name, _names_of(scope.body))
    found.scopes.append(scope)
    for place, node in enumerate(scope.body.node):
        _refuse_names(name, (node.op_type, node.domain, node.name, node.overload, *node.input, *node.output))
        site = Site(len(found.sites), place, scope, node)
        scope.sites.append(site)
        found.sites.append(site)
        if len({attribute.name for attribute in node.attribute}) < len(node.attribute):
            # Runtimes differ in which one they take, so neither would be the one that was checked.
            raise ValidationError(
                f"{name}: not a valid ONNX model: two attributes of {site.label!r} have the same name"
            )
        for attribute in node.attribute:
            _refuse_names(name, (attribute.name, attribute.ref_attr_name))
            if attribute.HasField("g") and attribute.graphs:
                raise ValidationError(f"{name}: not a valid ONNX model: an attribute of {site.label!r} has two values")
            graphs = [attribute.g] if attribute.HasField("g") else list(attribute.graphs)
            for i, graph in enumerate(graphs):
                number = f"[{i}]" if attribute.graphs else ""
                inner = Scope(
                    _within(scope.path, f"{site.op} {site.label!r} / {_printable(attribute.name)}{number}"),
                    graph,
                    scope,
                    owner=(site, (attribute.name, i)),
                )
                site.scopes[attribute.name, i] = inner
                _walk(inner, found, name, depth + 1)


def all_sites(scope: Scope) -> Iterator[Site]:
    """The nodes of a scope and of all graphs within it."""
    for site in scope.sites:
        yield site
        for inner in site.scopes.values():
            yield from all_sites(inner)


def _refuse_explosion(found: Inventory, name: str) -> None:
    """Count the nodes that the model has once every call is replaced by the function's body."""
    sizes: dict[FunctionId, int] = {}
    depths: dict[FunctionId, int] = {}
    calls = {
        key: [callee(site.node) for site in all_sites(scope) if callee(site.node) in found.functions]
        for key, scope in found.functions.items()
    }
    own = {key: sum(1 for _ in all_sites(scope)) for key, scope in found.functions.items()}
    for start in found.functions:
        trail = {start: iter(calls[start])}  # an explicit stack: a chain of calls may be longer than Python's own
        while trail:
            key = next(reversed(trail))
            inner = next((inner for inner in trail[key] if inner not in sizes), None)
            if inner is None:
                sizes[key] = own[key] + sum(sizes[called] for called in calls[key])
                depths[key] = 1 + max((depths[called] for called in calls[key]), default=0)
                if depths[key] > _LONGEST:
                    raise ValidationError(f"{name}: its functions call each other more than {_LONGEST} deep; refused")
                del trail[key]
                continue
            if inner in trail:
                raise ValidationError(f"{name}: not a valid ONNX model: {found.functions[inner].path} calls itself")
            trail[inner] = iter(calls[inner])
    main = [callee(site.node) for site in all_sites(found.main)]
    total = len(main) + sum(sizes.get(key, 0) for key in main)
    if max(total, *sizes.values(), 0) > _MOST_NODES:
        raise ValidationError(f"{name}: its functions expand to more than {_MOST_NODES} nodes; refused")
