"""The gate: nothing in an ONNX file has more than four axes, no operator works on three spatial axes.

Graph inputs and outputs, results of nodes, weights, tensor attributes, subgraphs and local functions at any depth are
looked at. A rank that cannot be proven is a finding, and what the file claims about itself proves nothing.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain, islice
from typing import TYPE_CHECKING

from edge4d.errors import ValidationError
from edge4d.validators.contained import warm_up
from edge4d.validators.device import device_findings
from edge4d.validators.facts import Facts
from edge4d.validators.findings import Finding, Report, Shape, finding, shape_text
from edge4d.validators.inference import Occurrence, infer
from edge4d.validators.inventory import Scope, Site, callee, normal_domain, take_inventory
from edge4d.validators.limits import Limits
from edge4d.validators.profile import Profile
from edge4d.validators.provenance import place_of
from edge4d.validators.reading import read_model
from edge4d.validators.structure import structure_findings
from edge4d.validators.three_axis import three_axis_reason
from edge4d.validators.values import Value, type_of_initializer

if TYPE_CHECKING:
    import onnx

__all__ = ["check_rank"]


def check_rank(
    model: onnx.ModelProto | bytes | str | os.PathLike[str], max_rank: int | None = 4, *, profile: Profile | None = None
) -> Report:
    """Prove that no value of a model has more than `max_rank` axes.

    Args:
        model: a path, the bytes of a file or a model in memory, which is not changed. External weights are not read.
        max_rank: the limit. Operators on three spatial axes are findings only while it is at most 4, for at 5 and more
            they are what the target takes. None for no limit but that of the profile.
        profile: a device, whose stated limits count too; of two limits on ranks the stricter.

    Returns:
        The report; `Report.ok` says whether the promise holds.

    Raises:
        ValidationError: a file that is missing, broken or no ONNX model.
        UsageError: a limit below 1.
    """
    limits = Limits.of(max_rank, profile)
    path = os.fspath(model) if isinstance(model, (str, os.PathLike)) else None
    warm_up()
    proto = read_model(model)
    try:
        with _no_garbage():
            return _checked(proto, path, limits, profile)
    except RecursionError as error:
        name = path or "the model"
        raise ValidationError(f"{name}: graphs and functions lie too deep within each other; refused") from error
    except UnicodeDecodeError as error:  # protobuf decodes a name when it is looked at
        name = path or "the model"
        raise ValidationError(f"{name}: not a valid ONNX model: a name in it is not UTF-8") from error


@contextmanager
def _no_garbage() -> Iterator[None]:
    """Without the collector, which goes through millions of new objects time and again; hardly one is in a cycle.

    A third of the time for a graph of 100,000 nodes.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _checked(proto: onnx.ModelProto, path: str | None, limits: Limits, profile: Profile | None) -> Report:
    inventory = take_inventory(proto, path or "the model")
    facts = Facts(inventory, infer(inventory), limits.max_rank, limits.three_axes)
    found = chain.from_iterable(rule(facts) for rule in RULES)
    if profile is not None:
        found = chain(found, device_findings(facts, profile))
    return limits.report(found, facts.checked, _versions(), path=path, highest_rank=facts.highest_rank)


def _over_limit(facts: Facts) -> Iterator[Finding]:
    """E4D001."""
    if facts.max_rank is None:
        return
    for home, name, met, kind in facts.values:
        worst = max((value for value in met if value.rank is not None), key=lambda v: v.rank or 0, default=None)
        if worst is not None and worst.shape is not None and len(worst.shape) > facts.max_rank:
            yield _too_many(facts, home, name, worst.shape, kind)
    for home, name, shape, kind in facts.tensors:
        if len(shape) > facts.max_rank:
            yield _too_many(facts, home, name, shape, kind)


def _too_many(facts: Facts, home: Site | Scope, name: str, shape: Shape, kind: str) -> Finding:
    message = f"{kind} {name!r} has {len(shape)} axes, {shape_text(shape)}, expected at most {facts.max_rank}"
    chain = facts.chains.of(home, name) if isinstance(home, Site) and kind == "value" else ()
    return finding("E4D001", message, place_of(home, name, shape), chain=chain)


def _unknown(facts: Facts) -> Iterator[Finding]:
    """E4D002: causes first, then what only follows from them."""
    open_names = {(id(_scope_of(home)), name) for home, name, met, _ in facts.values if _is_open(met)}
    consequences = []
    for home, name, met, kind in facts.values:
        if not _is_open(met):
            continue
        cause = _open_input(home, open_names) if isinstance(home, Site) else None
        if cause is not None:
            message = f"the rank of {name!r} is unknown, since that of {cause!r} is"
            consequences.append(finding("E4D002", message, place_of(home, name), chain=facts.chains.of(home, name)))
            continue
        declared = facts.declared[id(_scope_of(home))].get(name)
        claim = "" if declared is None else f"; the file says {declared[-1]} axes, which nothing in the graph confirms"
        what = f"{kind} {name!r}" if kind != "value" else f"{name!r}"
        said = f" ({'; '.join(facts.inferred.problems)})" if facts.inferred.problems else ""
        message = f"the rank of {what} is unknown: {_why(facts, home)}{claim}{said}"
        yield finding("E4D002", message, place_of(home, name), chain=facts.chains.of(home, name))
    yield from consequences


def _is_open(met: list[Value]) -> bool:
    return any(not value.settled for value in met)


def _scope_of(home: Site | Scope) -> Scope:
    return home.scope if isinstance(home, Site) else home


def _open_input(site: Site, open_names: set[tuple[int, str]]) -> str | None:
    """An input of a node, its own or of an outer scope, whose rank is unknown too."""
    for name in site.node.input:
        scope: Scope | None = site.scope
        while scope is not None:
            if (id(scope), name) in open_names:
                return str(name)
            scope = scope.parent
    return None


def _why(facts: Facts, home: Site | Scope) -> str:
    if isinstance(home, Scope):
        return "it has no shape"
    if callee(home.node) in facts.inventory.functions:
        return "that of the function's result is"
    if home.node.op_type in ("If", "Loop", "Scan") and not normal_domain(home.node.domain):
        return "its subgraphs do not agree on one rank, or do not tell it"
    from onnx import defs

    domain = normal_domain(home.node.domain)
    if not defs.has(home.node.op_type, domain):
        return f"{home.op} is no operator of ONNX, and edge4d has no rule for it"
    return f"shape inference of {home.op} does not tell it"


def _three_axes(facts: Facts) -> Iterator[Finding]:
    """E4D003, only where the target itself stops at four axes."""
    if not facts.three_axes:
        return
    for site in facts.inventory.sites:
        if facts.inventory.functions and callee(site.node) in facts.inventory.functions:
            continue
        met = facts.at.get(site.index) or [Occurrence(site.index, site.node, (), (), {})]
        for one in met:
            reason = three_axis_reason(one.node, one.inputs)
            if reason is not None:
                name = next(iter(site.node.output), None)
                shape = one.outputs[0].shape if one.outputs else None
                result = "" if shape is None else f", result {name!r} {shape_text(shape)}"
                message = f"works on three spatial axes: {reason}{result}"
                chain = facts.chains.of(site, name) if name else ()
                yield finding("E4D003", message, place_of(site, name, shape), chain=chain)
                break


def _contradictions(facts: Facts) -> Iterator[Finding]:
    """E4D005: what the file declares against what the graph gives."""
    known: dict[int, dict[str, tuple[Site | Scope, list[Value]]]] = {}
    for home, name, met, _ in facts.values:
        known.setdefault(id(_scope_of(home)), {}).setdefault(name, (home, met))
    for scope in facts.inventory.scopes:
        here = known.get(id(scope), {})
        if scope.graph is not None:
            for name, type_proto in type_of_initializer(scope.graph).items():
                here[name] = (scope, [Value(name, type_proto)])
        for name, declared in facts.declared[id(scope)].items():
            home, met = here.get(name, (scope, []))
            known_shapes = (value.shape for value in met if value.shape is not None)
            wrong = ((rank, shape) for shape in known_shapes for rank in declared if rank != len(shape))
            for rank, shape in islice(wrong, 1):
                message = (
                    f"the file declares {name!r} with {rank} axes, the graph gives {len(shape)}, {shape_text(shape)}"
                )
                yield finding("E4D005", message, place_of(home, name, shape))


def _nothing(facts: Facts) -> Iterator[Finding]:
    """E4D004."""
    if facts.checked["values"] + facts.checked["initializers"] == 0:
        yield finding("E4D004", "the graph has no inputs, no nodes and no weights", place_of(facts.inventory.main))


def _structure(facts: Facts) -> Iterator[Finding]:
    """E4D006, E4D007."""
    return structure_findings(facts.inventory, place_of)


RULES: tuple[Callable[[Facts], Iterator[Finding]], ...] = (
    _structure,
    _nothing,
    _three_axes,
    _over_limit,
    _contradictions,
    _unknown,
)


def _versions() -> dict[str, str]:
    import onnx

    from edge4d._version import __version__

    return {"edge4d": __version__, "onnx": onnx.__version__}
