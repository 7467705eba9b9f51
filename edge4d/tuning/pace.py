"""How far a run is, and what follows from that: the learning rate, when to measure, when to end."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edge4d.tuning.options import TuneOptions
    from edge4d.tuning.processes import Processes
    from edge4d.tuning.report import Measurement

__all__ = ["Pace"]

_MEASUREMENTS = 20  # of a run
_MEASURING = 0.1  # of the time at most, where the budget decides: more of it is better spent on steps


class Pace:
    """The clock of one run. Clocks of processes differ, decisions must not: what the first one's says counts.

    Args:
        options: of the run.
        clips: how many it learns from.
        processes: which of how many this is.

    Attributes:
        steps: of the whole run; None when the budget decides.
        every: steps between measurements; None for a twentieth of the budget, or more where measuring takes long.
        spent: seconds of earlier parts of a resumed run.
        measuring: seconds that the last measurement took.
    """

    def __init__(self, options: TuneOptions, clips: int, processes: Processes) -> None:
        self.options, self.processes = options, processes
        self.steps = options.steps_for(clips)
        self.every = self._interval(math.ceil(clips / options.batch))
        self.spent = self.measuring = 0.0
        self.begun = self.saved = time.monotonic()

    @property
    def seconds(self) -> float:
        """Of the run so far."""
        return self.spent + time.monotonic() - self.begun

    def of_steps(self) -> str:
        """For messages: ``/STEPS`` where they are known."""
        return "" if self.steps is None else f"/{self.steps}"

    def progress(self, step: int) -> float:
        """Share of the run that is done after `step` steps: of its steps, or of its time if that is more."""
        used = self.seconds / self.options.budget if self.options.budget else 0.0
        return min(1.0, max(step / self.steps if self.steps else 0.0, used))

    def factor(self, step: int) -> float:
        """Of the peak learning rate, for the step after `step` others: a rise, then half a cosine down to 0."""
        done = self.processes.agree(self.progress(step))
        risen = done if self.steps is None else (step + 1) / self.steps
        rising = min(1.0, risen / self.options.warmup) if self.options.warmup else 1.0
        return rising * 0.5 * (1 + math.cos(math.pi * done))

    def measuring_is_due(self, step: int, last: Measurement) -> bool:
        """Whether to measure after this step, `last` being the measurement before."""
        if step == self.steps:
            return True
        if self.every is not None:
            return step % self.every == 0
        assert self.options.budget is not None
        wait = max(self.options.budget / _MEASUREMENTS, self.measuring * (1 / _MEASURING - 1))
        return self.processes.agree(self.seconds - last.seconds - wait) > 0

    def saving_is_due(self) -> bool:
        """Whether the last checkpoint is old."""
        return self.processes.agree(time.monotonic() - self.saved) > self.options.save_every

    def ended(self, step: int, stale: int, last: Measurement) -> str:
        """Why the run is over after so many steps, `stale` of its measurements without progress; empty if it is not."""
        if self.steps is not None and step >= self.steps:
            return "all steps done"
        # While the rate is high a good fit gets worse before it gets better.
        if stale >= self.options.patience and last.step == step and self.processes.agree(self.progress(step)) > 0.5:
            return f"no progress in {stale} measurements"
        # Is there time for no more than the last measurement?
        if self.options.budget is not None:
            taken = self.processes.agree(self.seconds + 1.5 * self.measuring)
            return "the budget is used up" if taken >= self.options.budget else ""
        return ""

    def _interval(self, once: int) -> int | None:
        if self.options.every is not None or self.steps is None:
            return self.options.every
        return once if self.options.steps is not None else max(1, min(once, self.steps // _MEASUREMENTS))
