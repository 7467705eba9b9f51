"""How near a network comes to its teacher, and to the labels, on clips that it has not learned from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from edge4d.data.batches import eval_batches
from edge4d.errors import UsageError
from edge4d.subject import evaluation
from edge4d.tuning.losses import Weights, layer_outputs, losses

if TYPE_CHECKING:
    from edge4d.data.source import Source
    from edge4d.tuning.processes import Processes

__all__ = ["Found", "measure"]


@dataclass(frozen=True)
class Found:
    """Over all processes' clips.

    Attributes:
        loss: the outputs' and labels' part of the loss.
        layers: relative squared error of the compared layers.
        agreement: share of the clips whose class is the teacher's; None for outputs that are no classes.
        accuracy, teacher: share of the clips whose class is the label, of the network and of its teacher; None without.
        failed: names and reasons of this process's clips that could not be read.
    """

    loss: float
    layers: float
    agreement: float | None
    accuracy: float | None
    teacher: float | None
    failed: dict[str, str]


def measure(
    teacher: nn.Module,
    network: nn.Module,
    layers: Sequence[str],
    clips: Source,
    weights: Weights,
    *,
    batch: int,
    workers: int,
    processes: Processes,
) -> Found:
    """Run both networks on every clip once, in evaluation mode.

    Args:
        teacher, network: left as they are.
        layers: names of the layers that are compared.
        clips: shared out among the processes.
        weights: of the parts of the loss.
        batch: clips at once.
        workers: processes that read clips.
        processes: which of how many this is.

    Raises:
        UsageError: none of the clips can be read.
    """
    sums = torch.zeros(len(_Sums._fields), dtype=torch.float64)
    failed: dict[str, str] = {}
    with (
        torch.no_grad(),
        evaluation(network),
        layer_outputs(teacher, layers) as wanted,
        layer_outputs(network, layers) as given,
    ):
        for found in eval_batches(clips, batch=batch, workers=workers, rank=processes.rank, world=processes.world):
            failed.update(found.failed)
            if not len(found.clips):
                continue
            for calls in (*wanted.values(), *given.values()):
                calls.clear()
            inputs = found.clips.to(processes.device)
            labels = None if found.labels is None else found.labels.to(processes.device)
            target, output = teacher(inputs), network(inputs)
            parts = losses(target, output, wanted, given, labels if weights.labels else None, weights.temperature)
            row = (float(parts.outputs), float(parts.labels or 0.0), float(parts.layers))
            sums += len(inputs) * torch.tensor(_Sums(1.0, *row, *_shares(target, output, labels)))
    total = _Sums(*processes.sum(sums.to(processes.device)).tolist())
    if not total.clips:
        raise UsageError(
            "none of the held-out clips can be read",
            hint="; ".join(f"{name}: {reason}" for name, reason in list(failed.items())[:3]),
        )
    labelled = bool(total.scores) and clips.classes is not None
    return Found(
        (weights.outputs * total.outputs + weights.labels * total.labels) / total.clips,
        total.layers / total.clips,
        total.agreeing / total.clips if total.scores else None,
        total.correct / total.clips if labelled else None,
        total.teacher / total.clips if labelled else None,
        failed,
    )


class _Sums(NamedTuple):
    """Over clips: how many, parts of the loss, how many have scores, agree, are right (student, teacher)."""

    clips: float
    outputs: float
    labels: float
    layers: float
    scores: float
    agreeing: float
    correct: float
    teacher: float


def _shares(teacher: Any, student: Any, labels: Tensor | None) -> tuple[float, float, float, float]:
    """Shares of the clips: with scores, where both name one class, where the student is right, where the teacher is."""
    if not (isinstance(teacher, Tensor) and teacher.dim() == 2 and teacher.shape[1] > 1):
        return 0.0, 0.0, 0.0, 0.0
    chosen, named = student.argmax(1), teacher.argmax(1)
    right = (0.0, 0.0) if labels is None else ((chosen == labels).float().mean(), (named == labels).float().mean())
    return 1.0, float((chosen == named).float().mean()), float(right[0]), float(right[1])
