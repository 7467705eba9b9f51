"""Packing patterns: the einops text, logical → physical, that travels with an artifact."""

from __future__ import annotations

from collections.abc import Sequence

from edge4d.errors import PackingError
from edge4d.packing import MAX_RANK, Packing, frames_order

__all__ = ["frames_pattern", "parse_pattern"]

_NAMES_5D = "n c t h w"


def frames_pattern(rank: int) -> str | None:
    """The einops pattern logical → physical of the *frames* packing, None where nothing needs packing (rank ≤ 4)."""
    if rank <= MAX_RANK:
        return None
    names = _NAMES_5D.split() if rank == 5 else [f"a{i}" for i in range(rank)]
    ordered = [names[axis] for axis in frames_order(rank)]
    excess = rank - MAX_RANK
    return f"{' '.join(names)} -> ({' '.join(ordered[: excess + 1])}) {' '.join(ordered[excess + 1 :])}"


def parse_pattern(pattern: str, shape: Sequence[int]) -> Packing:
    """Read an einops pattern logical → physical, such as ``n c t h w -> (n t) c h w``.

    Args:
        pattern: plain names on the left; the same names on the right, grouped by parentheses into physical axes.
        shape: logical shape, one size a name.

    Raises:
        PackingError: no single arrow, unbalanced parentheses, names that differ between the sides, more than
            `MAX_RANK` physical axes, or another number of names than sizes. The message quotes the pattern.
    """

    def fail(reason: str) -> PackingError:
        return PackingError(
            f"packing pattern {pattern!r}: {reason}", hint="write it as einops does, e.g. 'n c t h w -> (n t) c h w'"
        )

    if pattern.count("->") != 1:
        raise fail("needs exactly one '->'")
    left, right = (side.strip() for side in pattern.split("->"))
    names = left.split()
    if not all(name.isidentifier() for name in names) or len(set(names)) != len(names):
        raise fail("the left side must be different plain names")
    if len(names) != len(shape):
        raise fail(f"{len(names)} names for the {len(shape)} axes of shape {tuple(shape)}")
    groups: list[list[str]] = []
    open_group: list[str] | None = None
    for token in right.replace("(", " ( ").replace(")", " ) ").split():
        if token == "(":
            if open_group is not None:
                raise fail("parentheses must not be nested")
            open_group = []
        elif token == ")":
            if open_group is None:
                raise fail("a ')' without '('")
            groups.append(open_group)
            open_group = None
        elif open_group is not None:
            open_group.append(token)
        else:
            groups.append([token])
    if open_group is not None:
        raise fail("a '(' without ')'")
    if sorted(name for group in groups for name in group) != sorted(names):
        raise fail("the right side must hold every name of the left side once")
    if len(groups) > MAX_RANK:
        raise fail(f"{len(groups)} physical axes, at most {MAX_RANK} are allowed")
    whole = Packing.of(shape)
    atoms = dict(zip(names, whole.logical, strict=True))
    return whole.reorder(tuple(tuple(atom for name in group for atom in atoms[name]) for group in groups))
