"""What a model is held against: a limit on ranks, a device profile, or both; and the report that comes of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from edge4d.errors import UsageError
from edge4d.validators.findings import CODES, Finding, Report
from edge4d.validators.profile import Profile

__all__ = ["Limits"]

_KINDS = {"E4D001": "rank", "E4D003": "spatial-axes"}
"""The gate's own rules that a document may state as well, and the kind of limit that it then states."""


@dataclass(frozen=True)
class Limits:
    """The limits of one run.

    Attributes:
        max_rank: the most axes that a value may have; None for no limit.
        profile: the device; None for none.
    """

    max_rank: int | None
    profile: Profile | None = None

    @classmethod
    def of(cls, max_rank: int | None, profile: Profile | None = None) -> Limits:
        """Of two limits on ranks, the user's and the profile's, the stricter.

        Raises:
            UsageError: a limit below 1.
        """
        if max_rank is not None and max_rank < 1:
            raise UsageError(f"max_rank is {max_rank}, expected at least 1", hint="most devices take 4: --max-rank 4")
        stated = None if profile is None else profile.max_rank
        return cls(min((rank for rank in (max_rank, stated) if rank is not None), default=None), profile)

    @property
    def three_axes(self) -> bool:
        """Whether operators on three spatial axes are findings: at rank 5 and more they are what the target takes."""
        stated = self.profile is not None and self.profile.bound("spatial-axes") is not None
        return stated or (self.max_rank is not None and self.max_rank <= 4)

    def report(
        self,
        found: Iterable[Finding],
        checked: Mapping[str, int],
        versions: Mapping[str, str],
        *,
        path: str | None,
        highest_rank: int | None,
    ) -> Report:
        """The report of these findings, each place named once, in the order of the codes.

        Args:
            found: of findings at one place the worst comes first, and is kept: a function is met once for each call.
                A device may have several limits that one node breaks; those are told apart by what they say.
            checked, versions, path, highest_rank: as in `Report`.
        """
        kept: dict[tuple[str | None, ...], Finding] = {}
        for item in found:
            told = item.message if item.source is not None else None
            place = (item.code, item.where.graph, item.where.node, item.where.value, item.where.op, told)
            kept.setdefault(place, self._cited(self._hinted(item)))
        order = list(CODES)
        return Report(
            findings=tuple(sorted(kept.values(), key=lambda item: order.index(item.code))),
            checked=checked,
            versions=versions,
            settings={"max_rank": self.max_rank} | ({} if self.profile is None else {"profile": self.profile.name}),
            path=path,
            highest_rank=highest_rank,
        )

    def _cited(self, item: Finding) -> Finding:
        """The gate's own rules apply to a device because a document says so."""
        if self.profile is None or item.code not in _KINDS:
            return item
        bound = self.profile.bound(_KINDS[item.code])
        if bound is None or (item.code == "E4D001" and bound.max != self.max_rank):
            return item
        return replace(item, source=bound.cited)

    def _hinted(self, item: Finding) -> Finding:
        """An export brings ranks to four, so it is no cure below that."""
        if item.code != "E4D001" or self.max_rank is None or self.max_rank >= 4:
            return item
        hint = (
            f"`edge4d export` keeps every value within 4 axes, not within {self.max_rank}: "
            "change the model, or hold it against the limit of its target (most take 4: --max-rank 4)"
        )
        return replace(item, hint=hint)
