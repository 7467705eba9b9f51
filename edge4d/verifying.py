"""`edge4d verify` as a function: the gate over files and folders, against a limit or against device profiles."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edge4d.errors import Edge4dError, UsageError
from edge4d.files import atomic_write
from edge4d.validators.baseline import Baseline
from edge4d.validators.gate import GateReport, Unreadable
from edge4d.validators.selection import Selection

if TYPE_CHECKING:
    from edge4d.validators.findings import Report

__all__ = ["Limits", "find_models", "verify"]

_SUFFIXES = frozenset({".onnx", ".pt2"})
_TORCH_SUFFIXES = frozenset({".pt2", ".pt", ".pth", ".ckpt", ".safetensors"})
_ZIP, _PICKLE, _ONNX = b"PK\x03\x04", b"\x80", b"\x08"  # how files begin; a torch.export archive is a zip file


@dataclass(frozen=True)
class Limits:
    """What the files are held against.

    Attributes:
        max_rank: the limit; None for 4, or for what the profiles say when there are some.
        profiles: names of device profiles, or paths of profile files.
    """

    max_rank: int | None = None
    profiles: Sequence[str] = ()


def verify(
    paths: Sequence[Path],
    limits: Limits | None = None,
    *,
    selection: Selection | None = None,
    baseline: Path | None = None,
    write_baseline: Path | None = None,
) -> GateReport:
    """Check files one after the other; one that cannot be read does not stop the others.

    Args:
        paths: ONNX files, torch.export archives, or folders that are searched for both.
        limits: a rank, device profiles, or both; rank 4 by default.
        selection: which findings count.
        baseline: a file of findings that are known already.
        write_baseline: where to write all findings that count; they are known from now on.

    Raises:
        UsageError: a limit below 1, a folder without models, an unknown profile, an unreadable baseline.
        ExportError: the baseline cannot be written.
    """
    limits, selection = limits or Limits(), selection or Selection()
    known = Baseline.read(baseline) if baseline is not None else None
    results = [
        selection.apply(result) if not isinstance(result, Unreadable) else result
        for path in find_models(paths)
        for result in _check(path, limits)
    ]
    reports = [result for result in results if not isinstance(result, Unreadable)]
    notes = list(_links(paths))
    if write_baseline is not None:
        known = Baseline.of(write_baseline.parent, reports)
        atomic_write(write_baseline, known.to_json().encode())
        notes.append(f"wrote {len(known.known)} known findings to {write_baseline}")
    if known is not None:
        results = [result if isinstance(result, Unreadable) else known.apply(result) for result in results]
        if gone := known.gone(reports):
            notes.append(f"{gone} findings of the baseline are there no more; write it anew with --write-baseline")
    return GateReport(tuple(results), tuple(notes))


def find_models(paths: Sequence[Path]) -> list[Path]:
    """The files themselves, and all ``.onnx`` and ``.pt2`` files below folders, each once; hidden folders are left out.

    Raises:
        UsageError: no path is given, or a folder holds no model, so that nothing would be checked.
    """
    if not paths:
        raise UsageError("verify needs a file or a folder", hint="edge4d verify model.onnx")
    found: dict[Path, None] = {}
    for path in paths:
        if not path.is_dir():
            found[path] = None
            continue
        inside = sorted(_below(path))
        if not inside:
            raise UsageError(
                f"{path}: holds no .onnx or .pt2 file, so there is nothing to check", hint="name the files themselves"
            )
        found.update(dict.fromkeys(inside))
    return list(found)


def _below(folder: Path) -> Iterator[Path]:
    for home, folders, names in os.walk(folder):  # does not follow links to folders, so it ends
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(home, name) for name in names if Path(name).suffix.lower() in _SUFFIXES)


def _links(paths: Sequence[Path]) -> Iterator[str]:
    """What was left out below folders, to be told."""
    for path in paths:
        for home, folders, _ in os.walk(path):
            for name in folders:
                if Path(home, name).is_symlink() and not name.startswith("."):
                    yield f"{Path(home, name)} is a link to a folder and was not followed; name it to check it too"
            folders[:] = [name for name in folders if not name.startswith(".")]


def _check(path: Path, limits: Limits) -> Iterator[Report | Unreadable]:
    """One result, or one for each profile."""
    try:
        yield from _reports(path, limits)
    except UsageError:  # is about the options, not about this file
        raise
    except Edge4dError as error:
        yield Unreadable(str(path), type(error).__name__, error.message, error.hint, error.exit_code)


def _reports(path: Path, limits: Limits) -> Iterator[Report]:
    from edge4d.validators.profile import load_profile

    check = _checker(path)
    if not limits.profiles:
        yield check(path, 4 if limits.max_rank is None else limits.max_rank)
    for name in limits.profiles:
        yield check(path, limits.max_rank, profile=load_profile(name))


def _checker(path: Path) -> Callable[..., Report]:
    """The gate for ONNX, or that for PyTorch's files, which are told by their content, or by a name of theirs."""
    from edge4d.validators.program import check_exported
    from edge4d.validators.rank import check_rank

    if not path.is_file():  # opening a pipe would wait for a writer, perhaps for ever
        return check_rank  # says what it is instead
    try:
        with path.open("rb") as stream:
            head = stream.read(len(_ZIP))
    except OSError:
        return check_rank  # says what is wrong with it
    if head == _ZIP or head[:1] == _PICKLE:
        return check_exported
    # An ONNX file begins with the field of its version, whatever its name says.
    return check_exported if path.suffix.lower() in _TORCH_SUFFIXES and head[:1] != _ONNX else check_rank
