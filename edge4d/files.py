"""Files that appear whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import tempfile
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from edge4d.errors import ExportError, InternalError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["atomic_write", "refuse_existing", "refuse_folder", "sha256_of", "staged"]

_CHUNK = 1 << 20
_MARK = ".edge4d-"


def atomic_write(path: str | os.PathLike[str], data: bytes) -> None:
    """Write one file: it appears with all its bytes on the disk, or the former one stays as it was.

    Raises:
        ExportError: the disk is full, the folder is missing or may not be written to.
    """
    with staged(path) as (temporary,):
        temporary.write_bytes(data)


@contextmanager
def staged(*paths: str | os.PathLike[str]) -> Iterator[tuple[Path, ...]]:
    """Stand-ins to write to; when the block ends well they appear together under the names given.

    Each stand-in has its final name, inside a temporary folder beside its destination. Files that refer to each other
    by name (an ``.onnx`` and its ``.onnx.data``) can so be opened and checked before they are published. They are
    flushed to the disk and renamed, the first path last, so that the main file never stands without its companions.
    If the block raises, is interrupted, or a rename fails, what stood under the names before stands there again.

    Args:
        paths: the files to be written, the main one first.

    Yields:
        The stand-ins, in the same order. Each must exist when the block ends.

    Raises:
        ExportError: an `OSError` in the block or on publishing (disk full, missing folder, no permission…).
        InternalError: the block has not written one of the files.
    """
    targets = [Path(path) for path in paths]
    at = targets[0]
    with ExitStack() as folders:
        try:
            homes: dict[Path, Path] = {}
            for at in targets:
                _refuse_place(at)
                if at.parent not in homes:
                    homes[at.parent] = folders.enter_context(_temporary_folder(at.parent))
            at = targets[0]
            stand_ins = tuple(homes[target.parent] / target.name for target in targets)
            yield stand_ins
            for at, stand_in in zip(targets, stand_ins, strict=True):
                if not stand_in.is_file():
                    raise InternalError(f"{at} was to be written, and was not")
                _flush(stand_in)
            _publish(targets, stand_ins)
        except OSError as error:
            raise _cannot_write(at, error) from error


def refuse_existing(path: str | os.PathLike[str], force: bool) -> None:
    """Protect an output that is there already.

    Raises:
        UsageError: the path exists and `force` is not set.
    """
    if not force and os.path.lexists(path):
        raise UsageError(f"{path} exists already", hint="add --force to replace it, or choose another name with -o")


def refuse_folder(path: str | os.PathLike[str]) -> None:
    """Say before any work is done that a file cannot be written there.

    Raises:
        ExportError: its folder is missing or may not be written to, or the path is a folder itself.
    """
    target = Path(path)
    _refuse_place(target)
    if not target.parent.is_dir():
        raise ExportError(f"cannot write {target}: no such folder {target.parent}", hint=f"mkdir -p {target.parent}")
    try:
        with _temporary_folder(target.parent):  # permissions alone do not tell: of /proc, or of a disk elsewhere
            pass
    except OSError as error:
        raise _cannot_write(target, error) from error


def sha256_of(path: str | os.PathLike[str]) -> str:
    """The SHA-256 of a file of any size, as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _refuse_place(target: Path) -> None:
    """Renaming over a device such as /dev/null, or over a folder, would do harm or fail late."""
    if target.exists() and not target.is_file():
        raise ExportError(
            f"cannot write {target}: it is a {'folder' if target.is_dir() else 'device'}, not a file",
            hint="give the name of a file",
        )


@contextmanager
def _temporary_folder(parent: Path) -> Iterator[Path]:
    """A folder on the same file system as its parent, so that a rename out of it is atomic."""
    folder = Path(tempfile.mkdtemp(prefix=_MARK, dir=parent))
    try:
        yield folder
    finally:
        # Whatever is under way (an error, Ctrl-C) matters more than a leftover that cannot be removed.
        shutil.rmtree(folder, ignore_errors=True)


def _publish(targets: list[Path], stand_ins: tuple[Path, ...]) -> None:
    """Rename all, the main file last; on failure put back what was there."""
    undo: list[tuple[Path, Path, Path]] = []
    try:
        for i in range(len(targets) - 1, 0, -1):
            former = stand_ins[i].with_name(f"{targets[i].name}.former{i}")
            undo.append((targets[i], stand_ins[i], former))
            if targets[i].exists():
                targets[i].replace(former)
            stand_ins[i].replace(targets[i])
        stand_ins[0].replace(targets[0])
    except BaseException:
        if stand_ins[0].exists():  # else the main file is out, and with it the whole
            for target, stand_in, former in reversed(undo):
                if former.exists():
                    former.replace(target)
                elif not stand_in.exists():
                    target.unlink()
        raise
    for folder in {target.parent for target in targets}:
        _flush(folder)


def _flush(path: Path) -> None:
    """Have the disk take a file's bytes, or a folder's names, before the next step relies on them."""
    if path.is_dir() and os.name != "posix":
        return  # elsewhere a folder cannot be opened
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


_REASONS = {
    errno.ENOSPC: ("no space is left on the disk", "free some space or write to another disk with -o"),
    errno.EDQUOT: ("your disk quota is used up", "free some space or write to another disk with -o"),
    errno.EACCES: ("permission denied", "write to a folder that you may write to, with -o"),
    errno.EPERM: ("permission denied", "write to a folder that you may write to, with -o"),
    errno.EROFS: ("the file system is read-only", "write to another disk with -o"),
    errno.ENOENT: ("its folder does not exist", "make the folder first, or choose another with -o"),
    errno.ENOTDIR: ("what should be its folder is a file", "choose another folder with -o"),
    errno.ENAMETOOLONG: ("the name is too long", "choose a shorter one with -o"),
    errno.EFBIG: ("the file system takes no file of this size", "write to another disk with -o"),
}


def _cannot_write(target: Path, error: OSError) -> ExportError:
    name = "" if error.filename is None else os.fspath(error.filename)
    reason, hint = _REASONS.get(error.errno or 0, (error.strerror or str(error), "write to another place with -o"))
    if error.errno == errno.ENOENT and target.parent.is_dir():  # as /proc answers
        reason, hint = "no file can be made in its folder", "write to another place with -o"
    if name and _MARK not in name:  # not the file being written, but one that the block wanted to read
        reason, hint = f"{error.strerror}: {name}", "see that this file is there and can be read"
    return ExportError(f"cannot write {target}: {reason}", hint=hint)
