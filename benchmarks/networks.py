"""Networks with clips to calibrate on, others to judge by, and the float32 scores of these."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["ECO", "NETWORKS", "Case"]

ECO = "ECO-Lite/Proposed-Add"


@dataclass(frozen=True)
class Case:
    """A network and its clips.

    Attributes:
        model: the 5-D network, in evaluation mode.
        calib: clips that int8 ranges are drawn from, N C T H W.
        clips: other clips.
        labels: of `clips`, where the network is trained.
    """

    model: Any
    calib: np.ndarray
    clips: np.ndarray
    labels: np.ndarray | None

    @property
    def args(self) -> tuple[Any, ...]:
        """Example inputs, one clip."""
        import torch

        return (torch.from_numpy(self.clips[:1]),)

    def scores(self) -> np.ndarray:
        """Of the 5-D network in PyTorch, clip by clip."""
        import torch

        with torch.inference_mode():
            return np.concatenate([self.model(torch.from_numpy(clip[None])).numpy() for clip in self.clips])


def _digits() -> Case:
    from examples.moving_digits.data import load_images, make_clips, make_test_set
    from examples.moving_digits.demo import load_network

    calib, _ = make_clips(load_images()[0], 64, 7)
    clips, labels = make_test_set()
    return Case(load_network(), calib, clips, labels)


def _zoo(name: str) -> Case:
    from tests.zoo.models import find

    return _random(find(name))


def _eco() -> Case:
    """The paper's network with its own structure, random weights, batch norms as uneven as the zoo's."""
    import torch

    from edge4d import models
    from tests.zoo.models import ZooModel

    def build() -> Any:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return models.build("eco-lite", "proposed-add").eval()

    return _random(ZooModel(ECO, build, (build().input_shape,)))


def _random(entry: Any) -> Case:
    stacks = [np.concatenate([entry.inputs(s)[0].numpy() for s in seeds]) for seeds in (range(100, 116), range(8))]
    return Case(entry.ready(), stacks[0], stacks[1], None)


NETWORKS: dict[str, Callable[[], Case]] = {
    "moving-digits": _digits,
    "r3d_18": lambda: _zoo("r3d_18"),
    "slow_r50": lambda: _zoo("slow_r50"),
    "x3d_s": lambda: _zoo("x3d_s"),
    ECO: _eco,
}
