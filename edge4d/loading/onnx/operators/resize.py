"""Resize and Upsample: every mode is separable, so an axis is a selection of places or a matrix of weights.

Where PyTorch's own interpolation is the very same map it is called, which has the cheaper form at rank 4.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from edge4d.loading.onnx.node import Node, Unsupported, tensor_of
from edge4d.loading.onnx.operators.view import numbers
from edge4d.loading.onnx.registry import imports
from edge4d.torch_private import outside_of_modes

Array = np.ndarray[Any, Any]

_COORDINATES = (
    "half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "align_corners", "asymmetric", "tf_half_pixel_for_nn",
)  # fmt: skip
_ROUNDINGS = ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")
_OWN = {3: "linear", 4: "bilinear", 5: "trilinear"}


@dataclass(frozen=True)
class Sampling:
    """How a place in the result is read from the input.

    Attributes:
        mode: nearest, linear or cubic.
        coordinates: of `_COORDINATES`.
        rounding: of a place that lies between two, for nearest.
        cubic: coefficient a of the cubic kernel.
        inside: whether only places inside the input count, their weights made to sum to 1.
    """

    mode: str
    coordinates: str
    rounding: str
    cubic: float
    inside: bool

    def matrix(self, size: int, wanted: int, scale: float) -> Array:
        """Weights (wanted, size) of one axis; `scale` is that of the coordinates."""
        matrix = np.zeros((wanted, size), dtype=np.float64)
        for place in range(wanted):
            at = self._source(place, size, wanted, scale)
            if self.mode == "nearest":
                matrix[place, min(max(self._round(at), 0), size - 1)] = 1
                continue
            first = math.floor(at)
            part = at - first
            if self.mode == "linear":
                weights = {first: 1 - part, first + 1: part}
            else:
                weights = {first + i: _cubic(abs(part - i), self.cubic) for i in range(-1, 3)}
            if self.inside:
                weights = {i: weight for i, weight in weights.items() if 0 <= i < size}
                total = sum(weights.values())
                weights = {i: weight / total for i, weight in weights.items()}
            for i, weight in weights.items():
                matrix[place, min(max(i, 0), size - 1)] += weight
        return matrix

    def _source(self, place: int, size: int, wanted: int, scale: float) -> float:
        """Where a result is read; for nearest in float32 as the runtimes do: a place between two must not move."""
        kind = np.float32 if self.mode == "nearest" else np.float64
        return float(self._place(kind(place), kind(size), kind(wanted), kind(scale), kind(0.5)))

    def _place(self, place: Any, size: Any, wanted: Any, scale: Any, half: Any) -> Any:
        if self.coordinates == "asymmetric":
            return place / scale
        if self.coordinates == "align_corners":
            return place * (size - 1) / (wanted - 1) if wanted > 1 else 0 * half
        if self.coordinates == "pytorch_half_pixel" and wanted == 1:
            # A single result is read at the first place, except by cubic weights, where the runtimes differ as well.
            return 0 * half if self.mode != "nearest" else -half
        if self.coordinates == "tf_half_pixel_for_nn":
            return (place + half) / scale
        offset = 0 * half
        if self.coordinates == "half_pixel_symmetric":
            offset = size * half * (1 - wanted / (scale * size))
        return offset + (place + half) / scale - half

    def _round(self, at: float) -> int:
        if self.rounding == "floor":
            return math.floor(at)
        if self.rounding == "ceil":
            return math.ceil(at)
        if abs(at - math.floor(at) - 0.5) <= 1e-6 * max(1.0, abs(at)):  # halfway, but for rounding in the scale
            return math.floor(at) if self.rounding == "round_prefer_floor" else math.floor(at) + 1
        return math.floor(at + 0.5)


def _cubic(distance: float, a: float) -> float:
    if distance <= 1:
        return (a + 2) * distance**3 - (a + 3) * distance**2 + 1
    if distance < 2:
        return a * distance**3 - 5 * a * distance**2 + 8 * a * distance - 4 * a
    return 0.0


@imports("Resize", sizes=(1, 2, 3))
def _resize(node: Node) -> Callable[..., Any]:
    mode = node.text("mode", "nearest")
    if node.opset < 11:
        sampling = _old(mode)
        return lambda x, scales: _resample(x, _from_scales(x, scales.ravel().tolist()), sampling)
    coordinates = node.text("coordinate_transformation_mode", "half_pixel")
    rounding = node.text("nearest_mode", "round_prefer_floor")
    cubic, inside = node.number("cubic_coeff_a", -0.75), bool(node.integer("exclude_outside", 0))
    node.skip("extrapolation_value")  # of tf_crop_and_resize
    node.only("antialias", 0, "antialiased resizing is not imported")
    node.only("keep_aspect_ratio_policy", "stretch", "sizes that keep a ratio are not imported")
    if mode not in ("nearest", "linear", "cubic") or coordinates not in _COORDINATES or rounding not in _ROUNDINGS:
        raise Unsupported(f"mode={mode}, coordinate_transformation_mode={coordinates}, nearest_mode={rounding}")
    named = node.integers("axes")
    sampling = Sampling(mode, coordinates, rounding, cubic, inside)

    def run(x: torch.Tensor, roi: Any = None, scales: Array | None = None, sizes: Array | None = None) -> torch.Tensor:
        axes = [axis % x.dim() for axis in named] if named is not None else list(range(x.dim()))
        if scales is not None and scales.size:
            full = [1.0] * x.dim()
            for axis, scale in zip(axes, scales.ravel().tolist(), strict=True):
                full[axis] = scale
            return _resample(x, _from_scales(x, full), sampling)
        if sizes is None:
            raise Unsupported("has neither scales nor sizes")
        wanted = list(x.shape)
        for axis, size in zip(axes, numbers(sizes), strict=True):
            wanted[axis] = size
        return _resample(x, [(size, size / have) for size, have in zip(wanted, x.shape, strict=True)], sampling)

    return run


@imports("Upsample", sizes=(1,))
def _upsample(node: Node) -> Callable[..., Any]:
    sampling = _old(node.text("mode", "nearest"))
    own = node.numbers("scales")

    def run(x: torch.Tensor, scales: Array | None = None) -> torch.Tensor:
        given = own if scales is None else scales.ravel().tolist()
        if given is None:
            raise Unsupported("has no scales")
        return _resample(x, _from_scales(x, given), sampling)

    return run


def _old(mode: str) -> Sampling:
    """Before opset 11."""
    if mode not in ("nearest", "linear"):
        raise Unsupported(f"mode={mode}")
    return Sampling(mode, "asymmetric", "floor", -0.75, False)


def _from_scales(x: torch.Tensor, scales: Sequence[float]) -> list[tuple[int, float]]:
    return [(math.floor(size * scale), scale) for size, scale in zip(x.shape, scales, strict=True)]


def _resample(x: torch.Tensor, wanted: Sequence[tuple[int, float]], sampling: Sampling) -> torch.Tensor:
    """`wanted`: size and scale of each axis."""
    changed = {
        axis: sampling.matrix(x.shape[axis], size, scale)
        for axis, (size, scale) in enumerate(wanted)
        if size != x.shape[axis] or scale != 1
    }
    if not changed:
        return x
    own = _own(x, [size for size, _ in wanted], changed, sampling)
    if own is not None:
        return own
    for axis, matrix in changed.items():
        places = matrix.argmax(1)
        if np.array_equal(matrix, np.eye(matrix.shape[1])[places]):
            x = x.index_select(axis, torch.tensor(places.tolist()))
        elif not x.is_floating_point():
            kind = str(x.dtype).removeprefix("torch.")
            raise Unsupported(
                f"mode={sampling.mode} of {kind}, which runtimes round each in its own way",
                "cast to float before it, and back behind it",
            )
        else:
            weights = tensor_of(matrix).to(x.dtype)
            x = torch.matmul(x.transpose(axis, -1), weights.T).transpose(axis, -1)
    return x


def _own(x: torch.Tensor, sizes: Sequence[int], changed: dict[int, Array], sampling: Sampling) -> torch.Tensor | None:
    """By PyTorch's interpolation, where its weights are these; None where they are not."""
    if x.dim() not in _OWN or not x.is_floating_point() or sampling.mode == "cubic" or min(changed) < 2:
        return None
    corners = sampling.coordinates == "align_corners"
    linear = sampling.mode == "linear"
    arguments: dict[str, Any] = {"mode": "linear", "align_corners": corners} if linear else {"mode": "nearest"}
    for axis, matrix in changed.items():
        with outside_of_modes():
            eye = torch.eye(x.shape[axis], dtype=torch.float64).unsqueeze(1)
            theirs = F.interpolate(eye, size=[sizes[axis]], **arguments).squeeze(1).T.numpy()
        if not np.allclose(theirs, matrix, rtol=0, atol=1e-7):
            return None
    if linear:
        arguments["mode"] = _OWN[x.dim()]
    return F.interpolate(x, size=list(sizes[2:]), **arguments)
