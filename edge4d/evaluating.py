"""`edge4d eval` as a function: how often models name the right class, on the same clips, whatever runs them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edge4d.clips import frames_for
from edge4d.errors import UsageError
from edge4d.tables import table

if TYPE_CHECKING:
    from edge4d.data.source import Source
    from edge4d.fixed_inputs import Fixes
    from edge4d.ports import Port

__all__ = ["EvalReport", "Score", "evaluate"]

Told = Callable[[float, str], None]


@dataclass(frozen=True)
class Score:
    """One model on all clips.

    Attributes:
        path: the model.
        top1, top5: share of the clips whose class is the best, or among the five best.
        drop: points of top-1 below the first model; None for that one.
        agreement: share of the clips on which it names the first model's class.
    """

    path: Path
    top1: float
    top5: float
    drop: float | None
    agreement: float

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {**vars(self), "path": str(self.path)}


@dataclass
class EvalReport:
    """All models, and whether they are good enough.

    Attributes:
        scores: one a model, in the order given.
        clips: how many were measured.
        views: of each clip.
        skipped: (name, reason) of clips that were not read.
        findings: what falls short of `min_top1` or `max_drop`.
    """

    scores: tuple[Score, ...]
    clips: int
    views: int
    skipped: tuple[tuple[str, str], ...]
    findings: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Nothing falls short."""
        return not self.findings

    def to_dict(self) -> dict[str, Any]:
        """What ``--json`` prints."""
        return {
            "ok": self.ok,
            "clips": self.clips,
            "views": self.views,
            "models": [score.to_dict() for score in self.scores],
            "skipped": [list(entry) for entry in self.skipped],
            "findings": self.findings,
        }

    def to_text(self) -> str:
        """A table, then what falls short."""
        rows = [
            [
                str(s.path),
                f"{s.top1:.2%}",
                f"{s.top5:.2%}",
                "-" if s.drop is None else f"{s.drop:+.2f}",
                f"{s.agreement:.2%}",
            ]
            for s in self.scores
        ]
        lines = [table(["model", "top-1", "top-5", "drop (points)", "agrees with first"], rows, right=(1, 2, 3, 4))]
        lines.append(f"{self.clips} clips, {self.views} view{'' if self.views == 1 else 's'} each")
        if self.skipped:
            shown = "; ".join(f"{name}: {reason}" for name, reason in self.skipped[:5])
            lines.append(f"{len(self.skipped)} clips were not read: {shown}{'; …' if len(self.skipped) > 5 else ''}")
        return "\n".join([*lines, *(f"finding: {finding}" for finding in self.findings)])


def evaluate(
    models: Sequence[Path],
    *,
    data: str | Path,
    split: Path | None = None,
    clips: int = 1,
    crops: int = 1,
    video: Mapping[str, Any] | None = None,
    min_top1: float | None = None,
    max_drop: float | None = None,
    input_shapes: Sequence[tuple[int, ...]] = (),
    factory: str | None = None,
    trust_pickle: bool = False,
    submodule: str | None = None,
    fix: Fixes | None = None,
    workers: int = 0,
    told: Told | None = None,
) -> EvalReport:
    """Measure models on labelled clips.

    The scores of all views of a clip (softmax) are averaged, as the field does it (`clips` · `crops` views; 10 · 3 is
    the protocol of SlowFast).

    Args:
        models: of PyTorch, ONNX files or engines; the first is what the others are held against.
        data, split: see `edge4d.data.open_source`.
        clips, crops: views of each video; arrays have one.
        video: fields of `ClipSpec`.
        min_top1: least share of right answers, in percent, of every model.
        max_drop: points of top-1 that a model may lie below the first.
        input_shapes, factory, trust_pickle, submodule, fix: as in `check_parity`.
        workers: processes that read clips.
        told: hears how far it is.

    Raises:
        UsageError: clips without labels, or that do not fit the network; thresholds out of range.
        LoadError, ValidationError: a file that cannot be read.
        RuntimeUnavailable: a runtime is not installed.
    """
    from edge4d.contenders import open_models
    from edge4d.data.batches import eval_batches
    from edge4d.data.opening import open_source
    from edge4d.data.source import ClipSpec

    if clips < 1 or crops < 1:
        raise UsageError(f"{clips} clips in {crops} crops are no view", hint="give 1 or more of each")
    if max_drop is not None and len(models) < 2:
        raise UsageError(
            "--max-drop compares with the first model, and there is only one", hint="name the original first"
        )
    with ExitStack() as stack:
        opened = open_models(
            models,
            input_shapes,
            factory=factory,
            trust_pickle=trust_pickle,
            submodule=submodule,
            fix=fix,
            stack=stack,
        )
        shape = _clip_shape(models[0], opened.shapes)
        spec = ClipSpec(shape=shape[1:], **_plain_pixels(opened.ports[0], video or {}))  # type: ignore[arg-type]
        source = open_source(data, spec, split)
        if source.classes is None:
            raise UsageError(f"--data {data}: these clips have no labels", hint="eval counts right answers")
        views = 1 if source.fixed else clips * crops
        sums: dict[Path, list[np.ndarray]] = {path: [] for path in models}
        labels: list[int] = []
        skipped: list[tuple[str, str]] = list(source.skipped)
        done = 0
        pending: dict[int, list[Any]] = {}
        kinds = {"clips": 1, "crops": 1} if source.fixed else {"clips": clips, "crops": crops}
        for batch in eval_batches(source, batch=shape[0], workers=workers, **kinds):
            skipped += [entry for entry in batch.failed if entry not in skipped]
            done += len(batch.indices) + len(batch.failed)
            if len(batch.indices):
                _add(batch, opened, models, shape[0], pending)
            if told is not None:
                told(done / (len(source) * views), f"{done // views} of {len(source)} clips")
        for index in sorted(pending):
            entries = pending[index]
            labels.append(int(source.label(index) or 0))
            for path in models:
                sums[path].append(np.mean([entry[path] for entry in entries], axis=0))
    if not labels:
        raise UsageError(
            f"--data {data}: none of its {len(source)} clips can be read", hint=f"{skipped[0][0]}: {skipped[0][1]}"
        )
    return _judged(models, sums, np.asarray(labels), views, skipped, source, min_top1, max_drop)


def _add(batch: Any, opened: Any, models: Sequence[Path], size: int, pending: dict[int, list[Any]]) -> None:
    """Run every model on one batch, filled up to its fixed size, and keep the scores of each view."""
    given = _as_taken(opened.ports[0], batch.clips.numpy())
    filled = np.concatenate([given, np.repeat(given[-1:], size - len(given), 0)]) if len(given) < size else given
    found = {path: _softmax(_scores(path, opened.run(path, filled)))[: len(given)] for path in models}
    for row, index in enumerate(batch.indices):
        pending.setdefault(index, []).append({path: found[path][row] for path in models})


def _plain_pixels(port: Port, video: Mapping[str, Any]) -> dict[str, Any]:
    """Options of the clip reader; for a graph that normalises by itself, pixels stay what they are."""
    if port.intake is None or port.intake.normalize is None:
        return dict(video)
    if twice := [f"--{name}" for name in ("mean", "std") if name in video]:
        raise UsageError(
            f"{', '.join(twice)}: one of the models takes frames and normalises them by itself ({port.intake.text})",
            hint="leave them out: all models get the same frames, normalised as that one does",
        )
    return {**video, "mean": (0.0,), "std": (1.0,)}


def _as_taken(port: Port, clips: np.ndarray) -> np.ndarray:
    """Clips (N, C, T, H, W) as the models' first input takes them.

    Raises:
        UsageError: numbers that are no pixels, for a graph that normalises pixels.
    """
    if port.intake is None:
        return clips
    if port.intake.normalize is not None and (clips.min() < 0 or clips.max() > 1):
        raise UsageError(
            f"the clips hold values from {clips.min():.3g} to {clips.max():.3g}, but {port.name!r} takes frames",
            hint="give uint8 frames or values from 0 to 1, before any normalisation",
        )
    return frames_for(port.intake, clips)


def _scores(path: Path, outputs: Any) -> np.ndarray:
    arrays = list(outputs.values()) if isinstance(outputs, Mapping) else list(outputs)
    if len(arrays) != 1 or arrays[0].ndim != 2 or arrays[0].shape[1] < 2:
        shapes = ", ".join("x".join(map(str, a.shape)) for a in arrays)
        raise UsageError(f"{path} returns {shapes}, expected scores of classes (N, classes)")
    scores: np.ndarray = arrays[0].astype(np.float64)
    return scores


def _softmax(scores: np.ndarray) -> np.ndarray:
    powers = np.exp(scores - scores.max(1, keepdims=True))
    shares: np.ndarray = powers / powers.sum(1, keepdims=True)
    return shares


def _clip_shape(path: Path, shapes: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    if len(shapes) != 1 or len(shapes[0]) != 5 or not all(size > 0 for size in shapes[0]):
        said = ", ".join("x".join(map(str, shape)) for shape in shapes)
        raise UsageError(f"{path} takes {said}, expected one clip (N C T H W)", hint="eval feeds one clip to a network")
    return tuple(shapes[0])


def _judged(
    models: Sequence[Path],
    sums: Mapping[Path, Sequence[np.ndarray]],
    labels: np.ndarray,
    views: int,
    skipped: Sequence[tuple[str, str]],
    source: Source,
    min_top1: float | None,
    max_drop: float | None,
) -> EvalReport:
    """Count, and hold against the thresholds."""
    scores: list[Score] = []
    findings: list[str] = []
    first = np.asarray(sums[models[0]])
    assert source.classes is not None
    if first.shape[1] <= labels.max():
        raise UsageError(
            f"{models[0]} knows {first.shape[1]} classes, the data has {len(source.classes)}",
            hint="they must be the same classes in the same order",
        )
    for path in models:
        found = np.asarray(sums[path])
        if not np.isfinite(found).all():
            bad = int((~np.isfinite(found)).any(1).sum())
            findings.append(f"{path} gives scores that are NaN or infinite on {bad} of {len(found)} clips")
        order = np.argsort(-found, axis=1, kind="stable")
        top1 = float((order[:, 0] == labels).mean())
        top5 = float((order[:, :5] == labels[:, None]).any(1).mean())
        drop = None if path == models[0] else 100 * (scores[0].top1 - top1)
        agreement = float((order[:, 0] == np.argsort(-first, axis=1, kind="stable")[:, 0]).mean())
        scores.append(Score(path, top1, top5, drop, agreement))
        if min_top1 is not None and 100 * top1 < min_top1:
            findings.append(f"{path} is right on {top1:.2%} of the clips, expected at least {min_top1:g} %")
        if max_drop is not None and drop is not None and drop > max_drop:
            findings.append(f"{path} lies {drop:.2f} points below {models[0]}, expected at most {max_drop:g}")
    return EvalReport(tuple(scores), len(labels), views, tuple(skipped), findings)
