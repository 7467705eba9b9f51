"""The module that an ONNX graph becomes: a child for each node, run in the graph's order."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from edge4d.errors import UsageError
from edge4d.loading.onnx.folding import Folded
from edge4d.loading.onnx.node import Unsupported, tensor_of

__all__ = ["Call", "GraphInput", "OnnxModel", "Step", "settle"]

Given = "torch.Tensor | np.ndarray[Any, Any] | None"


@dataclass(frozen=True)
class GraphInput:
    """An input of the graph.

    Attributes:
        name: as the file has it.
        dtype: element type.
        shape: sizes; a name or None for one that is open; None when not even the rank is said.
    """

    name: str
    dtype: torch.dtype
    shape: tuple[int | str | None, ...] | None


@dataclass(frozen=True)
class Step:
    """A node in its turn.

    Attributes:
        name: of the node; also the path of its child module.
        op: operator type, for messages.
        inputs, outputs: names of values.
        folded: computes it in numpy; None where a child module does.
        alone: whether the child takes the first input only.
        branches: of an If whose condition hangs on shapes: the steps when it is true, and when it is false.
    """

    name: str
    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    folded: Folded | None = None
    alone: bool = False
    branches: tuple[tuple[Step, ...], tuple[Step, ...]] | None = None


ALIAS = "alias"
"""The operator of a step that gives a value another name."""


def flat(steps: Sequence[Step]) -> Iterator[Step]:
    """All steps, those of branches as well."""
    for step in steps:
        yield step
        for branch in step.branches or ():
            yield from flat(branch)


class Call(nn.Module):
    """A function of a node's inputs as a module, which owns the inputs that are constant.

    Args:
        function: of an ONNX operator; takes all inputs in order, None for one that is not there.
        constants: parameter by the place of the input.
        known: places of inputs that stay numpy arrays.
        labels: what the parameters are called, by place.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        constants: dict[int, nn.Parameter],
        known: frozenset[int],
        labels: dict[int, str],
    ) -> None:
        super().__init__()
        self.function = function
        self.known = known
        self.places: dict[int, str] = {}
        for place, parameter in constants.items():
            name = labels.get(place, f"input{place}")
            self.places[place] = name
            if parameter.is_floating_point():
                self.register_parameter(name, parameter)
            else:
                self.register_buffer(name, parameter.detach())

    def forward(self, *inputs: Any) -> Any:
        """A tensor, or a tuple of them."""
        given: list[Any] = []
        for place, value in enumerate(inputs):
            if place in self.places:
                given.append(getattr(self, self.places[place]))
            elif isinstance(value, np.ndarray) and place not in self.known:
                given.append(tensor_of(value))
            else:
                given.append(value)
        return self.function(*given)


class OnnxModel(nn.Module):
    """A graph. What hangs on shapes alone is computed in numpy each time, so that it works at any batch.

    Args:
        inputs: of the graph.
        outputs: names of its outputs; the result is a dict with these keys.
        steps: in order; children are added by `add`.
        constants: arrays by name that steps in numpy, or the outputs, use.
    """

    def __init__(
        self,
        inputs: Sequence[GraphInput],
        outputs: Sequence[str],
        steps: Sequence[Step],
        constants: dict[str, np.ndarray[Any, Any]],
    ) -> None:
        super().__init__()
        self.inputs = tuple(inputs)
        self.outputs = tuple(outputs)
        self.steps = tuple(steps)
        self.constants = constants

    def add(self, path: str, module: nn.Module) -> None:
        """Put a child at a dotted path."""
        *owners, leaf = path.split(".")
        place: nn.Module = self
        for part in owners:
            if part not in place._modules:
                place.add_module(part, nn.Module())
            place = place.get_submodule(part)
        place.add_module(leaf, module)

    def forward(self, *inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        """The graph's outputs by name."""
        values: dict[str, Any] = dict(self.constants)
        values.update(zip((port.name for port in self.inputs), inputs, strict=True))
        self._run(self.steps, values)
        found = {name: values[name] for name in self.outputs}
        return {name: tensor_of(x) if isinstance(x, np.ndarray) else x for name, x in found.items()}

    def _run(self, steps: Sequence[Step], values: dict[str, Any]) -> None:
        """Add what the steps give to `values`."""
        for step in steps:
            if step.branches is not None:
                self._run(step.branches[0 if bool(values[step.inputs[0]]) else 1], values)
                continue
            given = [values[name] if name else None for name in step.inputs]
            if step.op == "Shape" and step.folded is not None and isinstance(given[0], torch.Tensor):
                given[0] = np.broadcast_to(np.float32(0), tuple(given[0].shape))  # takes no memory
            if step.op == "Size" and isinstance(given[0], torch.Tensor):
                results: Any = (np.array(given[0].numel(), dtype=np.int64),)
            elif step.op == ALIAS:
                results = given[0]
            elif step.folded is not None:
                results = _fold(step, step.folded, given)
            else:
                child = self.get_submodule(step.name)
                results = child(given[0]) if step.alone else child(*given)
            results = results if isinstance(results, tuple) else (results,)
            values.update(zip(step.outputs, results, strict=False))


def _fold(step: Step, folded: Folded, given: Sequence[Any]) -> tuple[np.ndarray[Any, Any], ...]:
    try:
        return folded(*given)
    except Unsupported as error:
        raise UsageError(f"node {step.name!r} ({step.op}): {error.reason}", hint="check --input-shape") from None


def with_signature(model: OnnxModel) -> OnnxModel:
    """The same with the inputs' names as the arguments of `forward`: captures call their inputs by them."""
    names: list[str] = []
    for port in model.inputs:
        name = re.sub(r"\W", "_", port.name)
        name = f"input_{name}" if not name or name[0].isdigit() else name
        while name in names or name == "self":
            name += "_"
        names.append(name)
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD

    def forward(self: OnnxModel, *inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        return OnnxModel.forward(self, *inputs)

    forward.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [inspect.Parameter(name, kind) for name in ("self", *names)]
    )
    model.__class__ = type("OnnxModel", (OnnxModel,), {"forward": forward})
    return model


def settle(model: OnnxModel, args: Sequence[torch.Tensor]) -> None:
    """Make convolutions whose padding hangs on the size of their input plain ones, at these shapes, in place.

    Raises:
        UsageError: a node fails on these shapes; says which.
    """
    from torch._subclasses.fake_tensor import FakeTensorMode

    from edge4d.loading.onnx.operators.conv import PaddedConv

    settled: dict[str, nn.Module] = {}
    where = {"": ""}
    names = {child: name for name, child in model.named_modules()}

    def before(child: nn.Module, given: tuple[Any, ...]) -> None:
        where[""] = names[child]
        if isinstance(child, PaddedConv):
            plain = child.plain(given[0].shape)
            if plain is not None:
                settled[names[child]] = plain

    handles = [child.register_forward_pre_hook(before) for child in names]
    fake = FakeTensorMode(allow_non_fake_inputs=True)
    try:
        with torch.no_grad(), fake:
            model(*(fake.from_tensor(arg) for arg in args))
    except (Unsupported, RuntimeError, ValueError, TypeError, IndexError, NotImplementedError) as error:
        step = next((step for step in flat(model.steps) if step.name == where[""]), None)
        said = getattr(error, "reason", None) or str(error).strip().splitlines()[0][:300]
        at = f"node {step.name!r} ({step.op})" if step is not None else "the graph"
        shapes = ", ".join(
            f"{port.name}: {'x'.join(map(str, arg.shape))}" for port, arg in zip(model.inputs, args, strict=True)
        )
        raise UsageError(
            f"{at} fails on the input {shapes}: {said}",
            hint=getattr(error, "hint", "") or "check --input-shape; the graph may be written for one shape only",
        ) from error
    finally:
        for handle in handles:
            handle.remove()
    for name, plain in settled.items():
        model.add(name, plain)
