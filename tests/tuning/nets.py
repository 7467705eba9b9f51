"""A network small enough to be tuned in a test, and clips that it can tell apart."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

SHAPE = (1, 4, 8, 8)
CLASSES = 3


class Tiny(nn.Module):
    """Conv3d, norm, ReLU, Conv3d, mean, linear."""

    def __init__(self, classes=CLASSES):
        super().__init__()
        self.first = nn.Conv3d(1, 6, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm3d(6)
        self.second = nn.Conv3d(6, 8, 3, padding=1, stride=(1, 2, 2))
        self.drop = nn.Dropout(0.3)
        self.head = nn.Linear(8, classes)

    def forward(self, clip):
        features = self.second(self.norm(self.first(clip)).relu()).relu()
        return self.head(self.drop(features.mean((2, 3, 4))))


class Scaled(Tiny):
    """Reads a second input by value, as a network with modes does."""

    def forward(self, clip, mode):
        scores = super().forward(clip)
        return -scores if mode == "worst" else scores


class Holder(nn.Module):
    """A network of which one part is wanted."""

    def __init__(self):
        super().__init__()
        self.video = build(Scaled)

    def forward(self, clip, text):
        return self.video(clip, "best") + text


def build_holder():
    """A factory as well."""
    return Holder().eval()


def build(kind=Tiny):
    """The factory: seeded, so that every process has the same network."""
    with torch.random.fork_rng():
        torch.manual_seed(5)
        net = kind().eval()
        with torch.no_grad():
            net.norm.running_mean.uniform_(-0.2, 0.2)
            net.norm.running_var.uniform_(0.5, 1.5)
            # as training would: scores far apart, classes in balance
            scores = Tiny.forward(net, torch.from_numpy(_noise(64, 9)))
            scale = 4 / scores.std(0)
            net.head.weight.mul_(scale[:, None])
            net.head.bias.sub_(scores.mean(0)).mul_(scale)
    return net


def clips(count=48, seed=0):
    """(clips, labels): the labels are what the network itself says."""
    found = _noise(count, seed)
    with torch.no_grad():
        return found, build()(torch.from_numpy(found)).argmax(1).numpy()


def _noise(count, seed):
    """Patterns that differ from clip to clip in size and mean, which is what is left after the network's pooling."""
    rng = np.random.default_rng(seed)
    size, mean = rng.uniform(0.3, 2, (count, 1, 1, 1, 1)), rng.uniform(-1, 1, (count, 1, 1, 1, 1))
    return (size * rng.standard_normal((count, *SHAPE)) + mean).astype(np.float32)


def write_clips(path, count=48, seed=0, **others):
    """As ``.npz`` with labels."""
    found, labels = clips(count, seed)
    np.savez(path, **{"clips": found, "labels": labels, **others})
    return path
