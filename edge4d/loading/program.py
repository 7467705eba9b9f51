"""Reads a `torch.export` archive (.pt2) without letting it run anything."""

from __future__ import annotations

import contextlib
import io
import json
import os
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from edge4d.errors import LoadError
from edge4d.loading.pickles import TRUST_HINT, check_weights_only
from edge4d.loading.program_scan import Suspicion, scan_program
from edge4d.torch_private import archive_loader, archive_reader

if TYPE_CHECKING:
    from pathlib import Path

    import torch
    from torch import nn

__all__ = ["load_program", "read_program"]

_WEIGHTS, _CONSTANTS, _SAMPLES, _MODELS = "data/weights/", "data/constants/", "data/sample_inputs/", "models/"


def load_program(path: Path, *, trust: bool) -> tuple[torch.export.ExportedProgram, nn.Module]:
    """The exported program of the archive at `path`, and the module it makes (see `read_program`)."""
    program = read_program(path, trust=trust)
    with _readable(path):
        # Without guards: they are source text that torch would compile, and shapes are checked elsewhere.
        return program, program.module(check_guards=False)


def read_program(path: Path, *, trust: bool) -> torch.export.ExportedProgram:
    """The exported program of the archive at `path`.

    `torch.export.load` unpickles weights, constants and example inputs without restriction, evaluates expressions
    and imports names out of the archive's JSON, and opens compiled libraries. So all of that is checked before, with
    the very reader that torch will use.

    Raises:
        LoadError: refused (says which member and why), of another version, or damaged.
    """
    if not trust:
        _check(path)
    load = archive_loader()
    programs: dict[str, torch.export.ExportedProgram]
    with _readable(path), path.open("rb") as stream:
        programs = load(stream).exported_programs
    if len(programs) != 1:
        names = ", ".join(sorted(programs)) or "none (compiled code only)"
        raise LoadError(
            f"{path}: expected one exported program in the archive, found {names}",
            hint="save one model with torch.export.save(program, path)",
        )
    (program,) = programs.values()
    return program


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except Exception as error:
        # torch has no error type for an unreadable archive; it raises whatever the damage led to.
        reason = _reason(error)
        hint = "write it again with torch.export.save, with PyTorch 2.13; if it is a copy, compare the sizes"
        if "failed to resolve" in reason:
            hint = "call edge4d from Python, after an import of the module that registers the operator"
        raise LoadError(f"{path}: a torch.export archive that cannot be read: {reason}", hint=hint) from error


def _reason(error: BaseException) -> str:
    text = str(error).strip()
    # The deserializer wraps the cause in a whole traceback as text: its last line is the reason.
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    line = lines[-1] if "Traceback" in text else (lines[0] if lines else "")
    return f"{type(error).__name__}: {line[:300]}" if line else type(error).__name__


def _check(path: Path) -> None:
    try:
        reader = archive_reader()(str(path))
        names: list[str] = reader.get_all_records()
    except (RuntimeError, UnicodeDecodeError) as error:  # the latter of a version that is no text
        raise LoadError(f"{path}: a damaged torch.export archive: {_reason(error)}", hint="copy it again") from None
    try:
        for name in names:
            _check_member(path, reader, name)
    except Suspicion as found:
        raise _refusal(path, str(found)) from None
    except (RuntimeError, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise LoadError(f"{path}: a damaged torch.export archive: {_reason(error)}", hint="copy it again") from None


def _refusal(path: Path, what: str) -> LoadError:
    return LoadError(
        f"{path}: this torch.export archive {what}; loading it could run code from the file, so it was not done",
        hint=f"{TRUST_HINT}; an archive of torch.export.save(torch.export.export(model, args), path) needs no trust",
    )


def _check_member(path: Path, reader: Any, name: str) -> None:
    where = f"{path} ({name})"
    if name.startswith("data/aotinductor/"):
        raise Suspicion(f"holds compiled machine code ({name})")
    if name.startswith(_MODELS):
        scan_program(json.loads(reader.get_record(name)), name)
    elif name.startswith((_WEIGHTS, _CONSTANTS)) and name.endswith("_config.json"):
        _check_payloads(path, reader, name)
    elif name.startswith((_WEIGHTS, _CONSTANTS)) and name.endswith(".pt"):
        check_weights_only(io.BytesIO(reader.get_record(name)), where)
    elif name.startswith(_SAMPLES) and (data := reader.get_record(name)):
        check_weights_only(io.BytesIO(data), where)


def _check_payloads(path: Path, reader: Any, name: str) -> None:
    """A payload table says for each weight or constant in which member it lies and whether that is a pickle."""
    folder = _WEIGHTS if name.startswith(_WEIGHTS) else _CONSTANTS
    table = json.loads(reader.get_record(name))
    entries = table.get("config") if isinstance(table, dict) else None
    if not isinstance(entries, dict):
        raise Suspicion(f"has a payload table of another form ({name})")
    for key, entry in entries.items():
        member = entry.get("path_name") if isinstance(entry, dict) else None
        if not isinstance(member, str):
            raise Suspicion(f"has a payload without a member ({name}: {key})")
        if folder == _CONSTANTS and not member.startswith("tensor_"):
            raise Suspicion(f"holds a constant that is an object, not a tensor ({key} in {folder}{member})")
        # Whatever its truth value means to torch: only a plain False is taken as "not a pickle".
        if entry.get("use_pickle") is not False:
            record = os.path.join(folder, member)  # noqa: PTH118 - as torch joins it, so that both read one member
            check_weights_only(io.BytesIO(reader.get_record(record)), f"{path} ({record})")
