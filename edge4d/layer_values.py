"""Where in a graph the output of each source layer can be read, and how it is packed there (no torch, no ONNX)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from edge4d.errors import PackingError, ValidationError

if TYPE_CHECKING:
    import numpy as np

    from edge4d.packing import Packing

__all__ = ["METADATA_KEY", "LayerValue", "read_layers", "said_layers"]

METADATA_KEY = "edge4d.layers"
"""Of an ONNX node's `metadata_props`: a JSON list of the layers whose outputs the node gives."""

_LONGEST = 100_000
_NAMES_5D = ("n", "c", "t", "h", "w")


@dataclass(frozen=True)
class LayerValue:
    """The output of one source layer as a value of the graph.

    Attributes:
        layer: the module's path, e.g. ``layer1.0.conv1``; ``PATH@1`` for a module's second call.
        value: the graph's name for it.
        shape: logical shape, e.g. (1, 64, 16, 56, 56) for N C T H W.
        packing: einops pattern logical → physical; a logical axis may be split, as in ``n (t u) c -> (n t) u c``.
        sizes: of each name in the pattern.
        folded: layers that this one took up, without a value of their own, e.g. the convolution before a batch norm.
    """

    layer: str
    value: str
    shape: tuple[int, ...]
    packing: str
    sizes: Mapping[str, int] = field(default_factory=dict)
    folded: tuple[str, ...] = ()

    @classmethod
    def of(cls, layer: str, value: str, packing: Packing, folded: Sequence[str] = ()) -> LayerValue:
        """Describe a value by its packing."""
        whole = all(len(group) < 2 for group in packing.logical)
        names = [f"a{atom}" for atom in range(len(packing.sizes))]
        if whole and len(packing.logical) == len(_NAMES_5D):
            names = [_NAMES_5D[packing.owner(atom)] for atom in range(len(packing.sizes))]

        def written(groups: Sequence[Sequence[int]]) -> str:
            texts = [" ".join(names[atom] for atom in group) for group in groups]
            return " ".join(f"({text})" if " " in text or not text else text for text in texts)

        pattern = f"{written(packing.logical)} -> {written(packing.physical)}"
        sizes = dict(zip(names, packing.sizes, strict=True))
        return cls(layer, value, packing.shape, pattern, sizes, tuple(folded))

    def unpack(self, array: np.ndarray) -> np.ndarray:
        """The logical array of what the graph holds.

        Raises:
            PackingError: the array is of another shape than the description says.
        """
        import einops

        left, _, right = self.packing.partition("->")
        try:
            logical: np.ndarray = einops.rearrange(array, f"{right} -> {left}", **dict(self.sizes))
        except (einops.EinopsError, ValueError, TypeError) as error:
            raise PackingError(
                f"value {self.value!r} of layer {self.layer!r} has shape {array.shape}, which {self.packing!r} with "
                f"{dict(self.sizes)} does not describe",
                hint=_AGAIN,
            ) from error
        if logical.shape != self.shape:
            raise PackingError(
                f"value {self.value!r} of layer {self.layer!r} unpacks to {logical.shape}, expected {self.shape}",
                hint=_AGAIN,
            )
        return logical

    def pack(self, array: np.ndarray) -> np.ndarray:
        """The inverse of `unpack`: an array of the logical shape as the graph would hold it."""
        import einops

        packed: np.ndarray = einops.rearrange(array, self.packing, **dict(self.sizes))
        return packed

    def at(self, value: str) -> LayerValue:
        """The same layer under another name of the graph's."""
        return replace(self, value=value)


_AGAIN = "the file was damaged or edited after export; export it again"


def said_layers(values: Sequence[tuple[int, LayerValue]]) -> str:
    """The metadata of one node: the layers of its outputs, each with the output's place."""
    return json.dumps(
        [
            {
                "layer": value.layer,
                "output": place,
                "shape": list(value.shape),
                "packing": value.packing,
                "sizes": dict(value.sizes),
                **({"folded": list(value.folded)} if value.folded else {}),
            }
            for place, value in values
        ],
        separators=(",", ":"),
    )


def read_layers(text: str, outputs: Sequence[str]) -> list[LayerValue]:
    """The inverse of `said_layers`.

    Args:
        text: of a file from elsewhere.
        outputs: names of the node's outputs.

    Raises:
        ValidationError: it is malformed.
    """
    try:
        if len(text) > _LONGEST:
            raise ValueError(f"longer than {_LONGEST} characters")
        return [_entry(entry, outputs) for entry in json.loads(text)]
    except (ValueError, TypeError, KeyError, IndexError, RecursionError) as error:
        raise ValidationError(
            f"the file's metadata {METADATA_KEY!r} of the node that gives {', '.join(outputs)} is malformed: {error}",
            hint=_AGAIN,
        ) from error


def _entry(entry: Any, outputs: Sequence[str]) -> LayerValue:
    shape, sizes, place = entry["shape"], entry["sizes"], entry["output"]
    numbers = [*shape, *sizes.values(), place]
    texts = [entry["layer"], entry["packing"], *sizes, *entry.get("folded", ())]
    if not all(type(number) is int and number >= 0 for number in numbers):
        raise ValueError(f"sizes {numbers}")
    if not all(isinstance(text, str) for text in texts):
        raise TypeError(f"names {texts}")
    value, folded = outputs[place], tuple(entry.get("folded", ()))
    return LayerValue(entry["layer"], value, tuple(shape), entry["packing"], dict(sizes), folded)
