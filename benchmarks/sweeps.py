"""What `benchmarks.scaling` measures: the networks of scaling.toml, and how far each factor is moved from its base."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge4d.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor, nn

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["FACTORS", "SWEEPS", "Point", "Sweeps", "load_sweeps"]

SWEEPS = Path(__file__).with_name("scaling.toml")
FACTORS = ("frames", "channels", "side", "batch")
STACK = "stack"


@dataclass(frozen=True)
class Point:
    """One network at one size.

    Attributes:
        network: `STACK`, or a name of the zoo.
        factors: frames, channels (of the stack alone), side and batch.
        varies: the sweeps that it belongs to; a base belongs to all of its network.
    """

    network: str
    factors: dict[str, int]
    varies: tuple[str, ...]

    @property
    def name(self) -> str:
        """``stack, 8 frames, 64 channels, side 28, batch 1``."""
        said = {"frames": "{} frames", "channels": "{} channels", "side": "side {}", "batch": "batch {}"}
        return ", ".join([self.network, *(said[name].format(size) for name, size in self.factors.items())])

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """One clip, C T H W."""
        side = self.factors["side"]
        return self.factors.get("channels", 3), self.factors["frames"], side, side

    def build(self) -> nn.Module:
        """The network in evaluation mode, with uneven batch norms."""
        return self._entry().ready(0)

    def clips(self, seed: int) -> tuple[Tensor, ...]:
        """Its input, N C T H W."""
        return self._entry().inputs(seed, batch=self.factors["batch"])

    def _entry(self) -> Any:
        from tests.zoo.models import ZooModel, find

        if self.network == STACK:
            return ZooModel(STACK, lambda: stack(self.factors["channels"]), ((1, *self.shape),))
        return ZooModel(self.network, find(self.network).build, ((1, *self.shape),))


@dataclass(frozen=True)
class Sweeps:
    """The whole file.

    Attributes:
        threads: of the runtime.
        gemm: side of the matrices whose product is the peak.
        points: all that is measured, each once.
    """

    threads: int
    gemm: int
    points: tuple[Point, ...]


def stack(channels: int, blocks: int = 2) -> nn.Module:
    """Residual blocks of two 3×3×3 convolutions each, as the video ResNets have them, with seeded weights."""
    import torch
    from torch import nn

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Sequential(
                nn.Conv3d(channels, channels, 3, padding=1, bias=False),
                nn.BatchNorm3d(channels),
                nn.ReLU(),
                nn.Conv3d(channels, channels, 3, padding=1, bias=False),
                nn.BatchNorm3d(channels),
            )

        def forward(self, clip: Tensor) -> Tensor:
            return torch.relu(clip + self.inner(clip))

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(*[Block() for _ in range(blocks)]).eval()


def load_sweeps(path: Path = SWEEPS, networks: Sequence[str] | None = None) -> Sweeps:
    """Read the sweeps.

    Args:
        path: the file.
        networks: only these; all when None.

    Raises:
        UsageError: not TOML, a key too many or missing, a size that makes no sense, a sweep without its base, or an
            unknown network.
    """
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"{path}: cannot be read: {error}") from error
    entries = document.pop("network", [])
    if set(document) != {"threads", "gemm"} or not all(_count(size) for size in document.values()):
        raise UsageError(f"{path}: expected threads and gemm, positive integers, and [[network]]")
    if not isinstance(entries, list) or not entries:
        raise UsageError(f"{path}: holds no [[network]]")
    names = [entry.get("name") for entry in entries]
    if unknown := [name for name in networks or [] if name not in names]:
        raise UsageError(f"no network {', '.join(unknown)}", hint=f"there are {', '.join(map(str, names))}")
    points = [p for entry in entries if networks is None or entry.get("name") in networks for p in _points(path, entry)]
    return Sweeps(document["threads"], document["gemm"], tuple(points))


def _points(path: Path, entry: dict[str, Any]) -> list[Point]:
    """The base and what each factor is moved to."""
    name = entry.get("name")
    where = f"{path}: network {name!r}"
    own = [factor for factor in FACTORS if factor != "channels" or name == STACK]
    base = entry.get("base")
    if not isinstance(name, str) or not isinstance(base, dict) or set(base) != set(own):
        raise UsageError(f"{where}: expected a name, and a base with {', '.join(own)}")
    swept = {factor: sizes for factor, sizes in entry.items() if factor not in ("name", "base")}
    for factor, sizes in swept.items():
        if factor not in own:
            raise UsageError(f"{where}: {factor} is no factor of it", hint=f"there are {', '.join(own)}")
        if not (isinstance(sizes, list) and all(_count(size) for size in [*sizes, *base.values()])):
            raise UsageError(f"{where}: {factor} is {sizes} around {base}, expected positive integers")
        if base[factor] not in sizes or len(set(sizes)) != len(sizes):
            raise UsageError(f"{where}: {factor} is {sizes}, expected its base of {base[factor]} and no size twice")
    ordered = {factor: base[factor] for factor in own}
    points = [Point(name, ordered, tuple(swept))]
    for factor, sizes in swept.items():
        points += [Point(name, {**ordered, factor: size}, (factor,)) for size in sizes if size != base[factor]]
    return points


def _count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0
