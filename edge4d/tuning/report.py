"""What `tune` did: the object that ``--json`` prints and the text that people read."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge4d.tables import table

if TYPE_CHECKING:
    from edge4d.swap_report import SwapReport

__all__ = ["Measurement", "TuneReport"]


@dataclass(frozen=True)
class Measurement:
    """The network, its weights' running mean, on the held-out clips.

    Attributes:
        step: optimiser steps so far.
        seconds: of the run so far.
        loss: the outputs' and labels' part of the loss; what progress is judged by.
        layers: relative squared error of the replaced layers.
        agreement: share of the clips whose class is the teacher's; None for outputs that are no classes.
        accuracy: share of the clips whose class is the label; None without labels.
    """

    step: int
    seconds: float
    loss: float
    layers: float
    agreement: float | None
    accuracy: float | None

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return dict(vars(self))


@dataclass
class TuneReport:
    """One run.

    Attributes:
        path: the tuned network, a ``torch.export`` archive.
        block: the structure.
        source: the model it was made from.
        clips: (learned from, held out).
        teacher: accuracy of the original on the held-out clips; None without labels.
        history: measurements, the first before any step.
        best: the one whose weights were kept.
        steps: optimiser steps that were done.
        ended: why the run ended.
        seconds: how long it took, resumed parts included.
        skipped: (name, reason) of clips that were not read.
        swap: what was replaced.
        notes: what the user should know.
    """

    path: Path
    block: str
    source: str
    clips: tuple[int, int]
    teacher: float | None
    history: tuple[Measurement, ...]
    best: Measurement
    steps: int
    ended: str
    seconds: float
    skipped: tuple[tuple[str, str], ...] = ()
    swap: SwapReport | None = None
    notes: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """What ``--json`` prints."""
        return {
            "path": str(self.path),
            "block": self.block,
            "source": self.source,
            "clips": {"train": self.clips[0], "held_out": self.clips[1]},
            "teacher_accuracy": self.teacher,
            "history": [entry.to_dict() for entry in self.history],
            "best": self.best.to_dict(),
            "steps": self.steps,
            "ended": self.ended,
            "seconds": self.seconds,
            "skipped": [list(entry) for entry in self.skipped],
            "swap": self.swap.to_dict() if self.swap is not None else None,
            "notes": self.notes,
        }

    def to_text(self) -> str:
        """The course of the run, and what came of it."""
        start, best = self.history[0], self.best
        rows = [
            [
                f"{'*' if entry is best else ''}{entry.step}",
                f"{entry.seconds:.0f}",
                f"{entry.loss:.4f}",
                f"{entry.layers:.4f}",
                _share(entry.agreement),
                _share(entry.accuracy),
            ]
            for entry in self.history
        ]
        columns = ["step", "s", "held-out loss", "layers", "agrees", "accuracy"]
        lines = [
            f"{self.path}  ({self.block}, {self.steps} steps in {self.seconds:.0f} s: {self.ended})",
            table(columns, rows, right=(0, 1, 2, 3, 4, 5)),
            f"kept: step {best.step}; held-out loss {start.loss:.4f} -> {best.loss:.4f}",
        ]
        if best.accuracy is not None and self.teacher is not None:
            lines.append(
                f"accuracy on {self.clips[1]} held-out clips: original {self.teacher:.1%}, "
                f"fitted {_share(start.accuracy)}, tuned {_share(best.accuracy)}"
            )
        if self.skipped:
            shown = "; ".join(f"{name}: {reason}" for name, reason in self.skipped[:5])
            more = f"; … and {len(self.skipped) - 5} more" if len(self.skipped) > 5 else ""
            lines.append(f"{len(self.skipped)} clips were not read: {shown}{more}")
        lines.append(f"next: edge4d export {self.path}")
        return "\n".join(lines)


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.1%}"
