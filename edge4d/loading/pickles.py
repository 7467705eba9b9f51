"""Reads what `torch.save` wrote. A pickle is a program: without the user's word only a restricted reader sees it."""

from __future__ import annotations

import pickle
import pickletools
import re
import sys
import warnings
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from edge4d.errors import LoadError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["TRUST_HINT", "check_weights_only", "cwd_importable", "forbidden_global", "read_pickle"]

TRUST_HINT = "pass --trust-pickle (trust_pickle=True), but only for a file whose author you trust"


@contextmanager
def cwd_importable() -> Iterator[None]:
    """Put the current directory on `sys.path`, as `python` itself does but an installed command does not."""
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        yield
    finally:
        if here in sys.path:
            sys.path.remove(here)


def forbidden_global(error: BaseException) -> str | None:
    """The class or function that torch's restricted reader would not import; None when that was not the trouble."""
    found = re.search(r"GLOBAL\s+([\w.]+)", str(error))
    return found.group(1) if found else None


def check_weights_only(data: IO[bytes], where: str) -> None:
    """Read `data` with the restricted reader and throw the result away.

    Args:
        data: the bytes that another reader is about to unpickle without restriction.
        where: the file and the member, for the message.

    Raises:
        LoadError: the pickle names something that is not a plain tensor or container, or is damaged.
    """
    try:
        _torch_load(data, weights_only=True)
    except Exception as error:
        raise _refusal(where, error) from None


def _refusal(where: str, error: Exception) -> LoadError:
    name = forbidden_global(error)
    if name is None and "TorchScript" not in str(error) and "Unsupported" not in str(error):
        return LoadError(f"{where}: a damaged pickle: {_last_line(error)}", hint="copy or download the file again")
    what = f"it names {name}" if name else _last_line(error)
    return LoadError(
        f"{where}: holds a pickle with more than tensors in it ({what}); "
        "unpickling that runs code from the file, so it was not done",
        hint=f"{TRUST_HINT}; better, save torch.export.save(...) or model.state_dict(), which run nothing",
    )


def _last_line(error: BaseException) -> str:
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error))
    for marker in ("WeightsUnpickler error:", "Trying to load"):
        if marker in text:
            text = text[text.index(marker) :]
    first = next((line.strip() for line in text.splitlines() if line.strip()), type(error).__name__)
    return first[:300]


def _is_whole(path: Path) -> bool:
    """Whether the four pickles that begin a file of the legacy layout each have an end (nothing is unpickled)."""
    with path.open("rb") as stream:
        if stream.read(1) != b"\x80":
            return True  # a zip archive: its table of contents was found at its end
        stream.seek(0)
        try:
            for _ in range(4):
                for _opcode in pickletools.genops(stream):
                    pass
        except (ValueError, EOFError, UnicodeDecodeError):
            return False
    return True


def _torch_load(source: Path | IO[bytes], *, weights_only: bool) -> Any:
    import torch

    with warnings.catch_warnings():
        # Of pickle protocols above 2 and of storages by their old names: nothing a user can act on here.
        warnings.simplefilter("ignore")
        return torch.load(source, map_location="cpu", weights_only=weights_only)


def read_pickle(path: Path, *, trust: bool) -> Any:
    """The object that `torch.save` wrote to `path`, zip or legacy layout, on the CPU.

    Args:
        path: a file that `sniff` called a pickle.
        trust: whether the user vouched for the file; only then may it name any class.

    Raises:
        LoadError: refused, damaged, or a class of it cannot be imported here.
    """
    try:
        return _torch_load(path, weights_only=True)
    except Exception as error:
        if not _is_whole(path):
            raise LoadError(
                f"{path}: a damaged pickle: it ends too early, or torch.save did not write it",
                hint="copy or download it again, or save the model with torch.save",
            ) from None
        if not trust:
            raise _refusal(str(path), error) from None
    with cwd_importable():
        try:
            return _torch_load(path, weights_only=False)
        except (ModuleNotFoundError, AttributeError) as error:
            raise LoadError(
                f"{path}: was pickled with a class that cannot be imported here: {error}",
                hint="run edge4d in the folder of the model's source, or save a torch.export archive, which needs none",
            ) from error
        except (pickle.UnpicklingError, EOFError, RuntimeError) as error:
            raise LoadError(
                f"{path}: a damaged pickle: {_last_line(error)}", hint="copy or download it again"
            ) from error
        except Exception as error:
            raise LoadError(
                f"{path}: unpickling raised {type(error).__name__}: {error}",
                hint="the file's own code failed; load it with torch.load in Python to see where",
            ) from error
