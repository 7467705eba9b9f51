"""Steps that an export and its dry run share: the clock that shows and times them, and the swap of structures."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from edge4d.blocks.choice import BlockSpec, Choice
from edge4d.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch

    from edge4d.subject import Subject
    from edge4d.swap_report import SwapReport

__all__ = ["AUTOTUNE_BUDGET", "Clock", "Stage", "put_swapped"]


AUTOTUNE_BUDGET = 60.0
"""Seconds of timing by default."""

Stage = Callable[[str], AbstractContextManager[None]]


class Clock:
    """Times the stages and shows them."""

    def __init__(self, stage: Stage | None) -> None:
        self.stage = stage
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        begun = time.perf_counter()
        with self.stage(name) if self.stage is not None else nullcontext():
            yield
        self.seconds[name] = time.perf_counter() - begun


def put_swapped(
    subject: Subject,
    choice: Choice,
    block: BlockSpec,
    options: Mapping[str, Any] | None,
    clips: torch.Tensor | None,
    clock: Clock,
    *,
    measure: bool,
    seed: int = 0,
) -> SwapReport | None:
    """Put the swapped network in the subject's place, so that all that follows, parity too, is about that one."""
    if choice.exact:
        return None
    if subject.graph:
        raise UsageError(
            f"--block {choice.label}: {subject.source} is {subject.graph}, a graph without the nn.Conv3d modules that "
            "a block replaces",
            hint="pass the nn.Module itself, or a state_dict with --factory package.module:callable",
        )
    from edge4d.distance import distances
    from edge4d.swapping import swap_with_report

    with clock("swapping"):
        original = subject.model
        subject.model, report = swap_with_report(
            original, block, args=subject.args, kwargs=subject.kwargs, calib=clips, **(options or {})
        )
    if measure:
        with clock("measuring the change"):
            report.distance = distances(original, subject.model, subject.args, subject.kwargs, seed=seed)
            if clips is not None:
                report.distance += distances(original, subject.model, (), {}, data=clips)
    return report
