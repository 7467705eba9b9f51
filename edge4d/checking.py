"""`edge4d parity` as a function: model files against each other.

Files of a runtime (``.onnx``…) run on it, anything else runs on PyTorch; all of them get the same logical arrays.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edge4d.artifact import in_type
from edge4d.clips import load_inputs
from edge4d.errors import Edge4dError, LoadError, UsageError
from edge4d.ports import Port

if TYPE_CHECKING:
    from edge4d.validators.parity import ParityReport, Tolerance

__all__ = ["OpenModels", "check_parity", "open_models"]


def check_parity(
    reference: Path,
    candidates: Sequence[Path],
    *,
    input_shapes: Sequence[tuple[int, ...]] = (),
    factory: str | None = None,
    trust_pickle: bool = False,
    inputs: Path | None = None,
    sets: int = 2,
    seed: int = 0,
    tolerance: Tolerance | None = None,
) -> dict[Path, ParityReport]:
    """Hold every candidate against the reference on the same inputs.

    Args:
        reference: a model file of any kind: of a runtime, or of PyTorch.
        candidates: likewise.
        input_shapes: logical shapes, one for each input in order, where a file leaves them open or does not say.
        factory: ``package.module:callable`` that builds the network of a state_dict.
        trust_pickle: the user vouches for pickles.
        inputs: an ``.npz`` with one array for each input, used instead of random ones.
        sets: how many sets of random inputs.
        seed: of the first set.
        tolerance: how far floats may be apart; when None the table's entry for the precision that a candidate's engine
            computes in, where it tells, else for the reference's dtype.

    Returns:
        One report for each candidate.

    Raises:
        UsageError: no candidate, no known input shape, or inputs that do not fit.
        LoadError, ValidationError: a file that cannot be read.
        RuntimeUnavailable: a runtime is not installed.
    """
    from edge4d.exporters import has_runtime
    from edge4d.validators.parity import compare_callables, random_inputs
    from edge4d.validators.tolerances import tolerance_for

    if not candidates:
        raise UsageError("parity needs something to compare: REFERENCE and at least one CANDIDATE")
    paths = list(dict.fromkeys([reference, *candidates]))
    if factory is not None and all(has_runtime(path) for path in paths):
        raise UsageError(f"--factory {factory}: no file here holds weights alone", hint="leave --factory out")
    with ExitStack() as stack:
        models = _open_all(paths, input_shapes, factory, trust_pickle, seed, stack)
        ports = _ports([models[path] for path in paths], input_shapes)
        if inputs is not None:
            given = _read_inputs(inputs, ports)
        else:
            given = [random_inputs(ports, seed + i) for i in range(sets)]
        for model in models.values():
            _check_count(model, ports)
        # The reference runs once, however many candidates there are; a runtime may use its buffers again, so: copies.
        expected = [copy.deepcopy(_call(models[reference], list(arrays.values()), ports)) for arrays in given]
        reports = {}
        for path in candidates:
            model, replies = models[path], iter(expected)
            report = compare_callables(
                lambda *_, replies=replies: next(replies),
                lambda *arrays, model=model: _call(model, arrays, ports),
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
            notes = tuple(models[p].note for p in dict.fromkeys((reference, path)) if models[p].note)
            if (
                inputs is None
                and not report.ok
                and tolerance_for("int8") in (model.tolerance, models[reference].tolerance)
            ):
                notes += ("noise is not what int8 ranges were drawn from: give clips with --inputs clips.npz",)
            reports[path] = replace(report, notes=report.notes + notes)
    return reports


@dataclass(frozen=True)
class OpenModels:
    """Models of any kind that take the same logical arrays.

    Attributes:
        shapes: logical shape of each input.
        run: a model's outputs, given its path and the inputs in order.
    """

    shapes: tuple[tuple[int, ...], ...]
    run: Callable[..., Any]


def open_models(
    paths: Sequence[Path],
    input_shapes: Sequence[tuple[int, ...]] = (),
    *,
    factory: str | None = None,
    trust_pickle: bool = False,
    stack: ExitStack,
) -> OpenModels:
    """Open models side by side; arguments and errors as of `check_parity`.

    Args:
        paths: of the models; the shapes are those of the first that knows its own.
        input_shapes, factory, trust_pickle: as in `check_parity`.
        stack: closes them.
    """
    models = _open_all(list(dict.fromkeys(paths)), input_shapes, factory, trust_pickle, 0, stack)
    ports = _ports([models[path] for path in paths], input_shapes)
    for model in models.values():
        _check_count(model, ports)
    return OpenModels(
        tuple(port.shape for port in ports), lambda path, *arrays: copy.deepcopy(_call(models[path], arrays, ports))
    )


def _only_differ(report: ParityReport) -> bool:
    """Whether the two fail by their numbers alone: every output is there and can be measured."""
    return not report.ok and bool(report.rows) and all(row.difference is not None for row in report.rows)


def _refereed(
    reference: _Model, candidate: _Model, given: Sequence[Any], ports: Sequence[Port], report: ParityReport
) -> ParityReport:
    """Hold the candidate against the reference in float64 (see `edge4d.validators.referee`)."""
    from edge4d.validators.referee import compare_by_referee

    assert reference.exact is not None
    exact = replace(reference, run=reference.exact())
    names = [row.name for row in report.rows]

    def by_name(model: _Model) -> Callable[..., dict[str, Any]]:
        def run(*arrays: Any) -> dict[str, Any]:
            outputs = _call(model, arrays, ports)
            return dict(outputs) if isinstance(outputs, Mapping) else dict(zip(names, outputs, strict=True))

        return run

    return compare_by_referee(report, by_name(reference), by_name(exact), by_name(candidate), given)


@dataclass(frozen=True)
class _Model:
    """A file that can be called.

    Attributes:
        path: the file.
        run: takes logical arrays in the order of `ports`, or by their names when `named`.
        ports: its inputs.
        named: whether its inputs have names of their own.
        note: what a user should know.
        exact: makes the same model in float64; None for a file of a runtime.
        tolerance: for the precision that an engine computes in, where that is not told by its types.
    """

    path: Path
    run: Callable[..., Any]
    ports: tuple[Port, ...]
    named: bool
    note: str = ""
    exact: Callable[[], Callable[..., Any]] | None = None
    tolerance: Tolerance | None = None


def _open_all(
    paths: Sequence[Path],
    shapes: Sequence[tuple[int, ...]],
    factory: str | None,
    trust_pickle: bool,
    seed: int,
    stack: ExitStack,
) -> dict[Path, _Model]:
    """Files of a runtime first: their inputs tell which shapes to give to a model that does not know its own."""
    from edge4d.exporters import has_runtime
    from edge4d.validators.tolerances import loosest, tolerance_for

    models: dict[Path, _Model] = {}
    for path in sorted(paths, key=lambda path: not has_runtime(path)):
        if not path.exists():
            raise LoadError(f"{path}: no such file", hint="check the path")
        if has_runtime(path):
            from edge4d.artifact import open as open_artifact

            artifact = stack.enter_context(open_artifact(path))
            told = artifact.session.details.get("precision"), artifact.session.metadata.get("edge4d.precision")
            precision = loosest(*told)
            allowed = tolerance_for(precision) if precision is not None else None
            said = f"{path} computes in {precision}, limits: {allowed.to_text()}" if allowed is not None else ""
            models[path] = _Model(path, artifact, tuple(artifact.inputs), named=True, note=said, tolerance=allowed)
        else:
            known = (port.shape for port in next(iter(models.values())).ports) if models else ()
            models[path] = _torch_model(path, shapes, tuple(known), factory, trust_pickle, seed)
    return models


def _torch_model(
    path: Path,
    shapes: Sequence[tuple[int, ...]],
    likely: Sequence[tuple[int, ...]],
    factory: str | None,
    trust_pickle: bool,
    seed: int,
) -> _Model:
    import torch
    from torch.utils import _pytree as pytree

    from edge4d.loading.sniff import Format, sniff
    from edge4d.subject import Subject

    form = sniff(path)
    if not shapes and form is not Format.PROGRAM and likely and all(size > 0 for shape in likely for size in shape):
        shapes = likely
    subject = Subject.of(
        path,
        shapes=shapes,
        # A program or a script needs no factory, and is refused with one that is meant for another of the files.
        factory=None if form in (Format.PROGRAM, Format.TORCHSCRIPT) else factory,
        trust_pickle=trust_pickle,
        seed=seed,
    )
    tensors = [x for x in pytree.tree_leaves((subject.args, subject.kwargs)) if isinstance(x, torch.Tensor)]
    ports = tuple(
        Port(f"input{i}", tuple(x.shape), tuple(x.shape), str(x.dtype).removeprefix("torch."))
        for i, x in enumerate(tensors)
    )
    said = "" if not subject.notes or shapes is likely else f"{path}: {'; '.join(subject.notes)}"
    exact = partial(subject.reference, double=True)
    return _Model(path, subject.reference(), ports, named=False, note=said, exact=exact)


def _ports(models: Sequence[_Model], shapes: Sequence[tuple[int, ...]]) -> tuple[Port, ...]:
    """The inputs that arrays are made for: of the first model that names them, with the shapes that the user gave."""
    ports = next((model for model in models if model.named), models[0]).ports
    if not shapes:
        return ports
    if len(shapes) != len(ports):
        names = ", ".join(port.name for port in ports)
        raise UsageError(f"--input-shape was given {len(shapes)} times, the model has {len(ports)} inputs: {names}")
    return tuple(replace(port, shape=tuple(shape)) for port, shape in zip(ports, shapes, strict=True))


def _check_count(model: _Model, ports: Sequence[Port]) -> None:
    if len(model.ports) != len(ports):
        count = f"{len(model.ports)} input{'' if len(model.ports) == 1 else 's'}"
        names = ", ".join(port.name for port in model.ports)
        raise UsageError(f"{model.path} takes {count} ({names}), another of the models takes {len(ports)}")


def _call(model: _Model, arrays: Sequence[np.ndarray], ports: Sequence[Port]) -> Any:
    """Run a model on logical arrays made for `ports`; by name where it has these names, else in order."""
    names = [port.name for port in ports]
    by_name = model.named and {port.name for port in model.ports} == set(names)
    own = {port.name: port for port in model.ports}
    takers = [own[name] for name in names] if by_name else model.ports
    arrays = [in_type(array, taker.dtype) for array, taker in zip(arrays, takers, strict=True)]
    try:
        return model.run(**dict(zip(names, arrays, strict=True))) if by_name else model.run(*arrays)
    except Edge4dError:
        raise
    except Exception as error:  # of torch or of the user's own code, which may raise anything
        shapes = ", ".join(
            f"{name} {'x'.join(map(str, array.shape))}" for name, array in zip(names, arrays, strict=True)
        )
        raise UsageError(
            f"{model.path} fails on the inputs {shapes}: {type(error).__name__}: {str(error).strip()[:500]}",
            hint="check --input-shape (batch first) and --inputs",
        ) from error


def _read_inputs(path: Path, ports: Sequence[Port]) -> list[dict[str, np.ndarray]]:
    """The sets of an ``.npz``: one, or several where every array holds so many times the batch that an input takes."""
    arrays = load_inputs(path, [port.name for port in ports], "--inputs")
    counts = {_sets_in(arrays[port.name], port) for port in ports}
    if len(counts) != 1 or None in counts:
        return [arrays]  # the models themselves say what does not fit
    count = counts.pop() or 1
    parts = {name: np.split(array, count) for name, array in arrays.items()}
    return [{name: parts[name][i] for name in parts} for i in range(count)]


def _sets_in(array: np.ndarray, port: Port) -> int | None:
    """How many inputs an array holds along its first axis; None when it is no stack of them."""
    stacked = array.ndim == len(port.shape) > 0 and port.shape[0] > 0 and array.shape[1:] == port.shape[1:]
    return array.shape[0] // port.shape[0] if stacked and array.shape[0] % port.shape[0] == 0 else None
