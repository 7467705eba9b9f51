"""The models that are compared: files of a runtime on it, anything else on PyTorch, all called with logical arrays."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge4d.errors import Edge4dError, LoadError, UsageError
from edge4d.intake import PIXELS
from edge4d.port_arrays import in_type
from edge4d.ports import Port

if TYPE_CHECKING:
    import numpy as np

    from edge4d.fixed_inputs import Fixes
    from edge4d.subject import Subject
    from edge4d.validators.parity import Tolerance

__all__ = [
    "Contender",
    "OpenModels",
    "adapted",
    "call",
    "check_count",
    "open_all",
    "open_models",
    "ports_of",
    "take_frames",
]


@dataclass(frozen=True)
class Contender:
    """A file that can be called.

    Attributes:
        path: the file.
        run: takes logical arrays in the order of `ports`, or by their names when `named`.
        ports: its inputs.
        named: whether its inputs have names of their own.
        note: what a user should know.
        exact: makes the same model in float64; None for a file of a runtime.
        tolerance: for the precision that an engine computes in, where that is not told by its types.
        subject: the network, where PyTorch runs it.
    """

    path: Path
    run: Callable[..., Any]
    ports: tuple[Port, ...]
    named: bool
    note: str = ""
    exact: Callable[[], Callable[..., Any]] | None = None
    tolerance: Tolerance | None = None
    subject: Subject | None = None


def open_all(
    paths: Sequence[Path],
    shapes: Sequence[tuple[int, ...]],
    factory: str | None,
    trust_pickle: bool,
    seed: int,
    stack: ExitStack,
    submodule: str | None = None,
    fix: Fixes | None = None,
) -> dict[Path, Contender]:
    """Files of a runtime first: their inputs tell which shapes to give to a model that does not know its own."""
    from edge4d.exporters import has_runtime
    from edge4d.loading.options import refuse_unused
    from edge4d.validators.tolerances import loosest, tolerance_for

    refuse_unused(paths, submodule, fix)
    models: dict[Path, Contender] = {}
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
            models[path] = Contender(path, artifact, tuple(artifact.inputs), named=True, note=said, tolerance=allowed)
        else:
            known = (port.own_shape for port in next(iter(models.values())).ports) if models else ()
            models[path] = _from_torch(path, shapes, tuple(known), factory, trust_pickle, seed, submodule, fix)
    return models


def _from_torch(
    path: Path,
    shapes: Sequence[tuple[int, ...]],
    likely: Sequence[tuple[int, ...]],
    factory: str | None,
    trust_pickle: bool,
    seed: int,
    submodule: str | None,
    fix: Fixes | None,
) -> Contender:
    import torch
    from torch.utils import _pytree as pytree

    from edge4d.loading.huggingface import is_folder
    from edge4d.loading.options import options_of
    from edge4d.loading.sniff import Format, sniff
    from edge4d.subject import Subject

    form = None if is_folder(path) else sniff(path)
    if not shapes and form is not Format.PROGRAM and likely and all(size > 0 for shape in likely for size in shape):
        shapes = likely
    subject = Subject.of(
        path,
        shapes=shapes,
        **options_of(path, factory, submodule, fix),
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
    return Contender(path, subject.reference(), ports, named=False, note=said, exact=exact, subject=subject)


def ports_of(models: Sequence[Contender], shapes: Sequence[tuple[int, ...]]) -> tuple[Port, ...]:
    """The inputs that arrays are made for: of the first model that names them, with the shapes that the user gave.

    A model that takes frames and normalises them goes first: what the others take can be made of its frames only.
    """
    named = [model for model in models if model.named]
    ports = next((model for model in named if _normalises(model.ports)), (named or models)[0]).ports
    if not shapes:
        return ports
    if len(shapes) != len(ports):
        names = ", ".join(port.name for port in ports)
        raise UsageError(f"--input-shape was given {len(shapes)} times, the model has {len(ports)} inputs: {names}")
    given = zip(ports, shapes, strict=True)
    return tuple(replace(p, shape=p.intake.shape(s) if p.intake is not None else tuple(s)) for p, s in given)


def _normalises(ports: Sequence[Port]) -> bool:
    return any(port.intake is not None and port.intake.normalize is not None for port in ports)


def take_frames(models: Iterable[Contender], ports: Sequence[Port]) -> None:
    """Let the models of PyTorch take arrays that are made for `ports`: they put them into their own form."""
    for model in models:
        if model.subject is not None:
            model.subject.intakes = tuple(port.intake for port in ports)


def adapted(model: Contender, arrays: Sequence[np.ndarray], ports: Sequence[Port]) -> list[np.ndarray]:
    """Arrays that are made for `ports` as another artifact takes them.

    Raises:
        UsageError: it normalises frames, and these are normalised already.
    """
    own = {port.name: port for port in model.ports}
    by_name = own.keys() == {port.name for port in ports}
    takers = [own[port.name] for port in ports] if by_name else model.ports
    found = []
    for array, port, taker in zip(arrays, ports, takers, strict=True):
        given, wanted = port.intake, taker.intake
        if model.subject is None and given != wanted:
            if wanted is not None and wanted.normalize is not None and (given is None or given.normalize is None):
                raise UsageError(
                    f"{model.path} takes {PIXELS} frames for {taker.name!r}, the others take normalised numbers there",
                    hint="compare files of which one takes frames for every such input",
                )
            keep = wanted is not None and wanted.normalize is not None
            if given is not None:
                array = given.own(array) if keep else given.applied(array)
            array = wanted.arranged(array) if wanted is not None else array
        found.append(in_type(array, taker.dtype))
    return found


def check_count(model: Contender, ports: Sequence[Port]) -> None:
    """Refuse a model of another number of inputs.

    Raises:
        UsageError: it has one.
    """
    if len(model.ports) != len(ports):
        count = f"{len(model.ports)} input{'' if len(model.ports) == 1 else 's'}"
        names = ", ".join(port.name for port in model.ports)
        raise UsageError(f"{model.path} takes {count} ({names}), another of the models takes {len(ports)}")


def call(model: Contender, arrays: Sequence[np.ndarray], ports: Sequence[Port]) -> Any:
    """Run a model on logical arrays made for `ports`; by name where it has these names, else in order."""
    names = [port.name for port in ports]
    by_name = model.named and {port.name for port in model.ports} == set(names)
    arrays = adapted(model, arrays, ports)
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
            hint="check --input-shape (batch first) and --clips",
        ) from error


@dataclass(frozen=True)
class OpenModels:
    """Models of any kind that take the same logical arrays.

    Attributes:
        shapes: logical shape of each input, as PyTorch's model has it.
        ports: what the arrays are made for.
        run: a model's outputs, given its path and the inputs in order.
    """

    shapes: tuple[tuple[int, ...], ...]
    ports: tuple[Port, ...]
    run: Callable[..., Any]


def open_models(
    paths: Sequence[Path],
    input_shapes: Sequence[tuple[int, ...]] = (),
    *,
    factory: str | None = None,
    trust_pickle: bool = False,
    submodule: str | None = None,
    fix: Fixes | None = None,
    stack: ExitStack,
) -> OpenModels:
    """Open models side by side; arguments and errors as of `check_parity`.

    Args:
        paths: of the models; the shapes are those of the first that knows its own.
        input_shapes, factory, trust_pickle, submodule, fix: as in `check_parity`.
        stack: closes them.
    """
    models = open_all(list(dict.fromkeys(paths)), input_shapes, factory, trust_pickle, 0, stack, submodule, fix)
    ports = ports_of([models[path] for path in paths], input_shapes)
    for model in models.values():
        check_count(model, ports)
    take_frames(models.values(), ports)
    return OpenModels(
        tuple(port.own_shape for port in ports),
        ports,
        lambda path, *arrays: copy.deepcopy(call(models[path], arrays, ports)),
    )
