"""One training: a structure, a seed, and a chain of sets that it learns one after the other."""

from __future__ import annotations

import hashlib
import json
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.accuracy.clips import open_set
from benchmarks.accuracy.features import features_of
from benchmarks.accuracy.optimizing import Optimizing
from edge4d import models
from edge4d.data.batches import eval_batches, train_batches
from edge4d.tuning.checkpoints import checkpoint_path, read_checkpoint, write_checkpoint
from edge4d.tuning.divergence import Diverged

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from benchmarks.accuracy.config import Config, Stage
    from edge4d.data.source import Source
    from edge4d.models.eco_lite import EcoLite

__all__ = ["Trained", "build", "key_of", "measure", "train_chain"]

_SAVE_EVERY = 120.0  # seconds between checkpoints within a training
_EVAL_BATCH = 50


@dataclass(frozen=True)
class Trained:
    """A finished training.

    Attributes:
        weights: its state_dict.
        facts: what is recorded of it, JSON-ready.
    """

    weights: dict[str, Tensor]
    facts: dict[str, Any]


def key_of(config: Config, chain: tuple[str, ...], structure: str, seed: int) -> str:
    """Sixteen hexadecimal digits that stand for all that decides the training's numbers."""
    text = json.dumps(config.identity(chain, structure, seed), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def build(config: Config, structure: str, classes: int, start: Mapping[str, Tensor] | None, seed: int) -> EcoLite:
    """The network with the weights of that seed, a head of that many classes, and the 2D-Net's start."""
    torch.manual_seed(seed)
    network = models.build(config.network.model, structure, frames=config.network.frames)
    network.net3d.fc = nn.Linear(network.net3d.fc.in_features, classes)
    network.input_shape = (1, 3, config.network.frames, config.network.size, config.network.size)
    if start is not None:
        network.net2d.load_state_dict(start)
    network.net2d.requires_grad_(not config.network.freeze_2d)
    return network


def train_chain(
    config: Config,
    chain: tuple[str, ...],
    structure: str,
    seed: int,
    *,
    start: Mapping[str, Tensor] | None,
    folder: Path,
    told: Callable[[str], None],
    device: str = "cpu",
) -> Trained:
    """Train on the last set of a chain, from what the sets before it left; finished trainings are read from `folder`.

    Raises:
        Diverged: the loss is no longer a number.
        UsageError: clips that cannot be read.
        ExportError: a full disk.
    """
    kept = folder / f"{'-'.join(chain)}-{structure}-{seed}-{key_of(config, chain, structure, seed)}.pt"
    identity = {"training": config.identity(chain, structure, seed)}
    if kept.exists():
        state = read_checkpoint(kept, identity)
        return Trained(state["weights"], state["facts"])
    before = None
    if len(chain) > 1:
        before = train_chain(config, chain[:-1], structure, seed, start=start, folder=folder, told=told, device=device)
    spec, stage = config.sets[chain[-1]], config.stages[chain[-1]]
    train, test = (open_set(spec, config.network, test=each) for each in (False, True))
    classes = train.classes
    assert classes is not None
    network = build(config, structure, len(classes), start, seed)
    if before is not None:
        body = {name: value for name, value in before.weights.items() if not name.startswith("net3d.fc.")}
        network.load_state_dict(body, strict=False)
    network.to(device)
    learner: nn.Module = network
    if config.network.cache_2d:
        train = features_of(network, train, config, chain[-1], test=False)
        test = features_of(network, test, config, chain[-1], test=True)
        learner = network.net3d
    title = f"{' → '.join(chain)}  {structure}  seed {seed}"
    frozen = network.net2d if config.network.freeze_2d and learner is network else None
    facts = _fit(
        learner,
        train,
        stage,
        checkpoint_path(kept),
        identity,
        rate=(stage.finetune_rate if before is not None else None) or stage.rate,
        seed=seed,
        frozen=frozen,
        told=lambda line: told(f"{title}  {line}"),
    )
    top1, top5, tested, failed = measure(learner, test, stage.views, stage.crops, device, stage.workers)
    facts |= {
        "top1": top1,
        "top5": top5,
        "seconds_before": 0.0 if before is None else before.facts["seconds"] + before.facts["seconds_before"],
        "parameters": sum(p.numel() for p in network.parameters()),
        "classes": len(classes),
        "train_clips": len(train),
        "test_clips": tested,
        "unreadable_test_clips": failed,
        "device": device,
    }
    weights = {name: value.cpu() for name, value in network.state_dict().items()}
    write_checkpoint(kept, {"identity": identity, "weights": weights, "facts": facts})
    checkpoint_path(kept).unlink(missing_ok=True)
    told(f"{title}  top-1 {top1:.1%} of {tested} test clips, {facts['seconds']:.0f} s")
    return Trained(weights, facts)


def _fit(
    network: nn.Module,
    train: Source,
    stage: Stage,
    checkpoint: Path,
    identity: dict[str, Any],
    *,
    rate: float,
    seed: int,
    frozen: nn.Module | None,
    told: Callable[[str], None],
) -> dict[str, Any]:
    """All epochs, from the checkpoint where there is one; returns the curve and the seconds."""
    total = max(1, stage.epochs * len(train) // stage.batch)
    optimizing = Optimizing(network, rate, stage.decay, total)
    curve: list[dict[str, float]] = []
    spent, worked = 0.0, 0.0
    if checkpoint.exists():
        state = read_checkpoint(checkpoint, identity)
        network.load_state_dict(state["network"])
        optimizing.load_state_dict(state["optimizer"])
        curve, spent, worked = state["curve"], state["seconds"], state["cpu_seconds"]
    device = next(network.parameters()).device
    begun = saved = time.monotonic()
    worked -= time.process_time()
    network.train()
    if frozen is not None:
        frozen.eval()
    sums, first = [0.0, 0.0, 0], optimizing.done
    batches = train_batches(
        train, batch=stage.batch, micro=stage.batch, first=first, steps=total, seed=seed, workers=stage.workers
    )
    for batch in batches:
        assert batch.labels is not None
        clips, labels = batch.clips.to(device), batch.labels.to(device)
        scores = network(clips)
        loss = optimizing.step(F.cross_entropy(scores, labels))
        if not math.isfinite(loss):
            raise Diverged(
                f"the loss is {loss} at step {optimizing.done} of {checkpoint.stem}",
                hint="lower the rate of this stage",
            )
        sums = [sums[0] + loss * len(clips), sums[1] + float((scores.argmax(1) == labels).sum()), sums[2] + len(clips)]
        epoch = optimizing.done * stage.epochs / total
        if int(epoch) > len(curve):
            curve.append({"epoch": len(curve) + 1, "loss": sums[0] / sums[2], "train_top1": sums[1] / sums[2]})
            sums = [0.0, 0.0, 0]
            last = curve[-1]
            told(f"epoch {len(curve)}/{stage.epochs}  loss {last['loss']:.3f}  train {last['train_top1']:.1%}")
            if time.monotonic() - saved > _SAVE_EVERY and optimizing.done < total:
                saved = time.monotonic()
                state = {"network": network.state_dict(), "optimizer": optimizing.state_dict(), "curve": curve}
                used = {"seconds": spent + saved - begun, "cpu_seconds": worked + time.process_time()}
                write_checkpoint(checkpoint, {"identity": identity, **state, **used})
    return {
        "curve": curve,
        "seconds": round(spent + time.monotonic() - begun, 1),
        "cpu_seconds": round(worked + time.process_time(), 1),
    }


def measure(
    network: nn.Module, test: Source, views: int = 1, crops: int = 1, device: str = "cpu", workers: int = 0
) -> tuple[float, float, int, int]:
    """Top-1, top-5, clips that were measured and clips that could not be read; scores are means over a clip's views."""
    network.eval()
    scores: dict[int, Tensor] = {}
    unreadable: set[str] = set()
    if test.fixed:
        views = crops = 1
    with torch.no_grad():
        for batch in eval_batches(test, batch=_EVAL_BATCH, clips=views, crops=crops, workers=workers):
            unreadable.update(name for name, _ in batch.failed)
            if not batch.indices:
                continue
            found = network(batch.clips.to(device)).softmax(1).double().cpu()
            for index, row in zip(batch.indices, found, strict=True):
                scores[index] = scores[index] + row if index in scores else row
    labels = torch.tensor([test.label(index) for index in scores])
    best = torch.stack(list(scores.values())).topk(min(5, len(next(iter(scores.values()))))).indices
    right = best == labels[:, None]
    return float(right[:, 0].double().mean()), float(right.any(1).double().mean()), len(labels), len(unreadable)
