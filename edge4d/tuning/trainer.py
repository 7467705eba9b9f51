"""The loop: steps, measurements, checkpoints, and when to stop."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from edge4d.blocks.base import Block
from edge4d.data.batches import Batch, train_batches
from edge4d.data.source import Source
from edge4d.errors import UsageError
from edge4d.tuning.checkpoints import read_checkpoint, write_checkpoint
from edge4d.tuning.divergence import Diverged, first_not_finite
from edge4d.tuning.layout import channels_first, channels_last
from edge4d.tuning.losses import label_loss, layer_outputs, losses, scores_of
from edge4d.tuning.measuring import measure
from edge4d.tuning.memory import kept_memory
from edge4d.tuning.options import TuneOptions
from edge4d.tuning.pace import Pace
from edge4d.tuning.processes import Processes
from edge4d.tuning.report import Measurement

__all__ = ["Told", "Trainer"]

Told = Callable[[float, str], None]
"""Hears the share of the run that is done, and one line about where it stands."""


@dataclass
class Trainer:
    """One run, from its start or from a checkpoint.

    Attributes:
        teacher: the original, in evaluation mode; left alone.
        student: the rewritten one; trained in place, and left with the best weights.
        layers: names, in both networks, of the layers that are compared.
        train, held_out: clips.
        options: of the run.
        processes: which of how many this is.
        checkpoint: where the run's state lies.
        told: hears how far the run is.
        history: measurements so far, the first before any step.
        failed: names and reasons of clips that could not be read.
        step: steps done.
        stale: measurements since the last progress.
        ended: why the run ended.
        teacher_accuracy: of the original on the held-out clips; None without labels.
    """

    teacher: nn.Module
    student: nn.Module
    layers: tuple[str, ...]
    train: Source
    held_out: Source
    options: TuneOptions
    processes: Processes
    checkpoint: Path
    told: Told | None = None
    history: list[Measurement] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    step: int = 0
    stale: int = 0
    ended: str = ""
    teacher_accuracy: float | None = None

    def __post_init__(self) -> None:
        options, device = self.options, self.processes.device
        self.teacher.to(device).eval().requires_grad_(False)
        self.student.to(device)
        if device.type == "cpu":
            channels_last(self.teacher)
            channels_last(self.student)
        self.trained, self.others = self._parted()
        for parameter in self.others:  # no gradient is computed for what does not learn
            parameter.requires_grad_(False)
        plural = [p for p in self.trained if p.dim() > 1]
        single = [p for p in self.trained if p.dim() <= 1]
        groups = [{"params": plural, "weight_decay": options.decay}, {"params": single, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW([g for g in groups if g["params"]], lr=options.rate)
        self.mean = AveragedModel(self.student, avg_fn=self._blend)
        self.scaler = torch.amp.GradScaler(device.type, enabled=self._autocast == torch.float16)
        self.wrapped = self.processes.wrap(self.student)
        self.pace = Pace(options, len(self.train), self.processes)
        self.best: dict[str, Tensor] | None = None

    @property
    def kept(self) -> Measurement:
        """The best measurement so far; the later one of equals is no progress."""
        return min(self.history, key=lambda entry: entry.loss)

    def resume(self, identity: dict[str, Any]) -> None:
        """Go on from the checkpoint.

        Raises:
            UsageError: it is none, or of another run.
        """
        state = read_checkpoint(self.checkpoint, identity)
        try:
            self.student.load_state_dict(state["student"])
            self.mean.load_state_dict(state["mean"])
            self.optimizer.load_state_dict(state["optimizer"])
        except (RuntimeError, ValueError) as error:  # of torch: other names, or other shapes
            raise UsageError(
                f"{self.checkpoint} belongs to a run with another network: {str(error).splitlines()[-1].strip()[:200]}",
                hint="give the same one, or add --force to begin anew",
            ) from error
        self.scaler.load_state_dict(state["scaler"])
        self.best = state["best"]
        self.history = [Measurement(**entry) for entry in state["history"]]
        self.failed = dict(state["failed"])
        self.step, self.stale, self.pace.spent = state["step"], state["stale"], state["seconds"]
        self.teacher_accuracy = state["teacher_accuracy"]

    def run(self, identity: dict[str, Any]) -> None:
        """Train until the steps, the budget or the patience is used up; the best weights are in `student` then.

        Args:
            identity: kept in every checkpoint, see `read_checkpoint`.

        Raises:
            Diverged: the loss is no longer a number; the checkpoint before that is still there.
            UsageError, ExportError: clips that cannot be read, a disk that is full.
        """
        cuda = [self.processes.device] if self.processes.device.type == "cuda" else []
        with nullcontext() if cuda else kept_memory(), torch.random.fork_rng(devices=cuda):
            torch.manual_seed(self.options.seed)
            self._run(identity)
        channels_first(self.student)

    def _run(self, identity: dict[str, Any]) -> None:
        if not self.history:
            self._measure()
            self._save(identity)
        self.student.train(self.options.norms == "train")
        micro = self._micro()
        batches = train_batches(
            self.train,
            batch=self.options.batch,
            micro=micro,
            first=self.step,
            steps=self.pace.steps,
            seed=self.options.seed,
            vary=self.options.varying,
            workers=self.options.workers,
            rank=self.processes.rank,
            world=self.processes.world,
        )
        parts = self.options.batch // self.processes.world // micro
        while not (ended := self.pace.ended(self.step, self.stale, self.history[-1])):
            loss = self._step(batches, parts)
            self.step += 1
            if self.told is not None:
                text = f"step {self.step}{self.pace.of_steps()}  loss {loss:.4f}{self._last()}"
                self.told(self.pace.progress(self.step), text)
            if self.pace.measuring_is_due(self.step, self.history[-1]):
                self._measure()
                self._save(identity)
            elif self.pace.saving_is_due():
                self._save(identity)
        self.ended = ended
        if self.history[-1].step != self.step:
            self._measure()
        self._save(identity)
        assert self.best is not None
        self.student.load_state_dict(self.best)
        for parameter in self.others:
            parameter.requires_grad_(True)

    # ---- one step -----------------------------------------------------------------------------------------------

    def _step(self, batches: Iterator[Batch], parts: int) -> float:
        factor = self.pace.factor(self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = self.options.rate * factor
        self.optimizer.zero_grad(set_to_none=True)
        total, seen = 0.0, []
        for part in range(parts):
            batch = next(batches)
            self.failed.update(batch.failed)
            seen.append(batch.clips)
            if self.options.norms == "train":  # dropout draws the same after a resume
                torch.manual_seed(_drawn(self.options.seed, self.step, self.processes.rank, part))
            with ExitStack() as stack:
                if part < parts - 1 and isinstance(self.wrapped, nn.parallel.DistributedDataParallel):
                    stack.enter_context(self.wrapped.no_sync())
                loss = self._loss(batch) / parts
                self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
            total += float(loss.detach())
        total = float(self.processes.mean(torch.tensor(total, device=self.processes.device)))
        if not math.isfinite(total):
            self._diverged(seen, total)
        self.scaler.unscale_(self.optimizer)
        norm = nn.utils.clip_grad_norm_(self.trained, self.options.clip)
        if not self.scaler.is_enabled() and not bool(torch.isfinite(norm)):
            self._diverged(seen, total)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.mean.update_parameters(self.student)
        return total

    def _loss(self, batch: Batch) -> Tensor:
        device, weights = self.processes.device, self.options.weights
        clips, labelled = batch.clips.to(device), batch.labelled.to(device)
        labels = batch.labels.to(device) if batch.labels is not None and weights.labels else None
        if labels is not None and not weights.original:
            with torch.autocast(device.type, self._autocast or torch.bfloat16, enabled=self._autocast is not None):
                scores = scores_of(self.wrapped(clips))
            return weights.labels * label_loss(scores, labels, labelled)
        with ExitStack() as stack:
            wanted = stack.enter_context(layer_outputs(self.teacher, self.layers))
            given = stack.enter_context(layer_outputs(self.student, self.layers))
            stack.enter_context(
                torch.autocast(device.type, self._autocast or torch.bfloat16, enabled=self._autocast is not None)
            )
            with torch.no_grad():
                target = self.teacher(clips)
            output = self.wrapped(clips)
        found = losses(target, output, wanted, given, labels, weights.temperature, labelled)
        return found.total(weights)

    def _diverged(self, seen: list[Tensor], loss: float) -> None:
        """Name the first layer whose output is no longer finite, in the first process that sees one."""
        mine = first_not_finite(self.student, (clips.to(self.processes.device) for clips in seen))
        culprit = next(filter(None, self.processes.gather(mine)), "")
        where = f"the output of {culprit} is the first that is not" if culprit else "it is the gradient that is not"
        raise Diverged(
            f"the loss is {loss} at step {self.step + 1}: {where} a finite number; "
            f"{self.checkpoint} keeps the last good state",
            hint="begin anew with a lower --rate (--force), or with --amp off",
        )

    # ---- measuring ----------------------------------------------------------------------------------------------

    def _measure(self) -> None:
        """The running mean of the weights on the held-out clips; the best weights so far are kept."""
        begun = time.monotonic()
        network = self.mean.module if self.step else self.student
        found = measure(
            self.teacher,
            network,
            self.layers,
            self.held_out,
            self.options.weights,
            batch=self._micro(),
            workers=self.options.workers,
            processes=self.processes,
        )
        if not math.isfinite(found.loss):
            raise Diverged(
                f"the loss on the held-out clips is {found.loss} after {self.step} steps: the original or the tuned "
                "network gives values that are not finite numbers",
                hint="are the clips normalised as the network was trained?",
            )
        self.failed.update(found.failed)
        self.teacher_accuracy = found.teacher
        entry = Measurement(self.step, self.pace.seconds, found.loss, found.layers, found.agreement, found.accuracy)
        if not self.history or entry.loss < self.kept.loss:
            self.best, self.stale = {k: v.detach().cpu().clone() for k, v in network.state_dict().items()}, 0
        else:
            self.stale += 1
        self.history.append(entry)
        self.pace.measuring = time.monotonic() - begun

    def _last(self) -> str:
        last = self.history[-1]
        share = last.accuracy if last.accuracy is not None else last.agreement
        return f"  held-out loss {last.loss:.4f}" + ("" if share is None else f" ({share:.1%})")

    # ---- small matters ------------------------------------------------------------------------------------------

    def _micro(self) -> int:
        """Clips that go through the network at once."""
        return max(1, self.options.batch // self.processes.world // self.options.accumulate)

    def _parted(self) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
        """(what learns, what could and does not)."""
        able = [p for p in self.student.parameters() if p.requires_grad]
        if self.options.trained == "all":
            return able, []
        blocks = [m for m in self.student.modules() if isinstance(m, Block)]
        chosen = {id(p) for m in blocks for p in m.parameters()}
        return [p for p in able if id(p) in chosen], [p for p in able if id(p) not in chosen]

    @property
    def _autocast(self) -> torch.dtype | None:
        if self.options.amp == "auto":
            able = self.processes.device.type == "cuda" and torch.cuda.is_bf16_supported()
            return torch.bfloat16 if able else None
        return {"off": None, "bf16": torch.bfloat16, "fp16": torch.float16}[self.options.amp]

    def _blend(self, mean: Tensor, value: Tensor, count: Tensor | int) -> Tensor:
        """Running mean whose memory grows from a few steps to 1 / (1 − ema) of them."""
        decay = min(self.options.ema, (1 + float(count)) / (10 + float(count)))
        return mean + (value - mean) * (1 - decay)

    def _save(self, identity: dict[str, Any]) -> None:
        self.pace.saved = time.monotonic()
        for found in self.processes.gather(self.failed):
            self.failed.update(found)
        if not self.processes.first:
            return
        state = {
            "identity": identity,
            "student": self.student.state_dict(),
            "mean": self.mean.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "best": self.best,
            "history": [entry.to_dict() for entry in self.history],
            "failed": self.failed,
            "teacher_accuracy": self.teacher_accuracy,
            "step": self.step,
            "stale": self.stale,
            "seconds": self.pace.seconds,
        }
        write_checkpoint(self.checkpoint, state)


def _drawn(*numbers: int) -> int:
    """A seed of 64 bits that these numbers mean."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0])
