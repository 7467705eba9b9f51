"""One node of an ONNX graph, as the importers of operators see it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

if TYPE_CHECKING:
    import onnx

__all__ = ["Node", "Unsupported", "tensor_of", "torch_type"]

_TYPES = {
    1: torch.float32, 2: torch.uint8, 3: torch.int8, 5: torch.int16, 6: torch.int32, 7: torch.int64, 9: torch.bool,
    10: torch.float16, 11: torch.float64, 16: torch.bfloat16,
}  # fmt: skip


class Unsupported(Exception):
    """Why a node cannot be imported.

    Args:
        reason: what it has or does.
        hint: what to do about it.
    """

    def __init__(self, reason: str, hint: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.hint = hint


def torch_type(number: int) -> torch.dtype:
    """PyTorch's element type of ONNX's number.

    Raises:
        Unsupported: PyTorch has none.
    """
    if number not in _TYPES:
        raise Unsupported(f"element type {number}, which PyTorch does not compute with")
    return _TYPES[number]


def tensor_of(array: np.ndarray[Any, Any]) -> torch.Tensor:
    """A tensor of its own memory with the numbers of an array."""
    array = np.array(array, order="C")
    if array.dtype.name == "bfloat16":
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    if array.dtype in (np.uint16, np.uint32, np.uint64):  # PyTorch hardly computes with these
        array = array.astype(np.int64)
    return torch.from_numpy(array)


class Node:
    """A node with its attributes and those of its inputs that are constant.

    Every attribute that an importer does not ask for is refused in the end: nothing is left out silently.

    Attributes:
        name: unique in the model, and a path of modules.
        op: operator type.
        opset: version of ONNX's operator set.
        inputs, outputs: names of values; empty for an optional one that is not there.
        wanted: how many of the outputs, from the first, something uses.
    """

    def __init__(
        self,
        proto: onnx.NodeProto,
        name: str,
        opset: int,
        constants: Mapping[str, np.ndarray[Any, Any]],
        parameters: dict[str, nn.Parameter],
        wanted: int,
    ) -> None:
        self.name = name
        self.op = proto.op_type
        self.opset = opset
        self.inputs: Sequence[str] = list(proto.input)
        self.outputs: Sequence[str] = list(proto.output)
        self.wanted = wanted
        self._constants = constants
        self._parameters = parameters
        self._attributes = {attribute.name: attribute for attribute in proto.attribute}
        self._read: set[str] = set()

    def given(self, i: int) -> bool:
        """Whether there is an input `i`."""
        return i < len(self.inputs) and bool(self.inputs[i])

    def constant(self, i: int) -> np.ndarray[Any, Any] | None:
        """Input `i` if it is the same for all inputs of the model; None otherwise."""
        return self._constants.get(self.inputs[i]) if self.given(i) else None

    def parameter(self, i: int) -> nn.Parameter:
        """A constant input as a parameter; nodes that share the value share the parameter."""
        name = self.inputs[i]
        if name not in self._parameters:
            tensor = tensor_of(self._constants[name])
            self._parameters[name] = nn.Parameter(tensor, requires_grad=tensor.is_floating_point())
        return self._parameters[name]

    def has(self, name: str) -> bool:
        """Whether the attribute is there."""
        return name in self._attributes

    def _get(self, name: str) -> Any:
        import onnx

        self._read.add(name)
        return onnx.helper.get_attribute_value(self._attributes[name]) if name in self._attributes else None

    def integer(self, name: str, default: int) -> int:
        """A whole number."""
        value = self._get(name)
        return default if value is None else int(value)

    def number(self, name: str, default: float) -> float:
        """A float32, as the Python float that stands for it (0.2, not 0.20000000298), if that is none beyond all."""
        value = self._get(name)
        if value is None:
            return default
        short = float(np.format_float_positional(np.float32(value)))
        return short if abs(short) <= float(np.finfo(np.float32).max) else float(np.float32(value))

    def integers(self, name: str) -> list[int] | None:
        """A list; None when it is not there."""
        value = self._get(name)
        return None if value is None else [int(item) for item in value]

    def numbers(self, name: str) -> list[float] | None:
        """A list of floats; None when it is not there."""
        value = self._get(name)
        return None if value is None else [float(item) for item in value]

    def text(self, name: str, default: str) -> str:
        """A string."""
        value = self._get(name)
        return default if value is None else bytes(value).decode("utf-8", "replace")

    def texts(self, name: str) -> list[str] | None:
        """A list of strings; None when it is not there."""
        value = self._get(name)
        return None if value is None else [bytes(item).decode("utf-8", "replace") for item in value]

    def skip(self, *names: str) -> None:
        """These attributes change nothing in what is imported."""
        self._read.update(names)

    def only(self, name: str, allowed: Any, why: str) -> None:
        """An attribute that has to be the one value, as a whole number or a text.

        Raises:
            Unsupported: it is another.
        """
        value = self.integer(name, allowed) if isinstance(allowed, int) else self.text(name, allowed)
        if value != allowed:
            raise Unsupported(f"{name}={value}: {why}")

    def unread(self) -> list[str]:
        """Attributes that no importer asked for."""
        return sorted(self._attributes.keys() - self._read)
