"""Fitting swapped blocks on clips: least squares, layer by layer, on what the rewritten network really sees.

For each block, in the order of execution, X is what its linear weights multiply when the clips run through the network
*as rewritten so far*, Y is what the original Conv3d gives in the *original* network. The weights W go to

    argmin ‖X·W − Y‖² + λ‖W − W₀‖²      from  XᵀX and XᵀY, summed in float64 over batches

W₀ being the data-free fit, the error on the clips never grows. Where a structure is a chain, its last convolution is
solved for and the others stay. Afterwards the batch-norm statistics behind a block are re-estimated. As a least-squares
fit already aims at what the norm behind it expects, that often does harm; so it is kept only where the network's output
comes nearer to the original's, and so are the fitted weights.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from edge4d.blocks.base import Block, System
from edge4d.clips import load_clips
from edge4d.errors import UsageError
from edge4d.subject import evaluation
from edge4d.swap_report import Calibration, SwapRow

__all__ = ["calibrate", "read_clips"]

BATCH = 4
ROWS = 1 << 14  # of a system that are in float64 at once
RIDGE = 1e-6  # λ, as a share of the mean of XᵀX's diagonal


def read_clips(source: Any) -> Tensor:
    """Clips as one float tensor (clips, C, T, H, W).

    Args:
        source: an array, a tensor, or what `edge4d.clips.load_clips` reads without knowing a shape.

    Raises:
        UsageError: nothing readable there, another number of axes, or values that are not finite.
    """
    return torch.from_numpy(load_clips(source).clips)


def calibrate(original: nn.Module, swapped: nn.Module, source: Any, rows: Sequence[SwapRow]) -> Calibration:
    """Fit the blocks of `swapped`, in place, on clips.

    Args:
        original: the network before; left as it is.
        swapped: its copy with blocks.
        source: see `read_clips`. The network takes one clip tensor.
        rows: of the swap; their `output_error` is filled in.

    Returns:
        What it did to the network's output, which never gets worse on these clips.

    Raises:
        UsageError: clips that cannot be read or do not fit the network.
    """
    clips = read_clips(source)
    parameter = next(original.parameters())
    batches = [batch.to(parameter) for batch in torch.split(clips, BATCH)]
    by_name = dict(swapped.named_modules())
    before = dict(original.named_modules())
    norms = {id(m): before[name] for name, m in by_name.items() if isinstance(m, _BatchNorm)}
    names = {id(by_name[row.layer]): row for row in rows if row.block is not None}
    with evaluation(original), evaluation(swapped), torch.no_grad():
        try:
            first = _output_error(original, swapped, batches)
        except RuntimeError as error:
            raise UsageError(
                f"calibration clips of shape {'x'.join(map(str, clips.shape))} do not fit {type(original).__name__}: "
                f"{str(error).strip().splitlines()[0]}"
            ) from error
        start = _copied(swapped)
        order = _in_order(swapped, batches[0])
        for block in order:
            if isinstance(block, Block) and id(block) in names:
                row = names[id(block)]
                row.output_error = _fit(original, before[row.layer], swapped, block, batches)
        last = _output_error(original, swapped, batches)
        if last > first:
            swapped.load_state_dict(start)
            for row in names.values():
                row.output_error = (row.output_error[0],) * 2 if row.output_error else None
        kept, best = _copied(swapped), min(first, last)
        behind = False  # whether a block has come yet: norms before the first one see what they always saw
        for module in order:
            behind = behind or isinstance(module, Block)
            if isinstance(module, _BatchNorm) and behind:
                _settle(original, norms[id(module)], swapped, module, batches)
        settled = _output_error(original, swapped, batches)
        if settled >= best:
            swapped.load_state_dict(kept)
    return Calibration(int(clips.shape[0]), first, min(best, settled), last <= first, settled < best)


def _copied(model: nn.Module) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in model.state_dict().items()}


def _in_order(model: nn.Module, clip: Tensor) -> list[nn.Module]:
    """Blocks and batch norms with statistics, in the order in which they first run."""
    seen: list[nn.Module] = []

    def note(module: nn.Module, _: Any) -> None:
        if module not in seen:
            seen.append(module)

    kinds = [m for m in model.modules() if isinstance(m, Block | _BatchNorm)]
    handles = [m.register_forward_pre_hook(note) for m in kinds]
    try:
        model(clip)
    finally:
        for handle in handles:
            handle.remove()
    return [m for m in seen if isinstance(m, Block) or m.running_mean is not None]


@contextmanager
def _watching(module: nn.Module) -> Iterator[list[tuple[Tensor, Tensor]]]:
    """(input, output) of every call."""
    calls: list[tuple[Tensor, Tensor]] = []
    handle = module.register_forward_hook(lambda _, args, output: calls.append((args[0], output)))
    try:
        yield calls
    finally:
        handle.remove()


def _fit(
    original: nn.Module, conv: nn.Module, swapped: nn.Module, block: Block, batches: Sequence[Tensor]
) -> tuple[float, float]:
    """Solve for one block's linear weights; its relative output error before and after."""
    sums: dict[tuple[int, int], _Sums] = {}
    for batch in batches:
        with _watching(conv) as wanted, _watching(block) as given:
            original(batch)
            swapped(batch)
        for (_, target), (clip, _) in zip(wanted, given, strict=True):
            if clip.dim() == 4:
                clip, target = clip.unsqueeze(0), target.unsqueeze(0)
            for i, system in enumerate(block.systems(clip)):
                _gather(sums, i, system, target)
    systems = block.systems(clip) if sums else ()
    errors = [sums[i, g].solve(system, g) for i, system in enumerate(systems) for g in range(system.convs[0].groups)]
    scale = sum(entry.energy for entry in sums.values())
    if not errors or scale <= 0:
        return 0.0, 0.0
    before, after = (max(0.0, sum(side)) for side in zip(*errors, strict=True))
    return (before / scale) ** 0.5, (after / scale) ** 0.5


def _gather(sums: dict[tuple[int, int], _Sums], index: int, system: System, target: Tensor) -> None:
    """Add one batch to the normal equations of every group of a system."""
    wanted = target if system.offset is None else target - system.offset
    rows = wanted.movedim(1, -1).flatten(0, -2)
    own = target.movedim(1, -1).flatten(0, -2)
    if system.members is not None:
        rows, own = rows[:, system.members], own[:, system.members]
    groups = system.convs[0].groups
    for g in range(groups):
        x = torch.cat([columns[g] for columns in system.columns], 1)
        y, z = (side.reshape(len(rows), groups, -1)[:, g] for side in (rows, own))
        sums.setdefault((index, g), _Sums()).add(x, y, z, system.bias is not None)


class _Sums:
    """XᵀX, XᵀY and ‖Y‖² in float64, whatever the number of rows."""

    def __init__(self) -> None:
        self.xx: Tensor | float = 0.0
        self.xy: Tensor | float = 0.0
        self.yy = 0.0
        self.energy = 0.0

    def add(self, x: Tensor, y: Tensor, own: Tensor, bias: bool) -> None:
        """Rows of X (rows, taps) and Y (rows, S), and of the layer's whole output."""
        for a, b, c in zip(*(torch.split(side, ROWS) for side in (x, y, own)), strict=True):
            a, b = a.double(), b.double()
            if bias:
                a = torch.cat([a, a.new_ones(len(a), 1)], 1)
            self.xx = self.xx + a.mT @ a
            self.xy = self.xy + a.mT @ b
            self.yy += float(b.square().sum())
            self.energy += float(c.double().square().sum())

    def solve(self, system: System, group: int) -> tuple[float, float]:
        """Put the solution into the weights; the squared error before and after."""
        assert isinstance(self.xx, Tensor)
        assert isinstance(self.xy, Tensor)
        groups = system.convs[0].groups
        parts = [conv.weight.reshape(groups, -1, conv.weight[0].numel())[group].double().mT for conv in system.convs]
        if system.bias is not None:
            parts.append(system.bias.reshape(groups, 1, -1)[group].double())
        start = torch.cat(parts)
        ridge = RIDGE * float(self.xx.diagonal().mean()) + torch.finfo(torch.float64).tiny
        damped = self.xx + ridge * torch.eye(len(self.xx), dtype=self.xx.dtype, device=self.xx.device)
        found = start + torch.linalg.solve(damped, self.xy - self.xx @ start)
        for conv, part in zip(
            system.convs, torch.split(found, [len(p) for p in parts])[: len(system.convs)], strict=True
        ):
            conv.weight.reshape(groups, -1, conv.weight[0].numel())[group].copy_(part.mT)
        if system.bias is not None:
            system.bias.reshape(groups, -1)[group].copy_(found[-1])
        return self._error(start), self._error(found)

    def _error(self, weights: Tensor) -> float:
        assert isinstance(self.xx, Tensor)
        assert isinstance(self.xy, Tensor)
        return float((weights * (self.xx @ weights - 2 * self.xy)).sum()) + self.yy


def _settle(
    original: nn.Module, was: _BatchNorm, model: nn.Module, norm: _BatchNorm, batches: Sequence[Tensor]
) -> None:
    """Re-estimate a batch norm: its statistics move as what reaches it has moved from the original network to this one.

    The clips' own statistics are not put in plainly: training saw more than these clips, and a network without any
    change must keep what it has.
    """
    (mean, variance), (old_mean, old_variance) = _statistics(model, norm, batches), _statistics(original, was, batches)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    norm.running_mean.add_(mean - old_mean)
    moved = torch.where(old_variance > 0, variance / old_variance.clamp_min(1e-30), torch.ones_like(variance))
    norm.running_var.mul_(moved.clamp(1e-3, 1e3))


def _statistics(model: nn.Module, norm: nn.Module, batches: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Mean and variance a channel of what reaches a norm, in float64."""
    sums: list[Tensor] = []
    count = 0
    for batch in batches:
        with _watching(norm) as calls:
            model(batch)
        for value, _ in calls:
            rows = value.movedim(1, -1).flatten(0, -2).double()
            count += len(rows)
            sums.append(torch.stack([rows.sum(0), rows.square().sum(0)]))
    mean, square = torch.stack(sums).sum(0) / count
    return mean, (square - mean.square()).clamp_min(0)


def _output_error(original: nn.Module, swapped: nn.Module, batches: Sequence[Tensor]) -> float:
    """Relative error of all floating outputs together."""
    from torch.utils import _pytree as pytree

    apart = scale = 0.0
    for batch in batches:
        pairs = zip(pytree.tree_leaves(original(batch)), pytree.tree_leaves(swapped(batch)), strict=True)
        for a, b in pairs:
            if isinstance(a, Tensor) and a.is_floating_point():
                apart += float((b.double() - a.double()).square().sum())
                scale += float(a.double().square().sum())
    return math.sqrt(apart / scale) if scale else math.sqrt(apart)
