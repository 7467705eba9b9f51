"""What the rewritten network (student) learns from the original one (teacher), and from labels where there are any.

    loss = w_layers · mean over layers ‖s − t‖² / ‖t‖²   +   w_outputs · output   +   w_labels · cross-entropy

s, t: what a replaced layer gives in student and teacher, on the same clips. The output's loss is Hinton's: the
Kullback-Leibler divergence between both networks' classes at temperature τ, times τ² (Hinton et al., 2015, section 2);
an output that is no (N, classes) is compared as the layers are. Each term is a mean over clips, so that a batch is
worth the same in one piece or in several.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils import _pytree as pytree

from edge4d.errors import UsageError

__all__ = ["Losses", "Weights", "label_loss", "layer_outputs", "losses", "scores_of"]

_EPSILON = 1e-12


@dataclass(frozen=True)
class Weights:
    """How much each part counts.

    Attributes:
        layers: of the replaced layers' outputs.
        outputs: of the network's outputs.
        labels: of the labels; 0 where there are none.
        temperature: τ of the outputs' part.
    """

    layers: float = 0.1
    outputs: float = 1.0
    labels: float = 0.0
    temperature: float = 2.0

    def __post_init__(self) -> None:
        """Raises `UsageError` for a negative weight, or a temperature that is not above 0."""
        if not (self.layers >= 0 and self.outputs >= 0 and self.labels >= 0 and self.temperature > 0):
            raise UsageError(f"{self}: expected weights from 0 on and a temperature above 0")

    @property
    def original(self) -> bool:
        """Whether anything is learned from the original."""
        return self.layers > 0 or self.outputs > 0


@dataclass(frozen=True)
class Losses:
    """The parts, each a scalar tensor, not yet weighted.

    Attributes:
        layers, outputs, labels: as in `Weights`; labels is None without them.
    """

    layers: Tensor
    outputs: Tensor
    labels: Tensor | None

    def total(self, weights: Weights) -> Tensor:
        """What is minimised."""
        total = weights.layers * self.layers + weights.outputs * self.outputs
        return total if self.labels is None else total + weights.labels * self.labels


@contextmanager
def layer_outputs(model: nn.Module, layers: Sequence[str]) -> Iterator[dict[str, list[Tensor]]]:
    """What the named layers give, call by call; the caller empties it between batches."""
    found: dict[str, list[Tensor]] = {name: [] for name in layers}
    modules = dict(model.named_modules())

    def keep(name: str) -> Any:
        return lambda _module, _args, output: found[name].append(output)

    handles = [modules[name].register_forward_hook(keep(name)) for name in layers]
    try:
        yield found
    finally:
        for handle in handles:
            handle.remove()


def losses(
    teacher: Any,
    student: Any,
    teacher_layers: Mapping[str, Sequence[Tensor]],
    student_layers: Mapping[str, Sequence[Tensor]],
    labels: Tensor | None,
    temperature: float,
    labelled: Tensor | None = None,
) -> Losses:
    """Compare one batch.

    Args:
        teacher, student: what the networks returned, any structure of tensors whose first axis is N.
        teacher_layers, student_layers: of `layer_outputs`.
        labels: (N,), or None.
        temperature: τ.
        labelled: (N,), bool: clips whose label is theirs; the others count 0 in the labels' part. None for all.
    """
    pairs = [
        _relative(s, t)
        for name, calls in teacher_layers.items()
        for s, t in zip(student_layers[name], calls, strict=True)
    ]
    wanted, given = _floating(teacher), _floating(student)
    outputs = [_output(s, t, temperature) for s, t in zip(given, wanted, strict=True)]
    nothing = given[0].new_zeros(())
    return Losses(
        torch.stack(pairs).mean() if pairs else nothing,
        torch.stack(outputs).mean(),
        None if labels is None else label_loss(scores_of(student), labels, labelled),
    )


def scores_of(outputs: Any) -> Tensor:
    """The (N, classes) that a network of one output returns."""
    (scores,) = _floating(outputs)
    return scores


def _floating(outputs: Any) -> list[Tensor]:
    return [leaf for leaf in pytree.tree_leaves(outputs) if isinstance(leaf, Tensor) and leaf.is_floating_point()]


def _output(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    if teacher.dim() != 2 or teacher.shape[1] < 2:
        return _relative(student, teacher)
    s, t = (F.log_softmax(side.float() / temperature, 1) for side in (student, teacher))
    return F.kl_div(s, t, log_target=True, reduction="batchmean") * temperature**2


def label_loss(scores: Tensor, labels: Tensor, labelled: Tensor | None) -> Tensor:
    """Cross-entropy with labels (N,), a scalar: the mean over all clips, where those not `labelled` count 0.

    So a batch is worth the same in one piece or in several.
    """
    each = F.cross_entropy(scores.float(), labels, reduction="none")
    return (each if labelled is None else each * labelled).mean()


def _relative(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean over clips of ‖s − t‖² / ‖t‖²."""
    s, t = (side.float() if side.dim() > 1 else side.float().unsqueeze(1) for side in (student, teacher))
    apart: Tensor = _Apart.apply(s, t)  # type: ignore[no-untyped-call]
    return (apart / (_squares(t) + _EPSILON)).mean()


class _Apart(torch.autograd.Function):
    """(N,) ‖s − t‖²: read once, where autograd's own way writes three tensors of that size, and as many backwards."""

    @staticmethod
    def forward(ctx: Any, student: Tensor, teacher: Tensor) -> Tensor:
        apart = student - teacher
        ctx.save_for_backward(apart)
        return _squares(apart)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (apart,) = ctx.saved_tensors
        return apart * (2 * gradient).reshape(-1, *[1] * (apart.dim() - 1)), None


def _squares(values: Tensor) -> Tensor:
    """(N,) sums of squares, along the axes as they lie in memory (others would be copied), and in two parts.

    Many more numbers than that in one sum of float32 would lose digits.
    """
    axes = sorted(range(1, values.dim()), key=values.stride, reverse=True)
    rows = values.permute(0, *axes)
    norms: Tensor = torch.linalg.vector_norm(rows.unsqueeze(-1).flatten(2), dim=2)
    return norms.square().sum(1)
