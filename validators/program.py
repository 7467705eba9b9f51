"""The gate for PyTorch: the same rules, on a `torch.export` program, before there is any ONNX."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from edge4d.errors import LoadError, RuntimeUnavailable
from edge4d.validators.findings import Finding, Report, Step, Where, finding, shape_text
from edge4d.validators.limits import Limits
from edge4d.validators.profile import Profile

if TYPE_CHECKING:
    import torch

    from edge4d.validators.program_facts import ProgramFacts, ProgramValue

__all__ = ["check_exported"]


def check_exported(
    program: torch.export.ExportedProgram | str | os.PathLike[str],
    max_rank: int | None = 4,
    *,
    profile: Profile | None = None,
) -> Report:
    """Prove that no value of an exported program has more than `max_rank` axes.

    Inputs, results of nodes, parameters, buffers and constants are looked at, also within the subgraphs of operators
    such as ``cond``. Each operator is run again on shapes alone; what the program records proves nothing by itself.

    Args:
        program: a program in memory, or the path of an archive of `torch.export.save`. Nothing in a file is run.
        max_rank: as in `check_rank`.
        profile: as in `check_rank`. Limits on ONNX's operators cannot be judged yet, and are reported as unproven.

    Raises:
        LoadError: a file that is missing, broken, of another kind, or that could run code.
        RuntimeUnavailable: PyTorch is missing.
        UsageError: a limit below 1.
    """
    limits = Limits.of(max_rank, profile)
    path = os.fspath(program) if isinstance(program, (str, os.PathLike)) else None
    if path is not None:
        _refuse_others(Path(path))
    try:
        import torch
    except ImportError as error:
        raise RuntimeUnavailable(
            "checking a torch.export program needs PyTorch",
            hint="pip install torch; of the GitHub Action, set pytorch: true",
        ) from error
    from edge4d.quiet import quiet
    from edge4d.validators.program_walk import look_at

    with quiet():
        facts = look_at(_read(Path(path)) if path is not None else program)  # type: ignore[arg-type] # no path, so a program
    found = chain.from_iterable(rule(facts, limits) for rule in RULES)
    if profile is not None:
        from edge4d.validators.program_device import device_findings_of

        found = chain(found, device_findings_of(facts, profile, path))
    versions = {"edge4d": _version(), "torch": str(torch.__version__)}
    ranks = [len(value.shape) for value in facts.values if value.shape is not None]
    ranks += [len(weight.shape) for weight in facts.weights]
    return limits.report(found, _checked(facts), versions, path=path, highest_rank=max(ranks, default=None))


def _refuse_others(path: Path) -> None:
    """Say what a file is that holds no program; that needs no PyTorch."""
    from edge4d.loading.sniff import Format, sniff

    form = sniff(path)
    if form is not Format.PROGRAM:
        raise LoadError(
            f"{path}: {form.value}, which has no graph that could be checked; expected ONNX or a torch.export archive",
            hint=f"export it, which checks the result: edge4d export {path}",
        )


def _read(path: Path) -> torch.export.ExportedProgram:
    from edge4d.loading.pickles import TRUST_HINT
    from edge4d.loading.program import read_program

    try:
        return read_program(path, trust=False)
    except LoadError as error:
        if TRUST_HINT not in (error.hint or ""):
            raise
        hint = f"if you trust its author, check the ONNX instead: edge4d export {path} --trust-pickle"
        raise LoadError(error.message, hint=hint) from error


def _broken(facts: ProgramFacts, _limits: Limits) -> Iterator[Finding]:
    """E4D006."""
    hint = "export the model again, and check it with `program.graph_module.graph.lint()`"
    for block, problem in facts.broken:
        yield finding("E4D006", f"torch refuses the graph: {problem}", Where(block.path), hint=hint)


def _nothing(facts: ProgramFacts, _limits: Limits) -> Iterator[Finding]:
    """E4D004."""
    if not facts.values and not facts.weights:
        yield finding("E4D004", "the program has no tensors: no inputs, no nodes and no weights", Where("graph"))


def _three_axes(facts: ProgramFacts, limits: Limits) -> Iterator[Finding]:
    """E4D003."""
    if not limits.three_axes:
        return
    for use in facts.three_axes:
        result = "" if use.shape is None else f", result {use.name!r} {shape_text(use.shape)}"
        message = f"works on three spatial axes: {use.reason}{result}"
        yield finding("E4D003", message, use.spot.where(use.name, use.shape), chain=facts.trails.of(use.key))


def _over_limit(facts: ProgramFacts, limits: Limits) -> Iterator[Finding]:
    """E4D001."""
    limit = limits.max_rank
    if limit is None:
        return
    for value in facts.values:
        if value.shape is not None and len(value.shape) > limit:
            sizes = f"{len(value.shape)} axes, {shape_text(value.shape)}"
            message = f"{value.kind} {value.name!r} has {sizes}, expected at most {limit}"
            where = value.spot.where(value.name, value.shape)
            yield finding("E4D001", message, where, chain=_steps(facts, value))
    for weight in facts.weights:
        if len(weight.shape) > limit:
            sizes = f"{len(weight.shape)} axes, {shape_text(weight.shape)}"
            message = f"{weight.kind} {weight.name!r} has {sizes}, expected at most {limit}"
            layer = weight.name.rpartition(".")[0] or None
            where = Where(weight.block.path, value=weight.name, shape=weight.shape, layer=layer)
            yield finding("E4D001", message, where)


def _contradictions(facts: ProgramFacts, _limits: Limits) -> Iterator[Finding]:
    """E4D005: what the program records against what its operators give."""
    hint = "export the model again: the shapes in the file are not those of its operators"
    for value in facts.values:
        if value.shape is not None and value.claimed is not None:
            message = (
                f"the program records {value.name!r} with {value.claimed} axes, its operators give {len(value.shape)}, "
                f"{shape_text(value.shape)}"
            )
            yield finding("E4D005", message, value.spot.where(value.name, value.shape), hint=hint)


def _unknown(facts: ProgramFacts, _limits: Limits) -> Iterator[Finding]:
    """E4D002: causes first, then what only follows from them."""
    open_values = [value for value in facts.values if value.shape is None]
    for value in sorted(open_values, key=lambda value: value.follows is not None):
        if value.follows is not None:
            message = f"the rank of {value.name!r} is unknown, since that of {value.follows!r} is"
        else:
            claim = (
                "" if value.claimed is None else f"; the program records {value.claimed} axes, which nothing confirms"
            )
            what = f"{value.kind} {value.name!r}" if value.kind != "value" else f"{value.name!r}"
            message = f"the rank of {what} is unknown: {value.why}{claim}"
        yield finding("E4D002", message, value.spot.where(value.name), chain=_steps(facts, value))


RULES: tuple[Callable[[ProgramFacts, Limits], Iterator[Finding]], ...] = (
    _broken,
    _nothing,
    _three_axes,
    _over_limit,
    _contradictions,
    _unknown,
)


def _steps(facts: ProgramFacts, value: ProgramValue) -> tuple[Step, ...]:
    return facts.trails.of(value.key) if value.kind == "value" else ()


def _checked(facts: ProgramFacts) -> dict[str, int]:
    """How many of each thing were looked at, under the names that ONNX files have for them."""
    return {
        "graphs": len(facts.blocks),
        "functions": 0,
        "nodes": facts.nodes,
        "values": len(facts.values),
        "initializers": len(facts.weights),
        "attributes": 0,
    }


def _version() -> str:
    from edge4d._version import __version__

    return __version__
