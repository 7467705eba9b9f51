"""Batches of clips, by worker processes, the same ones whatever the number of workers or of machines.

The order of training clips is a function of the seed alone: the numbers 0, 1, 2… run through one random permutation of
the clips after another, step s of a run takes the `batch` next ones, and each of W processes its own W-th of those.
What is drawn for a clip, its crop and its variation, depends on seed, epoch and clip alone.
So a run goes on at any step, on another number of processes too, and no clip comes twice before all have come once.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from edge4d.data.source import ClipUnreadable, Source, View
from edge4d.data.varying import Variation, Vary
from edge4d.errors import UsageError

__all__ = ["Batch", "eval_batches", "indices_of_step", "train_batches"]

_TRIES = 20  # other clips in the place of one that cannot be read


@dataclass(frozen=True)
class Batch:
    """Clips of one step.

    Attributes:
        clips: (N, C, T, H, W), float32; N may be 0.
        labels: (N,), int64; None without labels.
        indices: (N,) of the clips in their source.
        labelled: (N,), bool: whether its label holds for a clip as it was varied, see `Variation.keeps_label`.
        failed: (name, reason) of clips that could not be read.
    """

    clips: Tensor
    labels: Tensor | None
    indices: tuple[int, ...]
    labelled: Tensor
    failed: tuple[tuple[str, str], ...]


def indices_of_step(step: int, batch: int, count: int, seed: int) -> list[tuple[int, int]]:
    """The (epoch, clip) pairs of one step of the whole run, over all processes."""
    return [
        (place // count, int(_permutation(place // count, count, seed)[place % count]))
        for place in range(step * batch, (step + 1) * batch)
    ]


@lru_cache(maxsize=4)
def _permutation(epoch: int, count: int, seed: int) -> np.ndarray:
    return np.random.default_rng((seed, epoch)).permutation(count)


@dataclass(frozen=True)
class _Item:
    """One request to a worker: the clip, and how to look at it."""

    index: int
    view: View
    replace: bool
    vary: Vary = field(default_factory=Vary)


@dataclass(frozen=True)
class _Read:
    """A worker's answer; `clip` is None when it could not be read."""

    clip: Tensor | None
    label: int | None
    index: int
    labelled: bool
    failed: tuple[tuple[str, str], ...]


class _Reading(Dataset[Any]):
    """Reads clips in a worker; a clip that cannot be read is replaced by the next one (training) or left out."""

    def __init__(self, source: Source) -> None:
        self.source = source

    def __getitem__(self, item: _Item) -> _Read:
        failed: list[tuple[str, str]] = []
        for offset in range(_TRIES if item.replace else 1):
            index = (item.index + offset) % len(self.source)
            try:
                clip = self.source.read(index, item.view)
            except ClipUnreadable as error:
                failed.append((self.source.name(index), error.message))
                continue
            variation = item.vary.draw(item.view.seed, clip.shape) if item.view.seed else Variation()
            return _Read(variation.of(clip), self.source.label(index), index, variation.keeps_label, tuple(failed))
        return _Read(None, None, item.index, True, tuple(failed))


def _collate(items: Sequence[_Read]) -> Batch:
    good = [item for item in items if item.clip is not None]
    failed = tuple(entry for item in items for entry in item.failed)
    labelled = torch.tensor([item.labelled for item in good], dtype=torch.bool)
    if not good:
        return Batch(torch.empty(0), None, (), labelled, failed)
    labels = [item.label for item in good if item.label is not None]
    return Batch(
        torch.stack([item.clip for item in good if item.clip is not None]),
        torch.tensor(labels) if len(labels) == len(good) else None,
        tuple(item.index for item in good),
        labelled,
        failed,
    )


def train_batches(
    source: Source,
    *,
    batch: int,
    micro: int,
    first: int,
    steps: int | None,
    seed: int,
    vary: Vary | None = None,
    workers: int = 0,
    rank: int = 0,
    world: int = 1,
) -> Iterator[Batch]:
    """Micro-batches for this process, of the steps `first` to `steps`, in order.

    Args:
        source: the clips.
        batch: clips a step over all processes; a multiple of `micro` · `world`.
        micro: clips that go through the network at once.
        first, steps: the step to begin with, and the one to end before; None for no end.
        seed: of the order and of what is drawn for each clip.
        vary: how clips may be changed; None leaves them as they are read.
        workers: reading processes; 0 reads in this one.
        rank, world: which of how many processes this is.

    Raises:
        UsageError: a worker process died, or no clip can be read.
    """
    own = batch // world

    def requests() -> Iterator[list[_Item]]:
        for step in itertools.count(first) if steps is None else range(first, steps):
            pairs = indices_of_step(step, batch, len(source), seed)[rank * own : (rank + 1) * own]
            items = [_Item(index, View(seed=(seed, epoch, index)), True, vary or Vary()) for epoch, index in pairs]
            for start in range(0, own, micro):
                yield items[start : start + micro]

    for found in _loaded(source, requests(), workers):
        if len(found.clips) < min(micro, own):
            name, reason = found.failed[-1]
            raise UsageError(
                f"{len(found.failed)} clips in a row cannot be read, the last one {name}: {reason}",
                hint="look at these files; nothing is trained on what cannot be read",
            )
        yield found


def eval_batches(
    source: Source,
    *,
    batch: int,
    clips: int = 1,
    crops: int = 1,
    workers: int = 0,
    rank: int = 0,
    world: int = 1,
) -> Iterator[Batch]:
    """Every clip once in each of `clips` · `crops` fixed views; this process's share of them.

    All views of a clip come one after the other. Clips that cannot be read are left out and named in `failed`.
    """
    views = [View(clip=i, clips=clips, crop=j, crops=crops) for i in range(clips) for j in range(crops)]
    items = [_Item(index, view, replace=False) for index in range(rank, len(source), world) for view in views]
    yield from _loaded(source, (items[i : i + batch] for i in range(0, len(items), batch)), workers)


class _Requests:
    """An iterable of lists of items, as a `DataLoader` takes a batch sampler."""

    def __init__(self, requests: Iterator[list[_Item]]) -> None:
        self.requests = requests

    def __iter__(self) -> Iterator[list[_Item]]:
        return self.requests


def _loaded(source: Source, requests: Iterator[list[_Item]], workers: int) -> Iterator[Batch]:
    loader: DataLoader[Any] = DataLoader(
        _Reading(source),
        batch_sampler=_Requests(requests),
        num_workers=workers,
        collate_fn=_collate,
    )
    try:
        yield from loader
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise UsageError(
            f"a process that reads clips died: {str(error).strip().splitlines()[0]}",
            hint="it may have run out of memory: use fewer --workers, or --workers 0 to see its own error",
        ) from error
