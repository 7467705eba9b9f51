"""Small networks on clips N C T H W, and the files that hold them."""

from __future__ import annotations

import json
import os
import pickle
import zipfile
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

CLIP = (2, 3, 4, 8, 8)


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv3d(3, 4, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm3d(4)
        self.register_buffer("scale", torch.arange(1.0, 5.0).view(1, 4, 1, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.bn1(self.conv1(x)).relu() * self.scale


class Net(nn.Module):
    """Conv3d, batch norm with statistics of its own, dropout, a buffer and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.layer1 = nn.Sequential(Block())
        self.drop = nn.Dropout(0.5)
        self.fc = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.drop(self.layer1(x).mean((2, 3, 4))))


class Two(nn.Module):
    """Two inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv3d(3, 2, 1)
        self.b = nn.Conv3d(1, 2, 1)

    def forward(self, clip: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return self.a(clip) + self.b(mask)


def build() -> Net:
    return Net()


def make_net(cls: Callable[[], nn.Module] = Net) -> nn.Module:
    """A network in eval mode whose weights and running statistics are all non-trivial; the same on every call."""
    torch.manual_seed(3)
    net = cls()
    for part in net.modules():
        if isinstance(part, nn.BatchNorm3d):
            part.running_mean.uniform_(-0.5, 0.5)
            part.running_var.uniform_(0.5, 2.0)
            nn.init.uniform_(part.weight, 0.5, 1.5)
    return net.eval()


def clip(*shape: int) -> torch.Tensor:
    return torch.randn(shape or CLIP, generator=torch.Generator().manual_seed(7))


def save_program(path: Path, net: nn.Module | None = None, **options: Any) -> Path:
    torch.export.save(torch.export.export(net or make_net(), (clip(),), **options), str(path))
    return path


class Evil:
    """Unpickling it creates the folder `marker`."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.marker),)


def evil_pickle(marker: Path) -> bytes:
    return pickle.dumps(Evil(marker), protocol=2)


def edit_archive(source: Path, target: Path, changes: dict[str, bytes | Callable[[Any], Any]]) -> Path:
    """Copy a PyTorch zip archive with members replaced, added (bytes) or edited (a function on their JSON).

    Member names are without the archive's top folder.
    """
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        top = old.namelist()[0].partition("/")[0]
        left = dict(changes)
        for name in old.namelist():
            inner, data = name.partition("/")[2], old.read(name)
            change = left.pop(inner, None)
            if callable(change):
                content = json.loads(data)
                data = json.dumps(change(content) or content).encode()
            elif change is not None:
                data = change
            new.writestr(name, data)
        for inner, data in left.items():
            assert isinstance(data, bytes), f"{inner} is not in the archive"
            new.writestr(f"{top}/{inner}", data)
    return target
