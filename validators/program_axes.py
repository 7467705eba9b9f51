"""Operators of PyTorch that work on three spatial axes, recognised by their names, arguments and ranks."""

from __future__ import annotations

import re
from collections.abc import Mapping

__all__ = ["three_axis_reason_of"]

# Padding over three axes is not among them, as it is not in ONNX: it moves data, and is an operator of any rank.
_SAYS_3D = re.compile(r"(?:conv|pool|norm|resize|upsample|grid_sampler)[a-z_]*_?3d", re.IGNORECASE)
_CONVOLUTION = re.compile(r"conv(olution)?(?!ert)", re.IGNORECASE)
_BY_RANK = re.compile(r"_?(?:native_|cudnn_|quantized_)?(?:instance_norm|group_norm|grid_sampler)[a-z_]*")

# Arguments of a convolution or pool that list one number an axis.
_PER_AXIS = frozenset({"stride", "padding", "dilation", "output_padding", "kernel_size"})
_WEIGHTS = frozenset({"weight", "w"})


def three_axis_reason_of(op: str, ranks: Mapping[str, int | None], lengths: Mapping[str, int]) -> str | None:
    """Why an operator works on three spatial axes, e.g. ``conv3d is a 3-D operator``; None if it does not.

    Args:
        op: its name without namespace and overload, e.g. ``conv3d``.
        ranks: of its tensor arguments in order, by the names in its schema; None for an unknown one.
        lengths: of its arguments that are lists, likewise.
    """
    if _SAYS_3D.search(op):
        return f"{op} is a 3-D operator"
    if _CONVOLUTION.search(op):
        for name, rank in ranks.items():
            if name.lower() in _WEIGHTS and rank is not None and rank >= 5:
                return f"{name} has {rank} axes, expected at most 4"
        for name, length in lengths.items():
            if name in _PER_AXIS and length >= 3:
                return f"{name} has {length} entries, expected at most 2"
    if _BY_RANK.fullmatch(op):
        name, rank = next(iter(ranks.items()), ("", None))
        if rank is not None and rank >= 5:
            return f"{name} has {rank} axes, expected at most 4"
    if op == "affine_grid_generator" and lengths.get("size", 0) >= 5:
        return f"size has {lengths['size']} entries, expected at most 4"
    return None
