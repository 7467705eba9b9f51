"""The steps of random networks: each looks at one value and gives (name, further operands, function), or None where it
does not fit. Steps run on values of any floating type."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.lowering.random_draft import HIGHEST, LARGEST, Draft

__all__ = ["STEPS"]


def _convolution(d: Draft, x: Tensor):
    if x.dim() != 5:
        return None
    rng, channels = d.rng, x.shape[1]
    out = rng.choice([2, 3, 4])
    kernel = tuple(rng.choice([k for k in (1, 2, 3) if k <= size + 2]) for size in x.shape[2:])
    padding = tuple(
        rng.randint(0, (k - 1) // 2) if k <= size else (k - 1) // 2 + 1
        for k, size in zip(kernel, x.shape[2:], strict=True)
    )
    options = {"stride": tuple(rng.choice([1, 1, 1, 2]) for _ in kernel), "padding": padding}
    if rng.random() < 0.25:
        return "ConvTranspose3d", (), d.layer(nn.ConvTranspose3d(channels, out, kernel, stride=options["stride"]))
    if rng.random() < 0.25:
        return "depthwise Conv3d", (), d.layer(nn.Conv3d(channels, channels, kernel, groups=channels, **options))
    return "Conv3d", (), d.layer(nn.Conv3d(channels, out, kernel, bias=rng.random() < 0.5, **options))


def _plane(d: Draft, x: Tensor):
    if x.dim() != 4:
        return None
    return "Conv2d", (), d.layer(nn.Conv2d(x.shape[1], d.rng.choice([2, 3]), 3, padding=1))


def _norm(d: Draft, x: Tensor):
    if x.dim() == 5 and d.rng.random() < 0.5:
        return "BatchNorm3d", (), d.layer(nn.BatchNorm3d(x.shape[1]))
    if x.dim() >= 2 and x.shape[-1] > 1 and d.rng.random() < 0.5:
        return "LayerNorm", (), d.layer(nn.LayerNorm(x.shape[-1]))
    if x.dim() >= 3 and math.prod(x.shape[2:]) > 1:
        groups = d.rng.choice([g for g in (1, 2, 3) if x.shape[1] % g == 0])
        return "GroupNorm", (), d.layer(nn.GroupNorm(groups, x.shape[1]))
    return None


def _pool(d: Draft, x: Tensor):
    if x.dim() != 5:
        return None
    kernel = tuple(d.rng.choice([k for k in (1, 2, 3) if k <= size]) for size in x.shape[2:])
    if d.rng.random() < 0.3:
        size = tuple(d.rng.randint(1, size) for size in x.shape[2:])
        return "adaptive_avg_pool3d", (), lambda v: F.adaptive_avg_pool3d(v, size)
    pool = d.rng.choice([F.max_pool3d, F.avg_pool3d])
    padding = tuple(d.rng.randint(0, k // 2) for k in kernel)
    stride = tuple(d.rng.choice([1, 2]) for _ in kernel)
    return pool.__name__, (), lambda v: pool(v, kernel, stride, padding)


def _resize(d: Draft, x: Tensor):
    if x.dim() != 5 or x.numel() > LARGEST // 8:
        return None
    size = tuple(d.rng.randint(1, 2 * size) for size in x.shape[2:])
    if d.rng.random() < 0.5:
        return "nearest", (), lambda v: F.interpolate(v, size)
    corners = d.rng.random() < 0.5
    return "trilinear", (), lambda v: F.interpolate(v, size, mode="trilinear", align_corners=corners)


def _permute(d: Draft, x: Tensor):
    if x.dim() < 2:
        return None
    order = d.rng.sample(range(x.dim()), x.dim())
    return f"permute {order}", (), lambda v: v.permute(order)


def _reshape(d: Draft, x: Tensor):
    """Random factors of the elements' number, often across the present axes."""
    rest, shape = x.numel(), []
    while rest > 1 and len(shape) < HIGHEST - 1:
        factor = d.rng.choice([f for f in range(2, min(rest, 24) + 1) if rest % f == 0] or [rest])
        shape.append(factor)
        rest //= factor
    shape.insert(d.rng.randint(0, len(shape)), rest)
    d.rng.shuffle(shape)
    return f"reshape {shape}", (), lambda v: v.reshape(shape)


def _flatten(d: Draft, x: Tensor):
    if x.dim() < 2:
        return None
    first = d.rng.randrange(x.dim() - 1)
    last = d.rng.randrange(first + 1, x.dim())
    return f"flatten {first}..{last}", (), lambda v: v.flatten(first, last)


def _unflatten(d: Draft, x: Tensor):
    axis = d.axis(x)
    divisors = [f for f in range(2, x.shape[axis]) if x.shape[axis] % f == 0]
    if not divisors or x.dim() >= HIGHEST:
        return None
    outer = d.rng.choice(divisors)
    return f"unflatten {axis} by {outer}", (), lambda v: v.unflatten(axis, (outer, -1))


def _unsqueeze(d: Draft, x: Tensor):
    if x.dim() >= HIGHEST:
        return None
    axis = d.rng.randint(0, x.dim())
    return f"unsqueeze {axis}", (), lambda v: v.unsqueeze(axis)


def _squeeze(d: Draft, x: Tensor):
    return ("squeeze", (), lambda v: v.squeeze()) if 1 in x.shape and x.numel() > 1 else None


def _slice(d: Draft, x: Tensor):
    axis = d.axis(x)
    start = d.rng.randrange(x.shape[axis])
    stop = d.rng.randint(start + 1, x.shape[axis])
    step = d.rng.choice([1, 1, 2, 3])
    index = (slice(None),) * axis + (slice(start, stop, step),)
    return f"slice [{start}:{stop}:{step}] of axis {axis}", (), lambda v: v[index]


def _select(d: Draft, x: Tensor):
    if x.dim() < 2:
        return None
    axis = d.axis(x)
    place = d.rng.randrange(x.shape[axis])
    return f"select {place} of axis {axis}", (), lambda v: v.select(axis, place)


def _roll(d: Draft, x: Tensor):
    axes = d.rng.sample(range(x.dim()), d.rng.randint(1, min(3, x.dim())))
    shifts = [d.rng.randint(-3, 3) for _ in axes]
    if d.rng.random() < 0.5:
        return f"roll {axes} by {shifts}", (), lambda v: v.roll(shifts, axes)
    return f"flip {axes}", (), lambda v: v.flip(axes)


def _pad(d: Draft, x: Tensor):
    amounts = [d.rng.randint(0, 2) for _ in range(2 * d.rng.randint(1, x.dim()))]
    return f"pad {amounts}", (), lambda v: F.pad(v, amounts, value=0.5)


def _join(d: Draft, x: Tensor):
    """With another value, itself, or a constant such as a class token."""
    axis = d.axis(x)

    def fits(shape):
        return len(shape) == x.dim() and (*shape[:axis], *shape[axis + 1 :]) == (*x.shape[:axis], *x.shape[axis + 1 :])

    if d.rng.random() < 0.4:
        token = d.held(d.constant((*x.shape[:axis], 1, *x.shape[axis + 1 :])))
        return f"cat of a constant along {axis}", (), lambda v: torch.cat([token(), v], axis)
    other = d.partner(fits, -1)
    if other < 0:
        return None
    if d.values[other].shape == x.shape and x.dim() < HIGHEST and d.rng.random() < 0.3:
        return f"stack along {axis}", (other,), lambda v, w: torch.stack([v, w], axis)
    return f"cat along {axis}", (other,), lambda v, w: torch.cat([v, w], axis)


def _broadcast(d: Draft, x: Tensor):
    """A binary operator with a constant, an earlier value, or a reduced self, that broadcasts."""
    combine = d.rng.choice([torch.add, torch.mul, torch.sub, torch.maximum])

    def fits(shape):
        try:
            return math.prod(torch.broadcast_shapes(shape, x.shape)) <= LARGEST
        except RuntimeError:
            return False

    other = d.partner(fits, -1)
    kind = d.rng.random()
    if kind < 0.4 and other >= 0:
        return combine.__name__, (other,), combine
    axes = tuple(d.rng.sample(range(x.dim()), d.rng.randint(1, x.dim())))
    if kind < 0.7:
        return f"{combine.__name__} of the mean over {axes}", (), lambda v: combine(v, v.mean(axes, keepdim=True))
    shape = [1 if axis in axes else size for axis, size in enumerate(x.shape)]
    other_side = d.held(d.constant(shape))
    return f"{combine.__name__} of a constant {shape}", (), lambda v: combine(v, other_side())


def _reduce(d: Draft, x: Tensor):
    axes = tuple(d.rng.sample(range(x.dim()), d.rng.randint(1, x.dim())))
    keep = len(axes) == x.dim() or d.rng.random() < 0.5
    reduce = d.rng.choice([torch.mean, torch.sum, torch.amax, torch.amin])
    return f"{reduce.__name__} over {axes}", (), lambda v: reduce(v, dim=axes, keepdim=keep)


def _along(d: Draft, x: Tensor):
    axis = d.axis(x)
    run = d.rng.choice([torch.softmax, torch.cumsum, torch.log_softmax])
    return f"{run.__name__} along {axis}", (), lambda v: run(v, axis)


def _pointwise(d: Draft, x: Tensor):
    run = d.rng.choice([torch.relu, torch.sigmoid, torch.tanh, F.gelu, F.silu, F.hardswish, torch.abs])
    return run.__name__, (), run


def _linear(d: Draft, x: Tensor):
    return "Linear", (), d.layer(nn.Linear(x.shape[-1], d.rng.choice([2, 3, 6])))


def _matmul(d: Draft, x: Tensor):
    if x.dim() < 2:
        return None
    if d.rng.random() < 0.5:
        return "matmul with its transpose", (), lambda v: v @ v.transpose(-1, -2)
    other = d.partner(lambda shape: len(shape) == x.dim() and shape == tuple(x.shape), 0)
    if d.values[other].shape != x.shape:
        return None
    return "attention", (other,), lambda v, w: (v @ w.transpose(-1, -2)).softmax(-1) @ w


def _where(d: Draft, x: Tensor):
    axis = d.axis(x)
    mask = d.constant((x.shape[axis], *(1,) * (x.dim() - axis - 1))) > 0
    return f"masked_fill along {axis}", (), lambda v: v.masked_fill(mask, -1.0)


def _gather(d: Draft, x: Tensor):
    """Places computed from the value itself: a gather, a scatter, an index, the top of an order."""
    axis = d.axis(x)
    kind, size = d.rng.randrange(6), x.shape[axis]

    def above(v):  # a threshold that no value is near by construction, as many are near 0
        return (v > 0.3173).long() % size

    if kind == 0:
        return f"gather along {axis}", (), lambda v: v.gather(axis, v.argsort(axis))
    if kind == 1:
        return f"scatter along {axis}", (), lambda v: (v * 2).scatter(axis, above(v), 0.5)
    if kind == 2:
        return f"scatter_add along {axis}", (), lambda v: v.scatter_add(axis, above(v), v)
    if kind == 3:
        keep = d.rng.randint(1, x.shape[axis])
        return f"topk {keep} along {axis}", (), lambda v: v.topk(keep, axis)[0]
    if kind == 4:
        return f"sort along {axis}", (), lambda v: v.sort(axis, descending=True)[0]

    return f"computed index along {axis}", (), lambda v: v.index_select(axis, above(v.flatten()[:5]))


def _index(d: Draft, x: Tensor):
    """Constant places along one or two axes, assigned or read."""
    axis, other = d.axis(x), d.axis(x)
    count = d.rng.randint(1, 4)
    places = [torch.tensor([d.rng.randrange(-x.shape[a], x.shape[a]) for _ in range(count)]) for a in (axis, other)]
    if d.rng.random() < 0.4:
        first = (slice(None),) * axis + (places[0],)

        def assigned(v):
            y = v * 2
            y[first] = -1.0
            return y

        return f"assignment at {places[0].tolist()} of axis {axis}", (), assigned
    index = [slice(None)] * x.dim()
    index[axis], index[other] = places[0], places[1]
    return f"index of axes {axis}, {other} at {[p.tolist() for p in places]}", (), lambda v: v[tuple(index)]


def _running(d: Draft, x: Tensor):
    axis = d.axis(x)
    kind = d.rng.randrange(3)
    if kind == 0:
        return f"cummax along {axis}", (), lambda v: v.cummax(axis)[0]
    if kind == 1:
        return f"cumprod along {axis}", (), lambda v: v.sigmoid().cumprod(axis)
    size, step = d.rng.randint(1, x.shape[axis]), d.rng.randint(1, 3)
    return f"unfold {axis} by {size}, {step}", (), lambda v: v.unfold(axis, size, step)


def _sample(d: Draft, x: Tensor):
    if x.dim() != 5:
        return None
    grid = d.held(1.3 * d.constant((x.shape[0], *(d.rng.randint(1, 3) for _ in range(3)), 3)).tanh())
    mode, padding = d.rng.choice(["bilinear", "nearest"]), d.rng.choice(["zeros", "border", "reflection"])
    corners = d.rng.random() < 0.5
    if d.rng.random() < 0.5:
        return f"grid_sample {mode} {padding}", (), lambda v: F.grid_sample(v, grid(), mode, padding, corners)

    def moved(v):
        return F.grid_sample(v, grid() + 0.1 * v.mean().tanh(), mode, padding, corners)

    return f"grid_sample {mode} {padding} at computed places", (), moved


def _number(d: Draft, x: Tensor):
    """What one number of the value itself does to it, or to a constant."""
    kind = d.rng.randrange(3)
    if kind == 0:
        return "scale by a gate", (), lambda v: v * (v.mean() * 2).sigmoid()
    if kind == 1:
        constant = d.held(d.constant(x.shape))
        return "constant plus the largest", (), lambda v: constant() + v.amax() * 0.1
    return "where by the sum", (), lambda v: torch.where(v.sum() > 0.1237, v, -v)


def _prelu(d: Draft, x: Tensor):
    if x.dim() < 2:
        return None
    return "PReLU", (), d.layer(nn.PReLU(d.rng.choice([1, x.shape[1]])))


def _recurrent(d: Draft, x: Tensor):
    """An LSTM or GRU over a sequence."""
    if x.dim() != 3 or x.shape[0] > 8 or x.shape[1] > 8:
        return None
    kind, first, both = d.rng.choice([nn.LSTM, nn.GRU]), d.rng.random() < 0.5, d.rng.random() < 0.5
    run = d.layer(kind(x.shape[2], 3, d.rng.choice([1, 2]), batch_first=first, bidirectional=both))
    return f"{kind.__name__}", (), lambda v: run(v)[0]


STEPS = {
    _convolution: 3, _plane: 1, _norm: 2, _pool: 2, _resize: 1, _permute: 4, _reshape: 3, _flatten: 3, _unflatten: 3,
    _unsqueeze: 1, _squeeze: 1, _slice: 2, _select: 1, _roll: 2, _pad: 2, _join: 3, _broadcast: 3, _reduce: 2,
    _along: 2, _pointwise: 2, _linear: 2, _matmul: 2, _where: 1,
    _gather: 3, _index: 2, _running: 2, _sample: 1,
    _number: 1, _prelu: 1, _recurrent: 1,
}  # fmt: skip
