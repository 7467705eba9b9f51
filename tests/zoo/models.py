"""Video networks that other people wrote, at their native clip sizes: what edge4d must cope with, not what suits it.

No weights are downloaded. Weights are the libraries' own random initialisation, seeded; batch norms get statistics
and affine parameters as uneven as training leaves them (`randomise_batch_norm`), so that a wrong fold shows.

Where the sizes come from:

- torchvision: each builder's documented weights: ``clip_len=16`` with ``crop_size=(112, 112)`` for the three ResNets;
  ``min_size=(224, 224)`` for S3D, whose documented 17.98 GFLOPS is what 16 frames cost.
- pytorchvideo: the frames of its model zoo ("frame length x sample rate") and the crops of its hub pages: 256, for
  X3D 182 (XS, S) and 256 (M). The zoo's own cost column confirms it: slow_r50 counts 54.52 G multiply-adds
  and slowfast_r50 65.71 G at 256, the documented figures. csn_r101 has no hub page: 224, the crop its head's
  (4, 7, 7) pooling window covers. efficient_x3d_xs: 160, X3D-XS's training crop.

This module imports neither library; `ZooModel.build` does, when it is called.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from _pytest.mark import ParameterSet

__all__ = ["ZOO", "TwoPathways", "ZooModel", "find", "one_after_another", "randomise_batch_norm", "ready"]

Shape = tuple[int, ...]


class C3D(nn.Module):
    """The network of Tran et al. (2015), "Learning spatiotemporal features with 3D convolutional networks"."""

    def __init__(self, classes: int = 487) -> None:
        super().__init__()

        def convolution(inner: int, outer: int) -> list[nn.Module]:
            return [nn.Conv3d(inner, outer, 3, padding=1), nn.ReLU()]

        self.features = nn.Sequential(
            *convolution(3, 64),
            nn.MaxPool3d((1, 2, 2)),
            *convolution(64, 128),
            nn.MaxPool3d(2),
            *convolution(128, 256),
            *convolution(256, 256),
            nn.MaxPool3d(2),
            *convolution(256, 512),
            *convolution(512, 512),
            nn.MaxPool3d(2),
            *convolution(512, 512),
            *convolution(512, 512),
            nn.MaxPool3d(2, padding=(0, 1, 1)),
        )
        self.head = nn.Sequential(
            nn.Linear(8192, 4096), nn.ReLU(), nn.Dropout(), nn.Linear(4096, 4096), nn.ReLU(), nn.Linear(4096, classes)
        )

    def forward(self, clip: Tensor) -> Tensor:
        """Map (N, 3, 16, 112, 112) to scores (N, classes)."""
        scores: Tensor = self.head(self.features(clip).flatten(1))
        return scores


@dataclass(frozen=True)
class ZooModel:
    """One network of the zoo.

    Attributes:
        name: the library's own name for it.
        build: gives the network in evaluation mode with its random initialisation, the same one every time.
        shapes: logical shape of each input at batch 1, N C T H W.
        small: cheap enough to be run at batch 3 as well.
        refused: what the refusal says, for a network that edge4d does not export; empty for all others.
    """

    name: str
    build: Callable[[], nn.Module]
    shapes: tuple[Shape, ...]
    small: bool = False
    refused: str = ""

    def inputs(self, seed: int = 0, batch: int = 1) -> tuple[Tensor, ...]:
        """Clips that a network can tell apart: something smooth plus some noise, each channel of mean 0, variance 1.

        Pure noise would average out before the head and leave every clip with nearly the same scores.
        Standardised, because a clip unlike those that the batch norms were set for runs away over a hundred layers.
        """
        generator = torch.Generator().manual_seed(seed)
        clips = []
        for _, *rest in self.shapes:
            shape = (batch, *rest)
            if len(shape) != 5:
                clips.append(torch.randn(shape, generator=generator))
                continue
            coarse = torch.randn((*shape[:2], min(4, shape[2]), 5, 5), generator=generator)
            smooth = F.interpolate(coarse, size=shape[2:], mode="trilinear", align_corners=False)
            clip = smooth + 0.2 * torch.randn(shape, generator=generator)
            variance, mean = torch.var_mean(clip, (2, 3, 4), keepdim=True)
            clips.append((clip - mean) / variance.sqrt())
        return tuple(clips)

    def ready(self, seed: int = 0) -> nn.Module:
        """The network as the tests use it: built, with batch norms randomised around what they see of two clips."""
        module = self.build()
        randomise_batch_norm(module, seed, self.inputs(seed, batch=2))
        return module


class TwoPathways(nn.Module):
    """A network that takes a list of two clips, given two arguments instead.

    Args:
        network: takes ``[slow, fast]``.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, slow: Tensor, fast: Tensor) -> Tensor:
        """Map slow (N, C, T/4, H, W) and fast (N, C, T, H, W) to scores (N, classes)."""
        scores: Tensor = self.network([slow, fast])
        return scores


def randomise_batch_norm(module: nn.Module, seed: int, inputs: tuple[Tensor, ...]) -> None:
    """Give every batch norm uneven statistics and affine parameters, in place, without losing the signal.

    Statistics drawn blindly would make activations grow or fade by a factor a layer: after a hundred layers the
    scores overflow, or no longer depend on the clip. So one forward pass measures what reaches each norm, and the
    norm gets those statistics *perturbed*: mean shifted by up to 0.3 deviations, variance scaled by e^±0.5.
    A norm that several layers share keeps the statistics of its first call.

    Args:
        module: left in evaluation mode.
        seed: seeds every draw.
        inputs: the clips to measure on, as `ZooModel.inputs` makes them.
    """
    generator = torch.Generator().manual_seed(seed)
    module.eval()
    done: set[int] = set()

    def uniform(like: Tensor, low: float, high: float) -> Tensor:
        return torch.empty(like.shape).uniform_(low, high, generator=generator).to(like)

    def settle(norm: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        if id(norm) in done:
            return
        done.add(id(norm))
        value = arguments[0]
        axes = [axis for axis in range(value.ndim) if axis != 1]
        variance, mean = torch.var_mean(value, axes, correction=0)
        variance = variance.clamp_min(1e-4)  # a channel that ReLU killed upstream has none
        norm.running_mean.copy_(mean + variance.sqrt() * uniform(mean, -0.3, 0.3))
        norm.running_var.copy_(variance * uniform(variance, -0.5, 0.5).exp())
        if norm.affine:
            norm.weight.copy_(uniform(norm.weight, 0.6, 1.4))
            norm.bias.copy_(uniform(norm.bias, -0.3, 0.3))

    norms = [child for child in module.modules() if isinstance(child, nn.modules.batchnorm._BatchNorm)]
    hooks = [norm.register_forward_pre_hook(settle) for norm in norms]
    try:
        with torch.no_grad():
            module(*inputs)
    finally:
        for hook in hooks:
            hook.remove()
    if len(done) != len(norms):
        raise RuntimeError(
            f"{len(norms) - len(done)} of {len(norms)} batch norms never ran; their statistics are unset"
        )


def find(name: str) -> ZooModel:
    """The network of that name.

    Raises:
        KeyError: if the zoo has none.
    """
    for entry in (*ZOO, *BENCHED):
        if entry.name == name:
            return entry
    raise KeyError(f"no {name!r} in the zoo; it has {', '.join(entry.name for entry in ZOO)}")


@lru_cache(maxsize=1)
def ready(name: str) -> nn.Module:
    """The network of that name as the tests use it, for several tests in a row: nobody may change it.

    Settling the batch norms takes a forward pass of two clips, as long as an export for the deep ones.
    """
    return find(name).ready(seed=0)


def one_after_another(names: Iterable[str]) -> list[ParameterSet]:
    """Parameters that keep the tests of one network together in one worker (``--dist loadgroup``)."""
    import pytest  # the benchmarks, which use this module, do without

    return [pytest.param(name, marks=pytest.mark.xdist_group(name)) for name in names]


_fragments: list[torch.library.Library] = []  # an operator lives as long as its Library object


def _declare_torchvision_operators() -> None:
    """Declare the two operators that `import torchvision` registers fakes for.

    PyPI's torchvision is compiled against CUDA: beside a CPU build of torch its extension cannot be loaded, and
    the import fails for want of `nms`. The video networks call neither operator.
    """
    if _fragments or torch.version.cuda is not None:
        return
    library = torch.library.Library("torchvision", "DEF")
    for operator in ("nms", "qnms"):
        library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _fragments.append(library)


def _seeded(create: Callable[[], nn.Module]) -> nn.Module:
    # Old libraries warn at import and construction (torch.jit.script, init defaults); that is not ours to mend.
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        return create().eval()


def _torchvision(name: str) -> nn.Module:
    def create() -> nn.Module:
        _declare_torchvision_operators()
        from torchvision.models import video

        network: nn.Module = getattr(video, name)(weights=None)
        return network

    return _seeded(create)


def _pytorchvideo(name: str) -> nn.Module:
    def create() -> nn.Module:
        _declare_torchvision_operators()  # pytorchvideo imports torchvision
        from pytorchvideo.models import hub

        network: nn.Module = getattr(hub, name)(pretrained=False)
        return TwoPathways(network) if name.startswith("slowfast") else network

    return _seeded(create)


def _entry(library: Callable[[str], nn.Module], name: str, *clips: tuple[int, int], small: bool = False) -> ZooModel:
    shapes = tuple((1, 3, frames, side, side) for frames, side in clips)
    return ZooModel(name, partial(library, name), shapes, small)


ZOO: tuple[ZooModel, ...] = (
    _entry(_torchvision, "r3d_18", (16, 112), small=True),
    _entry(_torchvision, "mc3_18", (16, 112), small=True),
    _entry(_torchvision, "r2plus1d_18", (16, 112), small=True),
    _entry(_torchvision, "s3d", (16, 224), small=True),
    _entry(_pytorchvideo, "slow_r50", (8, 256)),
    _entry(_pytorchvideo, "slowfast_r50", (8, 256), (32, 256)),
    _entry(_pytorchvideo, "c2d_r50", (8, 256)),
    _entry(_pytorchvideo, "i3d_r50", (8, 256)),
    _entry(_pytorchvideo, "r2plus1d_r50", (16, 256)),
    _entry(_pytorchvideo, "x3d_xs", (4, 182), small=True),
    _entry(_pytorchvideo, "x3d_s", (13, 182), small=True),
    _entry(_pytorchvideo, "x3d_m", (16, 256)),
    _entry(_pytorchvideo, "efficient_x3d_xs", (4, 160), small=True),
    _entry(_pytorchvideo, "csn_r101", (32, 224)),
)

BENCHED = (
    ZooModel("c3d", partial(_seeded, C3D), ((1, 3, 16, 112, 112),)),
    ZooModel("x3d_xs_160", partial(_pytorchvideo, "x3d_xs"), ((1, 3, 4, 160, 160),)),
)
"""Of which only the time is asked: what they are made of, the zoo's others have too."""
