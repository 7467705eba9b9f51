"""Random small networks: layers, views, one-axis operators and broadcasting over values of rank 1 to 7, by seed."""

from __future__ import annotations

import random

import torch
from torch import Tensor, nn

from tests.lowering.random_draft import HIGHEST, LARGEST, Draft, Step
from tests.lowering.random_rare_steps import RARE_STEPS
from tests.lowering.random_steps import STEPS

__all__ = ["RandomNetwork", "random_network"]

_KINDS = STEPS | RARE_STEPS


class RandomNetwork(nn.Module):
    """Runs the steps; its results are the last values, which together depend on most of the others."""

    def __init__(self, draft: Draft) -> None:
        super().__init__()
        self.layers = draft.layers
        self.steps = draft.steps
        used = {i for step in draft.steps for i in step.takes}
        self.given = [i for i in range(1, len(draft.values)) if i not in used][-4:]
        self.start = tuple(draft.values[0].shape)

    def forward(self, x: Tensor) -> list[Tensor]:
        values = [x]
        for step in self.steps:
            values.append(step.run(*[values[i] for i in step.takes]))
        return [values[i] for i in self.given]

    def described(self) -> str:
        lines = [f"v0: {self.start}"]
        lines += [f"v{i}: {s.shape} = {s.name} of {s.takes}" for i, s in enumerate(self.steps, 1)]
        return "\n".join([*lines, f"returns {self.given}"])


def random_network(seed: int) -> tuple[RandomNetwork, Tensor]:
    """The network of a seed, float64, and its input of rank 5 (n c t h w), now and then of another rank."""
    rng = random.Random(seed)
    rank = rng.choice([5, 5, 5, 5, 3, 4, 6])
    shape = [rng.choice([1, 1, 2]), *(rng.choice([1, 2, 3, 4, 6]) for _ in range(rank - 1))]
    generator = torch.Generator().manual_seed(seed)
    draft = Draft(rng, [torch.randn(shape, generator=generator, dtype=torch.float64)])
    wanted = rng.randint(3, 10)
    with torch.no_grad():
        while len(draft.steps) < wanted:
            latest = len(draft.values) - 1
            at = latest if rng.random() < 0.8 else rng.randrange(len(draft.values))
            _draw(draft, at)
    return RandomNetwork(draft).eval(), draft.values[0]


def _draw(draft: Draft, at: int) -> None:
    """One more step on value `at`; nothing where it does not fit, or makes too much, or too little to tell apart."""
    x = draft.values[at]
    if x.dim() == 0:
        x, at = draft.values[0], 0
    (kind,) = draft.rng.choices(list(_KINDS), weights=list(_KINDS.values()))
    drawn = kind(draft, x)
    if drawn is None:
        return
    name, others, run = drawn
    takes = (at, *others)
    y = run(*[draft.values[i] for i in takes])
    if not 1 <= y.numel() <= LARGEST or y.dim() > HIGHEST or not torch.isfinite(y).all() or y.abs().max() > 1e6:
        return
    draft.steps.append(Step(name, takes, run, tuple(y.shape)))
    draft.values.append(y)
