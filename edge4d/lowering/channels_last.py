"""Changes of layout by way of channels last, for runtimes whose convolutions hold their values so.

OpenVINO keeps what a convolution of [frames, C, H, W] reads and writes as [frames, H, W, C] in memory. A transpose to
that order and a reshape from there are therefore descriptions to it, as regrouping [frames, C, H, W] is to others;
whereas regrouping [frames, C, H, W] itself makes it bring the whole value into another order, and back before the next
convolution. So what lies on either side of a regrouping here is the same memory in the runtime:

    conv2d [T, C, H, W] → permute [T, H, W, C] → reshape [T, H·W·C] → … → reshape, permute → conv2d

Found by its profile (`reorder` nodes); the order is only a preference, any other gives the same numbers.
"""

from __future__ import annotations

from edge4d.packing import MAX_RANK, Groups, Packing

__all__ = ["FIRST", "LAST", "T_AXIS", "bridge", "frames_groups", "is_plane"]

LAST, FIRST = (0, 2, 3, 1), (0, 3, 1, 2)
"""Transposes of [frames, C, H, W] to channels last, and back."""

_C_AXIS, T_AXIS, _VIDEO = 1, 2, 5


def is_plane(packing: Packing) -> bool:
    """Whether a clip (N, C, T, H, W) lies as a 2-D convolution has it: four axes, the second channels alone."""
    groups = packing.physical
    channels = packing.logical[_C_AXIS] if len(packing.logical) == _VIDEO else ()
    return len(groups) == MAX_RANK and bool(channels) and groups[1] == channels


def bridge(own: Packing, target: Packing) -> tuple[bool, bool]:
    """Whether a repack starts with the transpose `LAST`, and whether it ends with `FIRST`; (False, False) if neither.

    Args:
        own, target: the same atoms in two memory orders, each where it is to lie physically.
    """
    if own.memory == target.memory:
        return False, False
    here = _memory(own) if is_plane(own) else None
    there = _memory(target) if is_plane(target) else None
    if here == target.memory:
        return True, False
    if there == own.memory:
        return False, True
    return (True, True) if here is not None and here == there else (False, False)


def frames_groups(packing: Packing) -> Groups | None:
    """[before, T, H·W·C] of a clip that lies as a convolution has it; None where it does not, or T is scattered.

    At most three axes, two for one clip: of four the runtime may again choose an order.
    """
    if not is_plane(packing):
        return None
    frames, memory = packing.logical[T_AXIS], _memory(packing)
    if not frames:
        return None
    start = memory.index(frames[0])
    end = start + len(frames)
    if memory[start:end] != frames:
        return None
    groups = (memory[:start], frames, memory[end:])
    return groups if memory[:start] else groups[1:]


def _memory(packing: Packing) -> tuple[int, ...]:
    return tuple(atom for place in LAST for atom in packing.physical[place])
