"""The loop: steps, measurements, checkpoints, and when to stop."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from edge4d.blocks.base import Block
from edge4d.data.batches import Batch, train_batches
from edge4d.data.source import Source
from edge4d.errors import Edge4dError
from edge4d.tuning.checkpoints import read_checkpoint, write_checkpoint
from edge4d.tuning.layout import channels_first, channels_last
from edge4d.tuning.losses import layer_outputs, losses
from edge4d.tuning.measuring import measure
from edge4d.tuning.options import TuneOptions
from edge4d.tuning.processes import Processes
from edge4d.tuning.report import Measurement

__all__ = ["Diverged", "Trainer", "Told"]

_MEASUREMENTS = 20  # of a run

Told = Callable[[float, str], None]
"""Hears the share of the run that is done, and one line about where it stands."""


class Diverged(Edge4dError):
    """The loss is no longer a number."""

    exit_code = 1


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
        trained = self._trained()
        plural = [p for p in trained if p.dim() > 1]
        single = [p for p in trained if p.dim() <= 1]
        groups = [{"params": plural, "weight_decay": options.decay}, {"params": single, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW([g for g in groups if g["params"]], lr=options.rate)
        self.mean = AveragedModel(self.student, avg_fn=self._blend)
        self.scaler = torch.amp.GradScaler(device.type, enabled=self._autocast == torch.float16)
        self.wrapped = self.processes.wrap(self.student)
        self.steps = options.steps_for(len(self.train))
        self.every = self._interval()
        self.spent = 0.0  # seconds of earlier parts of the run
        self.begun = self.saved = time.monotonic()
        self.best: dict[str, Tensor] | None = None
        self.measuring = 0.0

    @property
    def seconds(self) -> float:
        """Of the run so far."""
        return self.spent + time.monotonic() - self.begun

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
        self.student.load_state_dict(state["student"])
        self.mean.load_state_dict(state["mean"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scaler.load_state_dict(state["scaler"])
        self.best = state["best"]
        self.history = [Measurement(**entry) for entry in state["history"]]
        self.failed = dict(state["failed"])
        self.step, self.stale, self.spent = state["step"], state["stale"], state["seconds"]
        self.teacher_accuracy = state["teacher_accuracy"]

    def run(self, identity: dict[str, Any]) -> None:
        """Train until the steps, the budget or the patience is used up; the best weights are in `student` then.

        Args:
            identity: kept in every checkpoint, see `read_checkpoint`.

        Raises:
            Diverged: the loss is no longer a number; the checkpoint before that is still there.
            UsageError, ExportError: clips that cannot be read, a disk that is full.
        """
        torch.manual_seed(self.options.seed)
        if not self.history:
            self._measure()
            self._save(identity)
        self._set_mode()
        self.ended = "all steps done"
        with ExitStack() as stack:
            wanted = stack.enter_context(layer_outputs(self.teacher, self.layers))
            given = stack.enter_context(layer_outputs(self.student, self.layers))
            micro = self._micro()
            batches = train_batches(
                self.train,
                batch=self.options.batch,
                micro=micro,
                first=self.step,
                steps=self.steps,
                seed=self.options.seed,
                vary=self.options.varying,
                workers=self.options.workers,
                rank=self.processes.rank,
                world=self.processes.world,
            )
            parts = self.options.batch // self.processes.world // micro
            while self.steps is None or self.step < self.steps:
                if self._late():
                    self.ended = "the budget is used up"
                    break
                loss = self._step(batches, parts, wanted, given)
                self.step += 1
                if self.told is not None:
                    self.told(self._progress(), f"step {self.step}{self._of()}  loss {loss:.4f}{self._last()}")
                if self._due():
                    self._measure()
                    self._save(identity)
                    if self._stuck():
                        self.ended = f"no progress in {self.stale} measurements"
                        break
                elif self.processes.agree(time.monotonic() - self.saved) > self.options.save_every:
                    self._save(identity)
        if self.history[-1].step != self.step:
            self._measure()
        self._save(identity)
        assert self.best is not None
        self.student.load_state_dict(self.best)
        channels_first(self.student)

    # ---- one step -----------------------------------------------------------------------------------------------

    def _step(
        self, batches: Iterator[Batch], parts: int, wanted: dict[str, list[Tensor]], given: dict[str, list[Tensor]]
    ) -> float:
        factor = self._factor()
        for group in self.optimizer.param_groups:
            group["lr"] = self.options.rate * factor
        self.optimizer.zero_grad(set_to_none=True)
        total = 0.0
        for part in range(parts):
            batch = next(batches)
            self.failed.update(batch.failed)
            with ExitStack() as stack:
                if part < parts - 1 and isinstance(self.wrapped, nn.parallel.DistributedDataParallel):
                    stack.enter_context(self.wrapped.no_sync())
                loss = self._loss(batch, self.wrapped, wanted, given) / parts
                self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
            total += float(loss.detach())
        total = float(self.processes.mean(torch.tensor(total, device=self.processes.device)))
        if not math.isfinite(total):
            self._diverged(batch, total)
        self.scaler.unscale_(self.optimizer)
        norm = nn.utils.clip_grad_norm_(self._trained(), self.options.clip)
        if not self.scaler.is_enabled() and not bool(torch.isfinite(norm)):
            self._diverged(batch, total)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.mean.update_parameters(self.student)
        return total

    def _loss(
        self,
        batch: Batch,
        student: nn.Module,
        wanted: dict[str, list[Tensor]],
        given: dict[str, list[Tensor]],
    ) -> Tensor:
        for calls in (*wanted.values(), *given.values()):
            calls.clear()
        device = self.processes.device
        clips = batch.clips.to(device)
        labels = batch.labels.to(device) if batch.labels is not None and self.options.weights.labels else None
        with torch.autocast(device.type, self._autocast or torch.bfloat16, enabled=self._autocast is not None):
            with torch.no_grad():
                target = self.teacher(clips)
            output = student(clips)
        weights, labelled = self.options.weights, batch.labelled.to(device)
        return losses(target, output, wanted, given, labels, weights.temperature, labelled).total(weights)

    def _diverged(self, batch: Batch, loss: float) -> None:
        """Name the first layer whose output is no longer finite."""
        culprit = ""

        def look(name: str) -> Any:
            def hook(_module: nn.Module, _args: Any, output: Any) -> None:
                nonlocal culprit
                if not culprit and isinstance(output, Tensor) and not bool(torch.isfinite(output).all()):
                    culprit = name

            return hook

        leaves = [(name, m) for name, m in self.student.named_modules() if name and not list(m.children())]
        handles = [m.register_forward_hook(look(name)) for name, m in leaves]
        try:
            with torch.no_grad():
                self.student(batch.clips.to(self.processes.device))
        finally:
            for handle in handles:
                handle.remove()
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
        self.failed.update(found.failed)
        self.teacher_accuracy = found.teacher
        entry = Measurement(self.step, self.seconds, found.loss, found.layers, found.agreement, found.accuracy)
        if not self.history or entry.loss < self.kept.loss:
            self.best, self.stale = {k: v.detach().cpu().clone() for k, v in network.state_dict().items()}, 0
        else:
            self.stale += 1
        self.history.append(entry)
        self.measuring = time.monotonic() - begun

    def _interval(self) -> int | None:
        """Steps between measurements; None for a twentieth of the budget."""
        once = math.ceil(len(self.train) / self.options.batch)
        if self.options.every is not None or self.steps is None:
            return self.options.every
        return once if self.options.steps is not None else max(1, min(once, self.steps // _MEASUREMENTS))

    def _due(self) -> bool:
        """Whether to measure after this step."""
        if self.step == self.steps:
            return True
        if self.every is not None:
            return self.step % self.every == 0
        assert self.options.budget is not None
        return self.processes.agree(self.seconds - self.history[-1].seconds) > self.options.budget / _MEASUREMENTS

    def _stuck(self) -> bool:
        """Whether it is no use to go on. While the rate is high a good fit gets worse before it gets better."""
        return self.stale >= self.options.patience and self.processes.agree(self._progress()) > 0.5

    def _of(self) -> str:
        return "" if self.steps is None else f"/{self.steps}"

    def _last(self) -> str:
        last = self.history[-1]
        share = last.accuracy if last.accuracy is not None else last.agreement
        return f"  held-out loss {last.loss:.4f}" + ("" if share is None else f" ({share:.1%})")

    # ---- small matters ------------------------------------------------------------------------------------------

    def _micro(self) -> int:
        """Clips that go through the network at once."""
        return max(1, self.options.batch // self.processes.world // self.options.accumulate)

    def _trained(self) -> list[nn.Parameter]:
        if self.options.trained == "all":
            return [p for p in self.student.parameters() if p.requires_grad]
        blocks = [m for m in self.student.modules() if isinstance(m, Block)]
        return list(dict.fromkeys(p for m in blocks for p in m.parameters()))

    def _set_mode(self) -> None:
        self.student.train(self.options.norms == "train")

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

    def _progress(self) -> float:
        """Share of the run that is done: of its steps, or of its time if that is more."""
        used = self.seconds / self.options.budget if self.options.budget else 0.0
        return min(1.0, max(self.step / self.steps if self.steps else 0.0, used))

    def _factor(self) -> float:
        done = self.processes.agree(self._progress())
        risen = done if self.steps is None else (self.step + 1) / self.steps
        rising = min(1.0, risen / self.options.warmup) if self.options.warmup else 1.0
        return rising * 0.5 * (1 + math.cos(math.pi * done))

    def _late(self) -> bool:
        """Whether there is time for no more than the last measurement."""
        if self.options.budget is None:
            return False
        return self.processes.agree(self.seconds + 1.5 * self.measuring) >= self.options.budget

    def _save(self, identity: dict[str, Any]) -> None:
        self.saved = time.monotonic()
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
            "seconds": self.seconds,
        }
        write_checkpoint(self.checkpoint, state)
