"""What a frozen 2D-Net sees of a set, computed once for all structures and seeds."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

import torch

from edge4d.data.batches import eval_batches
from edge4d.data.source import Source, View

if TYPE_CHECKING:
    from torch import Tensor

    from benchmarks.accuracy.config import Config
    from edge4d.models.eco_lite import EcoLite

__all__ = ["FeatureClips", "features_of"]

_BATCH = 32
_kept: dict[str, FeatureClips] = {}


class FeatureClips(Source):
    """Features in the place of clips, one view each.

    Args:
        features: (N, C, T, H, W).
        labels: (N,).
        source: what they were made of.
    """

    fixed = True

    def __init__(self, features: Tensor, labels: tuple[int, ...], source: Source) -> None:
        self.features, self.labels, self.source = features, labels, source
        self.classes, self.skipped = source.classes, source.skipped

    def __len__(self) -> int:
        return len(self.features)

    def name(self, index: int) -> str:
        return self.source.name(index)

    def label(self, index: int) -> int:
        return self.labels[index]

    def read(self, index: int, view: View) -> Tensor:
        return self.features[index]


def features_of(network: EcoLite, source: Source, config: Config, chosen: str, *, test: bool) -> FeatureClips:
    """The features of the training or test clips of a set, each clip in its one fixed view.

    Args:
        network: whose 2D-Net it is; all networks of a configuration start with the same, and it is frozen.
        source: the clips.
        config: of the trainings.
        chosen: name of the set.
        test: which part.
    """
    parts = (asdict(config.network), asdict(config.start), asdict(config.sets[chosen]), test)
    key = json.dumps(parts, sort_keys=True)
    if key not in _kept:
        network.eval()
        device = next(network.parameters()).device
        found: list[Tensor] = []
        labels: list[int] = []
        with torch.no_grad():
            for batch in eval_batches(source, batch=_BATCH):
                found.append(network.features(batch.clips.to(device)).cpu())
                labels += [int(source.label(index) or 0) for index in batch.indices]
        _kept[key] = FeatureClips(torch.cat(found), tuple(labels), source)
    return _kept[key]
