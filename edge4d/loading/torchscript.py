"""Reads a TorchScript archive. Its code runs in torch's interpreter, not in Python, but some operators touch files."""

from __future__ import annotations

import re
import warnings
from typing import TYPE_CHECKING

from edge4d.errors import LoadError
from edge4d.loading.pickles import TRUST_HINT
from edge4d.torch_private import archive_reader

if TYPE_CHECKING:
    from pathlib import Path

    import torch

__all__ = ["load_script"]

_GAP = r"(?:\s|\\|#[^\n]*\n)*"
# `torch.save(x, "f")`, `ops.aten.save(…)` and `x.save("f")` are one operator. Loading already runs `__setstate__`.
_FILE_CALL = re.compile(rf"\.{_GAP}(save|from_file|load_tensor|rpc_sync|rpc_async|rpc_remote){_GAP}\(")
_NAMESPACE = re.compile(rf"\bops{_GAP}\.{_GAP}(c10d|_c10d_functional|symm_mem|debugprims|rpc|inductor){_GAP}\.")
_CLASS = re.compile(rf"\btorch{_GAP}\.{_GAP}classes{_GAP}\.{_GAP}(\w+)")
_HARMLESS_CLASSES = frozenset({"quantized", "xnnpack", "sparse", "mkldnn", "rnn"})


def load_script(path: Path, *, trust: bool) -> torch.jit.ScriptModule:
    """The module of the archive at `path`, on the CPU, in eval mode.

    No Python of the archive runs: its pickles are read by torch's own C++ reader, which knows only TorchScript's types.

    Raises:
        LoadError: the code uses files or other processes and the file is not trusted, or the archive is damaged.
    """
    import torch

    try:
        if not trust:
            _check_code(path)
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore"
            )  # torch calls TorchScript deprecated: true, and nothing a user can act on here
            return torch.jit.load(str(path), map_location="cpu").eval()  # type: ignore[no-any-return, no-untyped-call]
    except (RuntimeError, ValueError, OSError) as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise LoadError(
            f"{path}: a TorchScript archive that cannot be read: {lines[0][:300] if lines else type(error).__name__}",
            hint="write it again with torch.jit.save, or better torch.export.save; if it is a copy, compare the sizes",
        ) from error


def _check_code(path: Path) -> None:
    reader = archive_reader()(str(path))
    for name in reader.get_all_records():
        if not name.startswith("code/") or name.endswith(".debug_pkl"):
            continue
        text = reader.get_record(name).decode("utf-8", "replace")
        found = _FILE_CALL.search(text) or _NAMESPACE.search(text)
        what = found.group(1) if found else None
        if what is None:
            what = next((f"torch.classes.{c}" for c in _CLASS.findall(text) if c not in _HARMLESS_CLASSES), None)
        if what is not None:
            raise LoadError(
                f"{path}: the TorchScript code in {name} uses {what!r}, which can reach files or other processes; "
                "it was not loaded",
                hint=TRUST_HINT,
            )
