"""Rarer steps of random networks: options that few set, other spellings, writes in place, places and counts."""

from __future__ import annotations

import string

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.lowering.random_draft import HIGHEST, LARGEST, Draft

__all__ = ["RARE_STEPS"]


def _kernel(d: Draft, size: int, most: int) -> tuple[int, int, int]:
    """(kernel, dilation, padding) of an axis; every padding mode takes that padding."""
    kernel, dilation, padding = d.rng.choice([1, 2, 3]), d.rng.choice([1, 1, 2]), d.rng.randint(0, min(most, size - 1))
    return (kernel if (kernel - 1) * dilation < size + 2 * padding else 1), dilation, padding


def _groups(d: Draft, channels: int) -> int:
    return d.rng.choice([g for g in (1, 2, 3, 4) if channels % g == 0])


def _convolution(d: Draft, x: Tensor):
    if x.dim() != 5:
        return None
    kernel, dilation, padding = zip(*(_kernel(d, size, 2) for size in x.shape[2:]), strict=True)
    groups, mode = _groups(d, x.shape[1]), d.rng.choice(["zeros", "reflect", "replicate", "circular"])
    stride = tuple(d.rng.choice([1, 2, 3]) for _ in kernel)
    layer = nn.Conv3d(
        x.shape[1], groups * d.rng.choice([1, 2]), kernel, stride, padding, dilation, groups, padding_mode=mode
    )
    return f"Conv3d {mode} by {kernel}, {stride}, {dilation}, {groups} groups", (), d.layer(layer)


def _transposed(d: Draft, x: Tensor):
    if x.dim() != 5 or x.numel() > LARGEST // 16:
        return None
    axes = []
    for size in x.shape[2:]:
        kernel, stride, dilation = d.rng.choice([1, 2, 3]), d.rng.choice([1, 2, 3]), d.rng.choice([1, 1, 2])
        reach = dilation * (kernel - 1)
        padding = d.rng.randint(0, 1) if (size - 1) * stride + reach > 1 else 0
        axes.append((kernel, stride, padding, d.rng.randrange(max(stride, dilation)), dilation))
    kernel, stride, padding, more, dilation = zip(*axes, strict=True)
    groups = _groups(d, x.shape[1])
    layer = nn.ConvTranspose3d(
        x.shape[1], groups * d.rng.choice([1, 2]), kernel, stride, padding, more, groups, dilation=dilation
    )
    return f"ConvTranspose3d by {axes}, {groups} groups", (), d.layer(layer)


def _pool(d: Draft, x: Tensor):
    if x.dim() != 5:
        return None
    sizes = x.shape[2:]
    if d.rng.random() < 0.3:
        wanted = tuple(d.rng.randint(1, size) for size in sizes)
        return f"adaptive_max_pool3d {wanted}", (), lambda v: F.adaptive_max_pool3d(v, wanted)
    kernel = tuple(d.rng.choice([k for k in (1, 2, 3) if k <= size]) for size in sizes)
    stride, padding = tuple(d.rng.choice([1, 2, 3]) for _ in kernel), tuple(d.rng.randint(0, k // 2) for k in kernel)
    if d.rng.random() < 0.5:
        dilation = tuple(d.rng.choice([1, 2]) if 2 * k <= size else 1 for k, size in zip(kernel, sizes, strict=True))
        name = f"max_pool3d ceil {kernel}, {stride}, {padding}, {dilation}"
        return name, (), lambda v: F.max_pool3d(v, kernel, stride, padding, dilation, ceil_mode=True)
    counted, divisor = d.rng.random() < 0.5, d.rng.choice([None, None, 3])
    name = f"avg_pool3d ceil {kernel}, {stride}, {padding}, {counted}, {divisor}"
    return name, (), lambda v: F.avg_pool3d(v, kernel, stride, padding, True, counted, divisor)


def _resize(d: Draft, x: Tensor):
    if x.dim() != 5 or x.numel() > LARGEST // 16:
        return None
    scale = tuple(d.rng.choice([1.0, 1.5, 2.0, 2.3]) for _ in range(3))
    mode, again = d.rng.choice(["nearest", "nearest-exact", "trilinear", "area"]), d.rng.random() < 0.5
    name = f"interpolate {mode} by {scale}, {again}"
    return name, (), lambda v: F.interpolate(v, scale_factor=scale, mode=mode, recompute_scale_factor=again)


def _one_axis(d: Draft, x: Tensor):
    """A layer of one axis on what follows the channels, flat."""
    if x.dim() < 3:
        return None
    length = x[0, 0].numel()
    if d.rng.random() < 0.6:
        kernel, dilation, padding = _kernel(d, length, 1)
        groups = _groups(d, x.shape[1])
        run = d.layer(nn.Conv1d(x.shape[1], groups * 2, kernel, 1, padding, dilation, groups))
        return "Conv1d", (), lambda v: run(v.flatten(2))
    return "avg_pool1d", (), lambda v: F.avg_pool1d(v.flatten(2), min(2, length), 1, 0)


def _moment(d: Draft, x: Tensor):
    axes = tuple(d.rng.sample(range(x.dim()), d.rng.randint(1, x.dim())))
    kind = d.rng.randrange(4)
    if kind == 0:
        return f"minus the deviation over {axes}", (), lambda v: v - v.std(axes, correction=0, keepdim=True)
    if kind == 1:
        return f"logsumexp over {axes}", (), lambda v: v.logsumexp(axes, keepdim=True)
    if kind == 2:
        return f"normalize along {axes[0]}", (), lambda v: F.normalize(v, dim=axes[0])
    return f"sum of magnitudes over {axes}", (), lambda v: torch.linalg.vector_norm(v, 1, axes, keepdim=True)


def _instance_norm(d: Draft, x: Tensor):
    if not 3 <= x.dim() <= 5 or x[0, 0].numel() < 2:
        return None
    if d.rng.random() < 0.3:
        return "RMSNorm", (), d.layer(nn.RMSNorm(x.shape[-1], eps=1e-5))
    kind = {3: nn.InstanceNorm1d, 4: nn.InstanceNorm2d, 5: nn.InstanceNorm3d}[x.dim()]
    return "InstanceNorm", (), d.layer(kind(x.shape[1], affine=d.rng.random() < 0.5))


def _einsum(d: Draft, x: Tensor):
    """A product along one or two axes, which leaves the axes in another order."""
    letters = string.ascii_lowercase[: x.dim()]
    along = d.rng.sample(letters, d.rng.randint(1, min(2, x.dim())))
    size = d.rng.choice([1, 2, 3])
    left = [letter for letter in letters if letter not in along] + ["z"]
    d.rng.shuffle(left)
    rule = f"{letters},{''.join(along)}z->{''.join(left)}"
    weight = d.held(d.constant([*(x.shape[letters.index(letter)] for letter in along), size]))
    return f"einsum {rule}", (), lambda v: torch.einsum(rule, v, weight())


def _repeat(d: Draft, x: Tensor):
    if x.numel() > LARGEST // 4:
        return None
    axis = d.axis(x)
    if d.rng.random() < 0.5:
        return f"repeat_interleave along {axis}", (), lambda v: v.repeat_interleave(2, axis)
    times = [1] * x.dim()
    times[axis] = 2
    more = [2] if x.dim() < HIGHEST and d.rng.random() < 0.3 else []
    return f"repeat {[*more, *times]}", (), lambda v: v.repeat(*more, *times)


def _write(d: Draft, x: Tensor):
    """Writes in place through views of a copy."""
    if x.dim() < 2:
        return None
    axis, other = d.rng.sample(range(x.dim()), 2)
    place, start = d.rng.randrange(x.shape[axis]), d.rng.randrange(x.shape[other])

    def run(v):
        y = v.clone()
        y.select(axis, place).mul_(2)
        y.narrow(other, start, 1).add_(1)
        y.transpose(axis, other)[..., :1].relu_()
        return y

    return f"writes at {place} of axis {axis}, {start} of axis {other}", (), run


def _attention(d: Draft, x: Tensor):
    if x.dim() < 3:
        return None
    if x.dim() == 3 and d.rng.random() < 0.5:
        heads = d.rng.choice([h for h in (1, 2, 3) if x.shape[2] % h == 0])
        run = d.layer(nn.MultiheadAttention(x.shape[2], heads, batch_first=d.rng.random() < 0.5))
        which = d.rng.choice([0, 0, 1])
        return f"MultiheadAttention, result {which}", (), lambda v: run(v, v, v)[which]
    causal = d.rng.random() < 0.5
    return f"attention, causal {causal}", (), lambda v: F.scaled_dot_product_attention(v, v, v, is_causal=causal)


def _triangle(d: Draft, x: Tensor):
    if x.dim() < 2:
        return None
    first, second = d.rng.sample(range(x.dim()), 2)
    kind, shift = d.rng.randrange(3), d.rng.randint(-1, 1)
    if kind == 0 and x.shape[first] > 1:
        return f"diff along {first}", (), lambda v: v.diff(dim=first)
    if kind == 1:
        return f"tril {shift}", (), lambda v: v.tril(shift)
    return f"diagonal of {first}, {second}", (), lambda v: v.diagonal(0, first, second)


def _count(d: Draft, x: Tensor):
    """Whole numbers made of the value, beside the value: a count, the place of an extremum, an embedding's row."""
    axis, kind = d.axis(x), d.rng.randrange(4)
    if kind == 0:
        return f"count along {axis}", (), lambda v: v + (v > 0.2377).sum(axis, keepdim=True) * 0.1
    if kind == 1:
        return f"argmax along {axis}", (), lambda v: v + v.argmax(axis, keepdim=True).to(v.dtype) * 0.1
    if kind == 2:
        return f"any along {axis}", (), lambda v: torch.where((v > 1.1377).any(axis, keepdim=True), v, -v)
    if x.dim() >= HIGHEST:
        return None
    table, edges = d.held(d.constant([4, 2])), torch.tensor([-0.9371, 0.0173, 1.1377])
    return "rows of a table", (), lambda v: F.embedding(torch.bucketize(v.contiguous(), edges.to(v.dtype)), table())


RARE_STEPS = {
    _convolution: 1, _transposed: 1, _pool: 1, _resize: 1, _one_axis: 1, _moment: 1, _instance_norm: 1, _einsum: 1,
    _repeat: 1, _write: 1, _attention: 1, _triangle: 1, _count: 1,
}  # fmt: skip
