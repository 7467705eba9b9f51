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
        UsageError: nothing readable there, another number of axes, values that are complex or not finite.
    """
    if isinstance(source, Tensor):
        source = source.detach().cpu()
        if source.dtype is torch.bfloat16:  # numpy has none
            source = source.float()
    return torch.from_numpy(load_clips(source).clips)


def calibrate(
    original: nn.Module, swapped: nn.Module, source: Any, rows: Sequence[SwapRow], example: Tensor | None = None
) -> Calibration:
    """Fit the blocks of `swapped`, in place, on clips.

    Args:
        original: the network before; left as it is.
        swapped: its copy with blocks.
        source: see `read_clips`. The network takes one clip tensor.
        rows: of the swap; their `output_error` is filled in.
        example: (N, C, T, H, W) that the network is meant for; None where clips of any size will do.

    Returns:
        What it did to the network's output, which never gets worse on these clips.

    Raises:
        UsageError: clips that cannot be read or do not fit the network, or on which its output is not finite.
    """
    clips = read_clips(source)
    shape = "x".join(map(str, clips.shape))
    if example is not None and example.shape[1:] != clips.shape[1:]:
        raise UsageError(
            f"calibration clips of shape {shape} are not what the network is meant for: its input is "
            f"{'x'.join(map(str, example.shape))}",
            hint="only N may differ",
        )
    parameter = next(original.parameters())
    batches = [batch.to(parameter) for batch in torch.split(clips, BATCH)]
    by_name = dict(swapped.named_modules())
    before = dict(original.named_modules())
    norms = {id(m): before[name] for name, m in by_name.items() if isinstance(m, _BatchNorm)}
    replaced: dict[int, list[SwapRow]] = {}  # a block that tied layers share stands for several
    for row in rows:
        if row.block is not None:
            replaced.setdefault(id(by_name[row.shared_with or row.layer]), []).append(row)
    with evaluation(original), evaluation(swapped), torch.no_grad():
        try:
            first = _output_error(original, swapped, batches)
        except UsageError:
            raise
        except Exception as error:  # whatever the user's network says to such clips
            raise UsageError(
                f"calibration clips of shape {shape} do not fit {type(original).__name__}: "
                f"{str(error).strip().partition(chr(10))[0]}",
                hint="clips are given to it as its one argument, some at a time",
            ) from error
        start = _copied(swapped)
        order = _in_order(swapped, batches[0])
        for block in order:
            if isinstance(block, Block) and id(block) in replaced:
                own = replaced[id(block)]
                found = _fit(original, [before[row.layer] for row in own], swapped, block, batches)
                for row in own:
                    row.output_error, row.scarce = found
        last = _output_error(original, swapped, batches)
        if not last <= first:
            _restore(start)
            for row in rows:
                row.output_error = (row.output_error[0],) * 2 if row.output_error else None
        kept, best = _copied(swapped), min(first, last)
        behind = False  # whether a block has come yet: norms before the first one see what they always saw
        for module in order:
            behind = behind or isinstance(module, Block)
            if isinstance(module, _BatchNorm) and behind:
                _settle(original, norms[id(module)], swapped, module, batches)
        settled = _output_error(original, swapped, batches)
        if not settled < best:
            _restore(kept)
    return Calibration(int(clips.shape[0]), first, min(best, settled), last <= first, settled < best)


def _copied(model: nn.Module) -> list[tuple[Tensor, Tensor]]:
    """Every parameter and buffer with a copy of it; a state_dict may hold other things and lack some of these."""
    return [(tensor, tensor.clone()) for tensor in (*model.parameters(), *model.buffers())]


def _restore(copies: list[tuple[Tensor, Tensor]]) -> None:
    for tensor, copied in copies:
        tensor.copy_(copied)


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
def _watching(*modules: nn.Module) -> Iterator[list[tuple[Tensor, Tensor]]]:
    """(input, output) of every call of any of them."""
    calls: list[tuple[Tensor, Tensor]] = []

    def note(_module: nn.Module, args: tuple[Tensor, ...], named: dict[str, Tensor], output: Tensor) -> None:
        calls.append((args[0] if args else named["input"], output))

    handles = [module.register_forward_hook(note, with_kwargs=True) for module in modules]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


def _fit(
    original: nn.Module, convs: Sequence[nn.Module], swapped: nn.Module, block: Block, batches: Sequence[Tensor]
) -> tuple[tuple[float, float], bool]:
    """Solve for the linear weights of the block that stands for `convs`.

    Returns:
        Its relative output error before and after, and whether the clips have fewer places than a weight has taps.
    """
    sums: dict[int, _Sums] = {}
    for batch in batches:
        with _watching(*convs) as wanted, _watching(block) as given:
            original(batch)
            swapped(batch)
        for (_, target), (clip, _) in zip(wanted, given, strict=True):
            if clip.dim() == 4:
                clip, target = clip.unsqueeze(0), target.unsqueeze(0)
            for i, system in enumerate(block.systems(clip)):
                sums.setdefault(i, _Sums()).add(system, target)
    systems = block.systems(clip) if sums else ()
    errors = [sums[i].solve(system) for i, system in enumerate(systems)]
    scale = sum(entry.energy for entry in sums.values())
    scarce = any(entry.rows < entry.taps for entry in sums.values())
    if not errors or scale <= 0:
        return (0.0, 0.0), scarce
    before, after = (max(0.0, sum(side)) for side in zip(*errors, strict=True))
    return ((before / scale) ** 0.5, (after / scale) ** 0.5), scarce


class _Sums:
    """XᵀX (groups, taps, taps), XᵀY (groups, taps, S/groups) and ‖Y‖² in float64, whatever the number of rows."""

    def __init__(self) -> None:
        self.xx: Tensor | float = 0.0
        self.xy: Tensor | float = 0.0
        self.yy = 0.0
        self.energy = 0.0
        self.rows = self.taps = 0

    def add(self, system: System, target: Tensor) -> None:
        """One batch: the layer's whole output (N, S, T', H', W')."""
        groups = system.convs[0].groups
        wanted = target if system.offset is None else target - system.offset
        y, own = (side.movedim(1, -1).flatten(0, -2) for side in (wanted, target))
        if system.members is not None:
            y, own = y[:, system.members], own[:, system.members]
        self.rows += len(y)
        y = y.reshape(len(y), groups, -1).transpose(0, 1)
        self.yy += float(y.double().square().sum())
        self.energy += float(own.double().square().sum())
        rows = max(1, ROWS // groups)
        for pieces in zip(*(torch.split(side, rows, 1) for side in (y, *system.columns)), strict=True):
            b, *columns = (piece.double() for piece in pieces)
            if system.bias is not None:
                columns.append(b.new_ones((*b.shape[:2], 1)))
            a = torch.cat(columns, 2)
            self.taps = a.shape[2]
            self.xx = self.xx + a.mT @ a
            self.xy = self.xy + a.mT @ b

    def solve(self, system: System) -> tuple[float, float]:
        """Put the solution into the weights; the squared error before and after."""
        assert isinstance(self.xx, Tensor)
        assert isinstance(self.xy, Tensor)
        groups = system.convs[0].groups
        parts = [conv.weight.reshape(groups, -1, conv.weight[0].numel()).double().mT for conv in system.convs]
        if system.bias is not None:
            parts.append(system.bias.reshape(groups, 1, -1).double())
        start = torch.cat(parts, 1)
        ridge = RIDGE * self.xx.diagonal(dim1=1, dim2=2).mean(1) + torch.finfo(torch.float64).tiny
        damped = self.xx.clone()  # 300 MB for a Conv3d of 512 channels
        damped.diagonal(dim1=1, dim2=2).add_(ridge[:, None])
        found = start + torch.linalg.solve(damped, self.xy - self.xx @ start)
        if not bool(torch.isfinite(found).all()):  # the activations overflow, as half precision may: leave the weights
            return math.inf, math.inf
        solved = torch.split(found, [part.shape[1] for part in parts], 1)
        for conv, part in zip(system.convs, solved, strict=False):  # the bias comes last
            conv.weight.copy_(part.mT.reshape(conv.weight.shape))
        if system.bias is not None:
            system.bias.copy_(solved[-1].reshape(system.bias.shape))
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
    """Relative error of all floating outputs together; infinite where only the swapped network's are not finite."""
    from torch.utils import _pytree as pytree

    apart = scale = 0.0
    for batch in batches:
        pairs = zip(pytree.tree_leaves(original(batch)), pytree.tree_leaves(swapped(batch)), strict=True)
        for a, b in pairs:
            if isinstance(a, Tensor) and a.is_floating_point():
                apart += float((b.double() - a.double()).square().sum())
                scale += float(a.double().square().sum())
    if not math.isfinite(scale):
        raise UsageError(f"{type(original).__name__} gives NaN or infinite outputs on the calibration clips")
    if not math.isfinite(apart):
        return math.inf
    return math.sqrt(apart / scale) if scale else math.sqrt(apart)
