"""An exported program against the limits of a device profile, as far as they concern it before there is any ONNX."""

from __future__ import annotations

from collections.abc import Iterator

from edge4d.validators.device import MEASURED, Case, device_limits, judged, measured
from edge4d.validators.findings import Finding, Where, finding, shape_text
from edge4d.validators.profile import Bound, Profile
from edge4d.validators.program_facts import ProgramFacts, ProgramValue

__all__ = ["device_findings_of"]


def device_findings_of(facts: ProgramFacts, profile: Profile, path: str | None) -> Iterator[Finding]:
    """What breaks a limit of the profile, and every limit that only the ONNX can be held against, as unproven.

    Args:
        facts: what there is in the program.
        profile: the device.
        path: the file, for the hint.
    """
    for bound in device_limits(profile):
        if bound.kind == "static":
            yield from judged(bound, _dynamic_inputs(facts), _where)
        elif bound.kind in MEASURED and not bound.operators:
            yield from judged(bound, _values(facts, bound), _where)
        else:
            message = f"the limit on {bound.kind} concerns ONNX, which this program is not yet: {bound.states}"
            hint = f"hold the export against it: edge4d export {path or 'MODEL'} --profile {profile.name}"
            yield finding("E4D102", message, Where("graph", value=bound.kind), hint=hint, source=bound.cited)


def _dynamic_inputs(facts: ProgramFacts) -> Iterator[Case]:
    for value in facts.values:
        dynamic = value.shape is not None and any(not isinstance(size, int) for size in value.shape)
        if value.kind == "graph input" and dynamic and value.shape is not None:
            yield Case(value, None, None, (), f"input {value.name!r} has dynamic sizes, {shape_text(value.shape)}")


def _values(facts: ProgramFacts, bound: Bound) -> Iterator[Case]:
    """Weights lie in memory as the device's compiler likes, and are not looked at."""
    for value in facts.values:
        numbers = () if value.shape is None else measured(bound, value.shape)  # unknown: a finding of its own
        if numbers:
            yield Case(value, value.name, value.shape, numbers, MEASURED[bound.kind])


def _where(case: Case) -> Where:
    value: ProgramValue = case.home
    return value.spot.where(value.name, value.shape)
