"""Which findings count: codes chosen or left out, errors made warnings. Nothing is dropped without being counted."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from edge4d.errors import UsageError
from edge4d.validators.explaining import matching_codes
from edge4d.validators.findings import CODES, FailOn, Finding, Report

__all__ = ["Selection"]

_ALWAYS = frozenset({"E4D004"})


@dataclass(frozen=True)
class Selection:
    """What the user asked for.

    That nothing was checked is never left out, and never a warning.

    Attributes:
        keep: codes that are shown.
        warn: codes whose findings are warnings.
        fail_on: the mildest severity that fails.
    """

    keep: frozenset[str] = frozenset(CODES)
    warn: frozenset[str] = frozenset()
    fail_on: FailOn = "error"

    @classmethod
    def of(
        cls,
        select: Iterable[str] = (),
        ignore: Iterable[str] = (),
        warn: Iterable[str] = (),
        fail_on: FailOn = "error",
    ) -> Selection:
        """From what stands on a command line: codes, beginnings of codes or names, also joined by commas.

        Raises:
            UsageError: one that matches no rule, or several that leave none.
        """
        chosen, left_out, mild = _codes(select), _codes(ignore), _codes(warn)
        keep = (chosen or frozenset(CODES)) - left_out
        if not keep - _ALWAYS:
            raise UsageError(
                "--select and --ignore leave no rule, so nothing would be checked",
                hint="--fail-on never tells all and fails on nothing",
            )
        return cls(keep | _ALWAYS, mild - _ALWAYS, fail_on)

    def apply(self, report: Report) -> Report:
        """The report with the findings that count; the others are counted in its `set_aside`."""
        kept = tuple(
            replace(item, severity="warning") if item.code in self.warn else item
            for item in report.findings
            if item.code in self.keep
        )
        return replace(set_aside(report, kept, "ignored"), fail_on=self.fail_on)


def set_aside(report: Report, kept: tuple[Finding, ...], reason: str) -> Report:
    """The report with fewer findings, and how many that are for this reason."""
    gone = len(report.findings) - len(kept)
    if not gone:
        return replace(report, findings=kept)
    counts = {**report.set_aside, reason: report.set_aside.get(reason, 0) + gone}
    return replace(report, findings=kept, set_aside=counts)


def _codes(texts: Iterable[str], meaning: Callable[[str], frozenset[str]] = matching_codes) -> frozenset[str]:
    return frozenset(code for text in texts for part in text.split(",") if part.strip() for code in meaning(part))
