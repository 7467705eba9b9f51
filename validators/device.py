"""A graph against the limits of a device profile: E4D101 device-limit and E4D102 device-limit-unproven."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from math import prod
from typing import TYPE_CHECKING, Any, NamedTuple

from edge4d.validators.facts import Facts
from edge4d.validators.findings import Finding, Shape, Where, finding, shape_text
from edge4d.validators.inventory import Scope, Site, normal_domain
from edge4d.validators.profile import AXES, Bound, Profile
from edge4d.validators.provenance import place_of
from edge4d.validators.values import Value

if TYPE_CHECKING:
    import onnx

__all__ = ["Case", "MEASURED", "device_findings", "device_limits", "judged", "measured"]

_LAYOUT = 3  # the axes of an image without its batch: C, H, W


class Case(NamedTuple):
    """One thing that a limit concerns.

    Attributes:
        home: the node, scope or graph it belongs to.
        value: name of the value, if it is about one.
        shape: its sizes.
        numbers: what the limit bounds, None for one that nothing tells; empty where being there is enough.
        what: how a message calls the numbers, e.g. ``kernel_shape``.
    """

    home: Any
    value: str | None
    shape: Shape | None
    numbers: tuple[int | None, ...]
    what: str


def device_findings(facts: Facts, profile: Profile) -> Iterator[Finding]:
    """What breaks a limit of the profile, and for each limit once what nothing proves.

    Limits on the rank of all values and on three spatial axes are the gate's own rules, and not looked at here.
    """
    for bound in device_limits(profile):
        yield from judged(bound, _cases(facts, bound), _where)


def device_limits(profile: Profile) -> Iterator[Bound]:
    """The limits that are no rule of the gate itself."""
    for bound in profile.bounds:
        if bound.kind != "spatial-axes" and (bound.kind != "rank" or bound.operators):
            yield bound


def judged(bound: Bound, cases: Iterable[Case], where: Callable[[Case], Where]) -> Iterator[Finding]:
    """What breaks one limit, and once what nothing proves.

    Args:
        bound: the limit.
        cases: all that it concerns.
        where: tells the place of a case.
    """
    unproven: list[Case] = []
    told: set[tuple[int, str | None]] = set()  # a node of a function is met once for each call
    for case in cases:
        key = (id(case.home), case.value)
        broken = next((n for n in case.numbers if n is not None and not bound.allows(n)), None)
        if (broken is not None or not case.numbers) and key not in told:
            told.add(key)
            yield _broken(bound, case, broken, where(case))
        elif None in case.numbers:
            unproven.append(case)
    if unproven:
        yield _unproven(bound, unproven, where(unproven[0]))


def _broken(bound: Bound, case: Case, number: int | None, where: Where) -> Finding:
    if number is None:
        message = f"{case.what}: {bound.states}"
    else:
        message = f"{case.what}{_named_value(case)} is {number}, expected {bound.expected}: {bound.states}"
    return finding("E4D101", message, where, source=bound.cited)


def _unproven(bound: Bound, cases: list[Case], where: Where) -> Finding:
    first = cases[0]
    more = f" and {len(cases) - 1} more" if len(cases) > 1 else ""
    message = f"nothing tells {first.what}{_named_value(first)}{more}, expected {bound.expected}: {bound.states}"
    return finding("E4D102", message, where, source=bound.cited)


def _named_value(case: Case) -> str:
    return "" if case.shape is None else f" of {case.value!r} {shape_text(case.shape)}"


def _where(case: Case) -> Where:
    return place_of(case.home, case.value, case.shape)


def _cases(facts: Facts, bound: Bound) -> Iterator[Case]:
    if bound.kind == "opset":
        versions = [e.version for e in facts.inventory.model.opset_import if not normal_domain(e.domain)]
        yield Case(facts.inventory.main, None, None, tuple(versions) or (None,), "the version of the operator set")
    elif bound.kind == "static":
        yield from _dynamic_inputs(facts)
    elif bound.kind == "forbidden":
        for site in _named(facts, bound):
            yield Case(site, next(iter(site.node.output), None), None, (), f"{site.op} is used")
    elif bound.kind in ("kernel", "dilated-kernel", "stride"):
        yield from _windows(facts, bound)
    else:
        yield from _sized(facts, bound)


def _named(facts: Facts, bound: Bound) -> Iterator[Site]:
    """Nodes of the operators that a limit names."""
    for site in facts.inventory.sites:
        if site.node.op_type in bound.operators and not normal_domain(site.node.domain):
            yield site


def _dynamic_inputs(facts: Facts) -> Iterator[Case]:
    for home, name, met, kind in facts.values:
        shape = met[0].shape if kind == "graph input" else None
        if shape is not None and any(not isinstance(size, int) for size in shape):
            yield Case(home, name, None, (), f"input {name!r} has dynamic sizes, {shape_text(shape)}")


def _sized(facts: Facts, bound: Bound) -> Iterator[Case]:
    """Activations and their sizes; weights lie in memory as the device's compiler likes, and are not looked at."""
    seen: set[tuple[int, str]] = set()
    for home, value in _values_of(facts, bound):
        key = (id(home), value.name)
        if key in seen or value.shape is None:
            continue  # an unknown rank is a finding of its own
        seen.add(key)
        numbers = measured(bound, value.shape)
        if numbers:
            yield Case(home, value.name, value.shape, numbers, MEASURED[bound.kind])


# What such limits bound, as messages call it.
MEASURED = {"rank": "the rank", "size": "a size", "batch": "the batch", "inner-axes": "the number of axes in use"}


def _values_of(facts: Facts, bound: Bound) -> Iterator[tuple[Site | Scope, Value]]:
    if not bound.operators:
        for home, _, met, _ in facts.values:
            if not (isinstance(home, Site) and home.op == "Constant"):
                yield from ((home, value) for value in met)
        return
    for site in _named(facts, bound):
        for one in facts.at.get(site.index, ()):
            # Of the inputs only the first is an activation in the operators that profiles name.
            yield from ((site, value) for value in (*one.inputs[:1], *one.outputs) if value.name)


def measured(bound: Bound, shape: Shape) -> tuple[int | None, ...]:
    """The numbers of one value that a limit of a kind in `MEASURED` bounds; none when it says nothing about it."""
    sizes = tuple(size if isinstance(size, int) else None for size in shape)
    if bound.kind == "rank":
        return (len(sizes),)
    if bound.kind == "size":
        return sizes[-_LAYOUT:]
    if bound.kind == "batch":
        before = sizes[:-_LAYOUT]
        known = [size for size in before if size is not None]
        return (prod(known) if len(known) == len(before) else None,) if before else ()
    # inner-axes: every axis before the innermost `max` has size 1; said as how many axes there are from the first
    # one that has not.
    assert bound.max is not None
    outer = sizes[: max(len(sizes) - bound.max, 0)]
    for i, size in enumerate(outer):
        if size is not None and size != 1:
            return (len(sizes) - i,)
    return (None,) if None in outer else (min(len(sizes), bound.max),)


def _windows(facts: Facts, bound: Bound) -> Iterator[Case]:
    for site in _named(facts, bound):
        for one in facts.at.get(site.index, ()):
            numbers = _numbers_of(bound, one.node, one.inputs)
            if bound.axis is not None and len(numbers) > 1:
                numbers = numbers[AXES[bound.axis] :][:1]
            yield Case(site, next(iter(site.node.output), None), None, numbers, f"the {bound.kind}")


def _numbers_of(bound: Bound, node: onnx.NodeProto, inputs: tuple[Value, ...]) -> tuple[int | None, ...]:
    kernel = _listed(node, "kernel_shape") or _of_weight(inputs)
    if bound.kind == "kernel":
        return kernel
    if bound.kind == "stride":
        return _listed(node, "strides") or (1,)
    dilations = _listed(node, "dilations") or (1,) * len(kernel)
    return tuple(_with_holes(k, d) for k, d in zip(kernel, dilations, strict=False)) or (None,)


def _with_holes(kernel: int | None, dilation: int | None) -> int | None:
    return None if kernel is None or dilation is None else (kernel - 1) * dilation + 1


def _listed(node: onnx.NodeProto, name: str) -> tuple[int | None, ...]:
    return next((tuple(a.ints) for a in node.attribute if a.name == name), ())


def _of_weight(inputs: tuple[Value, ...]) -> tuple[int | None, ...]:
    shape = inputs[1].shape if len(inputs) > 1 else None
    if shape is None or len(shape) < 3:
        return (None,)
    return tuple(size if isinstance(size, int) else None for size in shape[2:])
