"""How fast a candidate has to be: floors that make a measurement a test."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from edge4d.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edge4d.validators.fps import CandidateFps

__all__ = ["Floors", "Shortfall"]


@dataclass(frozen=True)
class Shortfall:
    """A candidate below a floor.

    Attributes:
        name: of the candidate.
        floor: ``min_frames_per_s`` or ``min_ratio``.
        got: what it reached; None where that is not known, which is below every floor.
        expected: the floor.
        why: what is known instead of a number.
    """

    name: str
    floor: str
    got: float | None
    expected: float
    why: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready mapping of the attributes."""
        return asdict(self)

    def to_text(self) -> str:
        """One sentence: which candidate, what it reached, what was expected."""
        if self.floor == "min_ratio":
            got = f"{self.got:.4g} times as fast as the reference" if self.got is not None else "no ratio"
            wanted = f"at least {self.expected:g} times (--min-ratio)"
        else:
            got = f"{self.got:.4g} frames/s" if self.got is not None else "no frames/s"
            wanted = f"at least {self.expected:g} frames/s (--min-fps)"
        because = f" ({self.why})" if self.why is not None else ""
        return f"{self.name} is too slow: {got}{because}, expected {wanted}"


@dataclass(frozen=True)
class Floors:
    """What every candidate must reach.

    Attributes:
        min_fps: frames (not clips) a second: N * T of a call over its median latency. Holds for the candidates, and for
            the reference where it stands alone.
        min_ratio: times as fast as the reference.
    """

    min_fps: float | None = None
    min_ratio: float | None = None

    def __post_init__(self) -> None:
        for option, value in (("--min-fps", self.min_fps), ("--min-ratio", self.min_ratio)):
            # Everything is at least as fast as NaN, and a floor of 0 could not fail either.
            if value is not None and not 0 < value < math.inf:
                raise UsageError(
                    f"{option} {value:g}, expected a finite number above 0", hint=f"leave {option} out for no limit"
                )

    def check_count(self, models: int) -> None:
        """Refuse a floor that holds for nothing.

        Raises:
            UsageError: a ratio is asked for, and there is nothing but the reference.
        """
        if self.min_ratio is not None and models < 2:
            raise UsageError(
                "--min-ratio compares candidates with REFERENCE, and there is no candidate", hint="name one after it"
            )

    def shortfalls(self, lines: Sequence[CandidateFps]) -> tuple[Shortfall, ...]:
        """The candidates below a floor.

        Args:
            lines: the reference first; native forms, which bench adds by itself, are held to nothing.
        """
        given = [line for line in lines if not line.is_native]
        held = given[1:] or given
        found = []
        for line in held:
            if self.min_fps is not None and not (line.frames_per_s or 0) >= self.min_fps:
                found.append(
                    Shortfall(line.name, "min_frames_per_s", line.frames_per_s, self.min_fps, _why(line.failure))
                )
        for line in given[1:]:
            if self.min_ratio is not None and not (line.speedup or 0) >= self.min_ratio:
                why = _why(line.failure) or line.incomparable
                why = why if line.speedup is not None or why is not None else "the reference failed"
                found.append(Shortfall(line.name, "min_ratio", line.speedup, self.min_ratio, why))
        return tuple(found)

    def to_dict(self, lines: Sequence[CandidateFps]) -> dict[str, Any]:
        """For ``--json``: the floors, and who is below them."""
        return {
            "min_frames_per_s": self.min_fps,
            "min_ratio": self.min_ratio,
            "shortfalls": [shortfall.to_dict() for shortfall in self.shortfalls(lines)],
        }


def _why(failure: str | None) -> str | None:
    return "it failed" if failure is not None else None
