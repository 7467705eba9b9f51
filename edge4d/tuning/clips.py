"""Clips for one run: learned from, held out, and fitted on; what does not suit the network is refused."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from edge4d.data.opening import open_source
from edge4d.data.source import ClipSpec, ClipUnreadable, Part, Source, View
from edge4d.errors import UsageError
from edge4d.subject import Subject
from edge4d.tuning.options import TuneOptions

__all__ = ["clip_spec", "fitting_clips", "sources", "use_labels"]

_FITTED_ON = 32  # clips of the training part, for the least-squares fit before training


def clip_spec(subject: Subject, video: Mapping[str, Any] | None = None) -> ClipSpec:
    """What the network takes, from its example input.

    Raises:
        UsageError: it takes anything else than one clip (N, C, T, H, W).
    """
    tensors = [x for x in pytree.tree_leaves((subject.args, subject.kwargs)) if isinstance(x, Tensor)]
    if len(tensors) != 1 or tensors[0].dim() != 5:
        shapes = ", ".join("x".join(map(str, tensor.shape)) for tensor in tensors)
        raise UsageError(
            f"{subject.source} takes {len(tensors)} inputs ({shapes}), expected one clip (N C T H W)",
            hint="wrap the network in one that takes a single clip and makes the other inputs of it",
        )
    _, c, t, h, w = tensors[0].shape
    return ClipSpec(shape=(c, t, h, w), **(video or {}))


def sources(
    data: str | Path, val: str | Path | None, split: Path | None, spec: ClipSpec, options: TuneOptions
) -> tuple[Source, Source]:
    """(learned from, held out)."""
    source = open_source(data, spec, split)
    if val is not None:
        held_out = open_source(val, spec)
        if source.classes is not None and held_out.classes is not None and held_out.classes != source.classes:
            differing = sorted(set(held_out.classes) ^ set(source.classes)) or ["their order"]
            raise UsageError(
                f"--val {val}: its classes are not those of --data; they differ in {', '.join(differing[:5])}"
            )
    else:
        count = max(1, round(options.held_out * len(source)))
        order = torch.randperm(len(source), generator=torch.Generator().manual_seed(options.seed)).tolist()
        source, held_out = Part(source, sorted(order[count:])), Part(source, sorted(order[:count]))
    if len(source) < options.batch:
        raise UsageError(
            f"--data {data}: {len(source)} clips to learn from, fewer than a batch of {options.batch}",
            hint="give more clips, or a smaller --batch",
        )
    return source, held_out


def use_labels(wanted: bool | None, source: Source, classes: int | None) -> bool:
    """Whether labels are learned from.

    Args:
        wanted: None where there are some and the network's output fits them.
        source: learned from.
        classes: of the network, None where its output is not one (N, classes).

    Raises:
        UsageError: labels that are wanted and missing, or that are not the network's classes.
    """
    if wanted is False or (wanted is None and (source.classes is None or classes is None)):
        return False
    if source.classes is None:
        raise UsageError("--labels: the clips have none", hint="leave --labels out to learn from the original alone")
    if classes is None:
        raise UsageError("--labels: the network's output is not one (N, classes)", hint="leave --labels out")
    if len(source.classes) < 2:
        raise UsageError(
            f"all clips are of one class, {source.classes[0]}",
            hint="each subfolder is a class; add --no-labels to learn from the original alone",
        )
    if len(source.classes) != classes:
        raise UsageError(
            f"the network knows {classes} classes, the data has {len(source.classes)}",
            hint="add --no-labels to learn from the original alone",
        )
    return True


def fitting_clips(source: Source) -> Tensor:
    """Clips for the least-squares fit; the same ones in every process."""
    found: list[Tensor] = []
    for index in range(0, len(source), max(1, len(source) // _FITTED_ON)):
        try:
            found.append(source.read(index, View()))
        except ClipUnreadable:
            continue  # training names it
        if len(found) == _FITTED_ON:
            break
    if not found:
        raise UsageError("none of the clips that the fit starts from can be read", hint="check --data")
    return torch.stack(found)
