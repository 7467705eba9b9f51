"""Findings that are known already: written once, and from then on only new ones count."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from edge4d.errors import UsageError
from edge4d.validators.findings import Finding, Report
from edge4d.validators.selection import set_aside

__all__ = ["Baseline", "Known", "fingerprint"]

_VERSION = 1
_NEVER = frozenset({"E4D004"})  # that nothing was checked is never "known and accepted"

Entry = tuple[str, ...]
"""Path, profile, code, graph, node, operator and value of a finding, ``""`` for what it does not have."""

_KEYS = ("path", "profile", "code", "graph", "node", "op", "value")


class Known(NamedTuple):
    """A finding in a baseline.

    Attributes:
        entry: what tells it from all others.
        layer: the layer of the model that it is about, ``""`` where that is not known.
    """

    entry: Entry
    layer: str = ""

    @property
    def kin(self) -> Entry | None:
        """What it still is when its node has got another name: a finding of that kind in that layer."""
        path, profile, code, graph, _, op, _ = self.entry
        return (path, profile, code, graph, op, self.layer) if self.layer else None


@dataclass
class Baseline:
    """The known findings of some files.

    Each makes up for one finding: at the same node, or, since exporters number their nodes anew, in the same layer.

    Attributes:
        folder: what the paths within are relative to: that of the baseline's own file.
        known: the findings.
        met: places in `known` of those that were found again.
    """

    folder: Path
    known: tuple[Known, ...] = ()
    met: set[int] = field(default_factory=set)

    @classmethod
    def read(cls, path: Path) -> Baseline:
        """From a file that `write` made.

        Raises:
            UsageError: there is no such file, or it is no baseline.
        """
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise UsageError(
                f"--baseline {path}: no such file", hint=f"write it with --write-baseline {path}"
            ) from None
        except (OSError, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
            raise UsageError(f"--baseline {path}: cannot be read: {error}") from error
        return cls(path.parent, tuple(_known(path, data)))

    @classmethod
    def of(cls, folder: Path, reports: Iterable[Report]) -> Baseline:
        """Of everything that these reports hold."""
        here = cls(folder)
        known = [here._known(report, item) for report in reports for item in report.findings if item.code not in _NEVER]
        return cls(folder, tuple(sorted(known)))

    def to_json(self) -> str:
        """The text of the file: sorted, one finding a line, so that a change reads well in a diff."""
        lines = [
            json.dumps({k: v for k, v in zip((*_KEYS, "layer"), (*one.entry, one.layer), strict=True) if v})
            for one in self.known
        ]
        inner = ",\n    ".join(lines)
        body = f"[\n    {inner}\n  ]" if lines else "[]"
        return f'{{\n  "edge4d_baseline": {_VERSION},\n  "findings": {body}\n}}\n'

    def apply(self, report: Report) -> Report:
        """The report without the findings that are known."""
        kept = [item for item in report.findings if item.code in _NEVER]
        rest = [item for item in report.findings if item.code not in _NEVER]
        for sort in (_entry_of, _kin_of):
            rest = self._unknown(report, rest, sort)
        new = {id(item) for item in (*kept, *rest)}
        return set_aside(report, tuple(item for item in report.findings if id(item) in new), "baseline")

    def _unknown(
        self, report: Report, items: Iterable[Finding], sort: Callable[[Known], Entry | None]
    ) -> list[Finding]:
        """Those of the findings that no known one, each good for one, makes up for."""
        free: dict[Entry, list[int]] = {}
        for i in range(len(self.known) - 1, -1, -1):
            key = sort(self.known[i])
            if i not in self.met and key is not None:
                free.setdefault(key, []).append(i)
        left = []
        for item in items:
            key = sort(self._known(report, item))
            if key is not None and free.get(key):
                self.met.add(free[key].pop())
            else:
                left.append(item)
        return left

    def gone(self, reports: Iterable[Report]) -> int:
        """How many known findings of the files that were checked are there no more."""
        checked = {(self._path(report), str(report.settings.get("profile", ""))) for report in reports}
        return sum(one.entry[:2] in checked for i, one in enumerate(self.known) if i not in self.met)

    def _known(self, report: Report, item: Finding) -> Known:
        return Known(self.entry(report, item), item.where.layer or "")

    def entry(self, report: Report, item: Finding) -> Entry:
        """What tells a finding from all others, whatever its message says."""
        where = item.where
        profile = str(report.settings.get("profile", ""))
        return (
            self._path(report),
            profile,
            item.code,
            where.graph,
            where.node or "",
            where.op or "",
            where.value or "",
        )

    def _path(self, report: Report) -> str:
        if report.path is None:
            return ""
        try:
            return Path(os.path.relpath(report.path, self.folder)).as_posix()
        except ValueError:  # on another drive
            return Path(report.path).as_posix()


def fingerprint(entry: Entry) -> str:
    """A short stable name of a finding."""
    return hashlib.sha256("\0".join(entry).encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _known(path: Path, data: Any) -> Iterable[Known]:
    hint = "write it anew with --write-baseline"
    if not isinstance(data, dict) or "edge4d_baseline" not in data:
        raise UsageError(f"--baseline {path}: not a baseline of edge4d", hint=hint)
    if data["edge4d_baseline"] != _VERSION:
        raise UsageError(
            f"--baseline {path}: version {data['edge4d_baseline']}, this edge4d reads {_VERSION}", hint=hint
        )
    findings = data.get("findings")
    for item in findings if isinstance(findings, list) else [None]:
        if not isinstance(item, dict) or not all(isinstance(item.get(key, ""), str) for key in (*_KEYS, "layer")):
            raise UsageError(f"--baseline {path}: an entry is not as it should be: {item!r:.80}", hint=hint)
        yield Known(tuple(item.get(key, "") for key in _KEYS), item.get("layer", ""))


def _entry_of(one: Known) -> Entry:
    return one.entry


def _kin_of(one: Known) -> Entry | None:
    return one.kin
