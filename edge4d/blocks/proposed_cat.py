"""Proposed-Cat: the paper's structure, section II and figure 3, with a concatenating block.

    y = [P(S(x)), T(x)] along channels

The paper concatenates two branches of S channels each, so the result has 2·S and every later layer doubles
(``width="full"``: d²·C·S + t·C·S parameters, C being doubled too; `edge4d.models.eco_lite` builds it so). A layer of
somebody's network cannot change its width, so the default ``width="half"`` gives each branch half of the S channels:
(d²·C·S + t·C·S)/2 parameters. What P is and counts: `SpatialBranch`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from edge4d.blocks.base import Block, System
from edge4d.blocks.geometry import Geometry
from edge4d.blocks.ordering import joined
from edge4d.blocks.parallel import SpatialBranch, TemporalBranch
from edge4d.errors import UsageError

__all__ = ["ProposedCat"]

WIDTHS = ("half", "full")


class ProposedCat(Block):
    """A spatial and a temporal branch, joined along channels.

    With half width each output channel is purely spatial or purely temporal. The fit chooses: the channels whose
    weight has the most to lose go to the branch that keeps it (largest difference of squared norm first, as many for
    either branch as it has). `order` puts them back in place. With groups, each group has its share of both branches;
    where a group has one output channel (depthwise), whole groups belong to one branch.

    Args:
        geometry: of the Conv3d.
        width: ``half`` keeps S output channels, ``full`` gives 2·S: spatial first, then temporal.
        alignment: ``spatial`` or ``paper``, see `TemporalBranch`.
        temporal_pool: ``conv`` or ``select``, see `SpatialBranch`.
    """

    name = "proposed-cat"
    order: Tensor
    inputs: Tensor

    def __init__(
        self,
        geometry: Geometry,
        *,
        width: str = "half",
        alignment: str = "spatial",
        temporal_pool: str = "conv",
    ) -> None:
        super().__init__(geometry)
        if width not in WIDTHS:
            raise UsageError(f"unknown width {width!r}", hint=f"one of: {', '.join(WIDTHS)}")
        g = geometry
        self.full = width == "full"
        per_group = g.out_channels // g.groups
        self.by_group = not self.full and per_group == 1
        if self.full:
            self.split = (g.out_channels, g.out_channels)
            groups = (g.groups, g.groups)
        elif self.by_group:  # whole groups: the earlier half spatial until a fit chooses
            self.split = groups = (g.groups - g.groups // 2, g.groups // 2)
        else:
            temporal = per_group // 2 * g.groups
            self.split = (g.out_channels - temporal, temporal)
            groups = (g.groups, g.groups)
        own = g.in_channels // g.groups
        ins = tuple(count * own for count in groups)
        self.spatial = SpatialBranch(g, ins[0], self.split[0], groups=groups[0], bias=g.bias, pool=temporal_pool)
        self.temporal = (
            TemporalBranch(g, ins[1], self.split[1], groups=groups[1], bias=g.bias, alignment=alignment)
            if self.split[1]
            else None
        )
        self.register_buffer("order", torch.arange(sum(self.split)))
        if self.by_group:
            self.register_buffer("inputs", torch.arange(g.in_channels))
        if not self.full:
            self._choose(torch.zeros(g.out_channels))

    def transform(self, clip: Tensor) -> Tensor:
        """Both branches, joined; the channels in the Conv3d's order."""
        first, second = self._inputs(clip)
        spatial: Tensor = self.spatial(first)
        parts = (spatial,) if self.temporal is None else (spatial, self.temporal(second))
        return torch.cat(parts, 1) if self.full else joined(parts, self.order)

    def adopt(self, weight: Tensor, bias: Tensor | None) -> None:
        """Choose a branch for every channel by what it loses, then restrict its weight to that branch's arm."""
        t, h, w = self.geometry.centre
        spatial, temporal = weight[:, :, t], weight[:, :, :, h, w]
        mine, theirs = self._members()
        if not self.full:
            self._choose(spatial.square().sum((1, 2, 3)) - temporal.square().sum((1, 2)))
            mine, theirs = self._members()
        self.spatial.adopt(spatial[mine], bias[mine] if bias is not None else None)
        if self.temporal is not None:
            self.temporal.adopt(temporal[theirs], bias[theirs] if bias is not None else None)

    def systems(self, clip: Tensor) -> tuple[System, ...]:
        """One for each branch; none with full width, which makes other channels than the Conv3d."""
        if self.full:
            return ()
        first, second = self._inputs(clip)
        mine, theirs = self._members()
        spatial = System((self.spatial.conv,), (self.spatial.columns(first),), self.spatial.bias, mine)
        if self.temporal is None:
            return (spatial,)
        columns = self.temporal.columns(second)
        return spatial, System((self.temporal.conv,), (columns,), self.temporal.conv.bias, theirs)

    def _inputs(self, clip: Tensor) -> tuple[Tensor, Tensor]:
        """The channels that each branch sees: all of them, but for depthwise layers."""
        if not self.by_group:
            return clip, clip
        own = self.spatial.conv.in_channels
        return clip.index_select(1, self.inputs[:own]), clip.index_select(1, self.inputs[own:])

    def kernel(self) -> Tensor | None:
        """Per channel one arm of the cross; None with full width or paper alignment, which no such Conv3d equals."""
        if self.full or (self.temporal is not None and not self.temporal.aligned):
            return None
        g = self.geometry
        t, h, w = g.centre
        mine, theirs = self._members()
        arm = self.spatial.tap()
        whole = torch.zeros((g.out_channels, arm.shape[1], *g.kernel), dtype=torch.float64, device=arm.device)
        whole[mine, :, t] = arm
        if self.temporal is not None:
            whole[theirs, :, :, h, w] = self.temporal.tap()
        return whole

    def _members(self) -> tuple[Tensor, Tensor]:
        """The Conv3d's channels that each branch makes, in the branch's order."""
        if self.full:
            return self.order[: self.split[0]], self.order[: self.split[1]]
        made = torch.argsort(self.order)
        return made[: self.split[0]], made[self.split[0] :]

    def _choose(self, gain: Tensor) -> None:
        """Give each branch its share of every group's channels, those of greatest `gain` (S,) to the spatial one."""
        g = self.geometry
        units = gain.reshape(1, -1) if self.by_group else gain.reshape(g.groups, -1)
        ranked = torch.argsort(units, dim=1, descending=True, stable=True)
        share = self.split[0] if self.by_group else self.split[0] // g.groups
        start = torch.arange(units.shape[0], device=ranked.device).unsqueeze(1) * units.shape[1]
        mine, theirs = (
            (torch.sort(part, dim=1).values + start).flatten() for part in (ranked[:, :share], ranked[:, share:])
        )
        made = torch.cat([mine, theirs])
        self.order.copy_(torch.argsort(made))
        if self.by_group:
            own = g.in_channels // g.groups
            self.inputs.copy_((made.unsqueeze(1) * own + torch.arange(own, device=made.device)).flatten())
