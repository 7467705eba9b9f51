"""How a network is tuned: every choice, with defaults that suit a fitted network of a few million weights."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any

from edge4d.data.varying import Vary
from edge4d.errors import UsageError
from edge4d.quantities import parse_duration
from edge4d.tuning.losses import Weights

__all__ = ["RECIPES", "TuneOptions", "parse_duration", "parse_kinds"]

_EPOCHS = 20.0
_AMP = ("auto", "off", "bf16", "fp16")
_NORMS = ("frozen", "train")
_TRAINED = ("all", "blocks")

RECIPES: dict[str, dict[str, Any]] = {
    "match": {},
    "train": {
        "weights": Weights(layers=0.0, outputs=0.0, labels=1.0),
        "norms": "train",
        "batch": 32,
        "rate": 4e-3,
        "decay": 1e-2,
        "warmup": 0.3,
        "vary": (),
    },
}
"""Options that go together. ``match``, the defaults: few clips, seen in many ways and named by the original, and the
network as it will be used. ``train``: the fit is where ordinary training begins (labels alone, one cycle of a higher
rate, batch norms and dropout as in training, clips as they are), for many clips with labels; may pass the original."""


@dataclass(frozen=True)
class TuneOptions:
    """Of one run.

    Attributes:
        epochs: passes over the training clips; `steps` overrides it. None for as many as the budget has time for, and
            20 without a budget.
        steps: optimiser steps; None for `epochs`.
        batch: clips a step, over all processes.
        accumulate: parts that a process's share of a batch is computed in, to save memory.
        rate: peak learning rate of AdamW.
        decay: weight decay, of weights with more than one axis.
        warmup: share of the run in which the rate rises; then it follows half a cosine down to 0.
        clip: largest norm of the gradient.
        ema: decay of the running mean of the weights, which is what is measured and kept.
        weights: of the parts of the loss.
        norms: ``frozen`` keeps batch norms' statistics and leaves dropout out, so that the network learns as it will be
            used; ``train`` is training mode.
        trained: ``all`` weights, or those of the ``blocks`` alone.
        amp: ``bf16`` or ``fp16`` autocast, ``off``, or ``auto``: bf16 on a GPU that has it, off elsewhere.
        held_out: share of the clips that is measured on and not learned from, when there is no other set for that.
        vary: in which ways clips are changed, see `edge4d.data.varying.KINDS`; () leaves them as they are.
        labelled: share of the clips that are shifted at most, where labels are learned from: these keep theirs.
        every: steps between measurements; None for a pass over the clips, or a twentieth of the run if that is less
            (of the budget, if that decides).
        patience: measurements without progress after which the run ends, in its second half: the rate is low then.
        budget: seconds after which the run ends, whatever its step; None for no limit.
        save_every: seconds between checkpoints.
        workers: processes that read clips; 0 reads in the training process.
        seed: of everything drawn.
    """

    epochs: float | None = None
    steps: int | None = None
    batch: int = 16
    accumulate: int = 1
    rate: float = 3e-3
    decay: float = 1e-4
    warmup: float = 0.05
    clip: float = 5.0
    ema: float = 0.995
    weights: Weights = field(default_factory=Weights)
    norms: str = "frozen"
    trained: str = "all"
    amp: str = "auto"
    held_out: float = 0.1
    vary: tuple[str, ...] = ("mirror", "reverse", "shift")
    labelled: float = 0.5
    every: int | None = None
    patience: int = 6
    budget: float | None = None
    save_every: float = 60.0
    workers: int = 0
    seed: int = 0

    @classmethod
    def of(cls, recipe: str = "match", **given: Any) -> TuneOptions:
        """The options of one of `RECIPES`, but for those that are given and not None.

        Raises:
            UsageError: an unknown recipe, or as the constructor.
        """
        if recipe not in RECIPES:
            raise UsageError(f"recipe is {recipe!r}", hint=f"one of: {', '.join(RECIPES)}")
        return cls(**RECIPES[recipe] | {name: value for name, value in given.items() if value is not None})

    def __post_init__(self) -> None:
        """Refuse what cannot work.

        Raises:
            UsageError: a value out of range, or an unknown word.
        """
        for name, known in (("norms", _NORMS), ("trained", _TRAINED), ("amp", _AMP)):
            if getattr(self, name) not in known:
                raise UsageError(f"{name} is {getattr(self, name)!r}", hint=f"one of: {', '.join(known)}")
        for name, low in (("batch", 1), ("accumulate", 1), ("patience", 1), ("workers", 0), ("decay", 0), ("seed", 0)):
            if not getattr(self, name) >= low:
                raise UsageError(f"{name} is {getattr(self, name)}, expected at least {low}")
        for name in ("rate", "clip"):
            if not getattr(self, name) > 0:
                raise UsageError(f"{name} is {getattr(self, name)}, expected more than 0")
        for name in ("epochs", "steps", "every", "budget"):
            if getattr(self, name) is not None and not getattr(self, name) > 0:
                raise UsageError(f"{name} is {getattr(self, name)}, expected more than 0")
        for name in ("held_out", "ema", "warmup"):
            if not 0 <= getattr(self, name) < 1:
                raise UsageError(f"{name} is {getattr(self, name)}, expected at least 0 and less than 1")
        if not 0 < self.labelled <= 1:
            raise UsageError(f"labelled is {self.labelled}, expected more than 0 and at most 1")
        Vary(self.vary)  # refuses unknown words

    def steps_for(self, clips: int) -> int | None:
        """Of a run over so many training clips; None when the budget decides."""
        if self.steps is not None:
            return self.steps
        if self.epochs is None and self.budget is not None:
            return None
        return max(1, math.ceil((self.epochs or _EPOCHS) * clips / self.batch))

    @property
    def varying(self) -> Vary:
        """How clips are changed: all of them, unless labels are to be learned from as well."""
        return Vary(self.vary, self.labelled if self.weights.labels else 0.0)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)

    @property
    def identity(self) -> dict[str, Any]:
        """What a run that is resumed must have in common with the one before it: what decides its numbers."""
        free = ("workers", "save_every", "budget", "accumulate", "patience")
        return {name: value for name, value in self.to_dict().items() if name not in free}


def parse_kinds(text: str) -> tuple[str, ...]:
    """Variations of ``mirror,reverse``; no one of ``none``."""
    return () if text.strip() == "none" else tuple(word.strip() for word in text.split(","))
