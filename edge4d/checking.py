"""`edge4d parity` as a function: model files against each other.

Files of a runtime (``.onnx``…) run on it, anything else runs on PyTorch; all of them get the same logical arrays.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge4d.contenders import Contender, adapted, call, check_count, open_all, ports_of, take_frames
from edge4d.errors import UsageError
from edge4d.input_sets import read_sets

if TYPE_CHECKING:
    import numpy as np

    from edge4d.fixed_inputs import Fixes
    from edge4d.intake import Intake
    from edge4d.ports import Port
    from edge4d.subject import Subject
    from edge4d.validators.parity import ParityReport, Tolerance

__all__ = ["check_parity"]


def check_parity(
    reference: Path,
    candidates: Sequence[Path],
    *,
    input_shapes: Sequence[tuple[int, ...]] = (),
    factory: str | None = None,
    trust_pickle: bool = False,
    submodule: str | None = None,
    fix: Fixes | None = None,
    inputs: Path | Sequence[Path] = (),
    sets: int | None = None,
    seed: int = 0,
    tolerance: Tolerance | None = None,
    stages: bool = False,
    layers: bool = False,
    layer_runtime: str | None = None,
    repro: Path | None = None,
) -> dict[Path | str, ParityReport]:
    """Hold every candidate against the reference on the same inputs.

    Args:
        reference: a model file of any kind: of a runtime, or of PyTorch.
        candidates: likewise.
        input_shapes: logical shapes, one for each input in order, where a file leaves them open or does not say.
        factory: ``package.module:callable`` that builds the network of a state_dict.
        trust_pickle: the user vouches for pickles.
        submodule, fix: as in `edge4d.export`; of models that are networks, not graphs.
        inputs: ``.npz`` or ``.npy`` files with one set of inputs or several, see `edge4d.input_sets.read_sets`.
        sets: how many sets of random inputs there are besides; when None, two without `inputs` and none with them.
        seed: of the first set.
        tolerance: how far floats may be apart; when None the table's entry for the precision that a candidate's engine
            computes in, where it tells, else for the reference's dtype.
        stages: hold the steps between against the reference too: the lowered module, and each ``.onnx`` file in ONNX
            Runtime without its optimisations.
        layers: compare the output of every layer that an ``.onnx`` candidate names, see `edge4d.layer_checking`.
        layer_runtime: the runtime whose layers these are; ONNX Runtime when None.
        repro: a new folder that gets, for each candidate that differs, what reproduces it.

    Returns:
        One report for each candidate by its path, and for each stage by its description.

    Raises:
        UsageError: no candidate, no known input shape, inputs that do not fit, or layers asked of files that name none.
        LoadError, ValidationError: a file that cannot be read.
        RuntimeUnavailable: a runtime is not installed.
    """
    from edge4d.export_parity import inputs_like
    from edge4d.exporters import has_runtime
    from edge4d.layer_checking import check_layers
    from edge4d.validators.parity import compare_callables, random_inputs
    from edge4d.validators.tolerances import tolerance_for

    if not candidates:
        raise UsageError("parity needs something to compare: REFERENCE and at least one CANDIDATE")
    paths = list(dict.fromkeys([reference, *candidates]))
    if factory is not None and all(has_runtime(path) for path in paths):
        raise UsageError(f"--factory {factory}: no file here holds weights alone", hint="leave --factory out")
    if repro is not None:
        from edge4d.validators.repro import claim_folder

        claim_folder(repro)
    with ExitStack() as stack:
        models = open_all(paths, input_shapes, factory, trust_pickle, seed, stack, submodule, fix)
        ports = ports_of([models[path] for path in paths], input_shapes)
        files = [inputs] if isinstance(inputs, Path) else list(inputs)
        given = read_sets(files, ports, strict=any(model.named for model in models.values()))
        count = sets if sets is not None else 0 if files else 2
        for model in models.values():
            check_count(model, ports)
        take_frames(models.values(), ports)
        known = next((model.subject for model in models.values() if model.subject is not None), None)
        given += [
            inputs_like(known, ports, seed + i) if known is not None else random_inputs(ports, seed + i)
            for i in range(count)
        ]
        held = _stages(models, reference, candidates, stack) if stages else {}
        held |= {path: models[path] for path in candidates}
        # The reference runs once, however many candidates there are; a runtime may use its buffers again, so: copies.
        expected = [copy.deepcopy(call(models[reference], list(arrays.values()), ports)) for arrays in given]
        reports: dict[Path | str, ParityReport] = {}
        for name, model in held.items():
            replies = iter(expected)
            report = compare_callables(
                lambda *_, replies=replies: next(replies),
                lambda *arrays, model=model: call(model, arrays, ports),
                given,
                tolerance=model.tolerance if tolerance is None else tolerance,
            )
            if (
                tolerance is None
                and model.tolerance is None
                and models[reference].exact is not None
                and _only_differ(report)
            ):
                report = _refereed(models[reference], model, given, ports, report)
            notes = tuple(note for note in dict.fromkeys((models[reference].note, model.note)) if note)
            if not files and not report.ok and tolerance_for("int8") in (model.tolerance, models[reference].tolerance):
                notes += ("noise is not what int8 ranges were drawn from: give clips with --clips clips.npz",)
            reports[name] = replace(report, notes=report.notes + notes)
        if layers:
            subject = models[reference].subject or _imported(reference, [port.shape for port in ports])
            if mixed := [path for path in candidates if _forms(models[path].ports) != _forms(ports)]:
                raise UsageError(
                    f"--layers: {mixed[0]} takes its inputs in another form than the others", hint="compare it alone"
                )
            limits = {path: tolerance or models[path].tolerance for path in candidates}
            found = check_layers(subject, limits, given, runtime=layer_runtime, repro=repro)
            reports |= {path: replace(reports[path], layers=found.get(path)) for path in candidates}
        if repro is not None:
            for path in candidates:
                report = reports[path]
                if not report.ok and not (repro / path.name).exists():
                    _reproduce(models[reference], models[path], report, given, ports, repro / path.name)
            if not any(repro.iterdir()):
                repro.rmdir()
    return reports


def _imported(reference: Path, shapes: Sequence[tuple[int, ...]]) -> Subject:
    """The network of an ONNX file of any rank, whose nodes are its layers.

    Raises:
        UsageError: it is an artifact, or an engine.
        LoweringError: it holds operators that are not imported.
    """
    from edge4d.errors import LoadError
    from edge4d.subject import Subject

    try:
        return Subject.of(reference, shapes=shapes)
    except LoadError:
        raise UsageError(
            f"--layers: the reference {reference} is no PyTorch model or ONNX network whose layers could be watched",
            hint="give the model that was exported as REFERENCE",
        ) from None


def _stages(
    models: Mapping[Path, Contender], reference: Path, candidates: Sequence[Path], stack: ExitStack
) -> dict[Path | str, Contender]:
    """What lies between the reference and the candidates, in the order of the line."""
    from edge4d.stages import lowered_stage, unoptimised

    subject = models[reference].subject
    artifacts = [path for path in candidates if path.suffix.lower() == ".onnx"]
    if subject is None or not artifacts:
        raise UsageError(
            f"--stages needs a PyTorch reference and an .onnx candidate, got {reference} and "
            + ", ".join(str(path) for path in candidates),
            hint="leave --stages out",
        )
    found: dict[Path | str, Contender] = {
        "lowered PyTorch": replace(models[reference], run=lowered_stage(subject, artifacts[0]), note="", exact=None)
    }
    for path in artifacts:
        opened = stack.enter_context(unoptimised(path))
        found[f"{path}, optimisations off"] = replace(models[path], run=opened)
    return found


def _reproduce(
    reference: Contender,
    candidate: Contender,
    report: ParityReport,
    given: Sequence[Mapping[str, np.ndarray]],
    ports: Sequence[Port],
    folder: Path,
) -> None:
    """The whole artifact on the set of inputs that shows the difference most."""
    from edge4d.validators.repro import write_repro

    if not candidate.named or not report.rows:
        return  # PyTorch itself is the candidate, and runs its user's code
    row = max(report.rows, key=lambda row: row.badness)
    arrays = given[row.input_set]
    got = dict(call(candidate, list(arrays.values()), ports))
    replied = call(reference, list(arrays.values()), ports)
    expected = dict(replied) if isinstance(replied, Mapping) else dict(zip(got, replied, strict=False))
    names = [port.name for port in candidate.ports]
    write_repro(
        folder,
        f"{candidate.path.name}, output {row.name!r}: {row.reason}",
        model=candidate.path,
        origin=candidate.path,
        inputs=dict(zip(names, adapted(candidate, list(arrays.values()), ports), strict=True)),
        reference={name: expected[name] for name in expected if name in got},
        candidate=got,
        allowed=row.allowed or 0.0,
    )


def _forms(ports: Sequence[Port]) -> list[Intake | None]:
    return [port.intake for port in ports]


def _only_differ(report: ParityReport) -> bool:
    """Whether the two fail by their numbers alone: every output is there and can be measured."""
    return not report.ok and bool(report.rows) and all(row.difference is not None for row in report.rows)


def _refereed(
    reference: Contender, candidate: Contender, given: Sequence[Any], ports: Sequence[Port], report: ParityReport
) -> ParityReport:
    """Hold the candidate against the reference in float64 (see `edge4d.validators.referee`)."""
    from edge4d.validators.referee import compare_by_referee

    assert reference.exact is not None
    exact = replace(reference, run=reference.exact())
    names = [row.name for row in report.rows]

    def by_name(model: Contender) -> Callable[..., dict[str, Any]]:
        def run(*arrays: Any) -> dict[str, Any]:
            outputs = call(model, arrays, ports)
            return dict(outputs) if isinstance(outputs, Mapping) else dict(zip(names, outputs, strict=True))

        return run

    return compare_by_referee(report, by_name(reference), by_name(exact), by_name(candidate), given)
