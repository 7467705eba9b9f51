"""AdamW with a learning rate that rises for a tenth of the steps and then follows half a cosine down to 0."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["Optimizing"]

_WARMUP = 0.1
_CLIP = 5.0  # largest norm of the gradient


class Optimizing:
    """Steps of one training.

    Args:
        model: its parameters that ask for gradients are trained.
        rate: at its peak.
        decay: of weights with more than one axis.
        steps: in all.
    """

    def __init__(self, model: nn.Module, rate: float, decay: float, steps: int) -> None:
        self.trained = [p for p in model.parameters() if p.requires_grad]
        groups: list[dict[str, Any]] = [
            {"params": [p for p in self.trained if p.dim() > 1], "weight_decay": decay},
            {"params": [p for p in self.trained if p.dim() <= 1], "weight_decay": 0.0},
        ]
        self.adam = torch.optim.AdamW(groups, lr=rate)
        self.rate, self.steps, self.done = rate, steps, 0

    def step(self, loss: Tensor) -> float:
        """One step down; returns the loss."""
        done = self.done / self.steps
        rising = min(1.0, (self.done + 1) / max(1.0, _WARMUP * self.steps))
        for group in self.adam.param_groups:
            group["lr"] = self.rate * rising * 0.5 * (1 + math.cos(math.pi * done))
        self.adam.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(self.trained, _CLIP)
        self.adam.step()
        self.done += 1
        return float(loss.detach())

    def state_dict(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {"adam": self.adam.state_dict(), "done": self.done}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.adam.load_state_dict(state["adam"])
        self.done = state["done"]
