"""Files appear whole or not at all, whatever goes wrong on the way."""

from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path

import pytest

from edge4d.errors import ExportError, InternalError, UsageError
from edge4d.files import atomic_write, refuse_existing, refuse_folder, sha256_of, staged


def listing(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def fails_with(code: int):
    def fail(*args, **kwargs):
        raise OSError(code, os.strerror(code))

    return fail


def test_a_file_is_written_with_ordinary_permissions(tmp_path):
    atomic_write(tmp_path / "a.bin", b"new")
    assert (tmp_path / "a.bin").read_bytes() == b"new"
    assert listing(tmp_path) == ["a.bin"]
    mask = os.umask(0)
    os.umask(mask)
    assert (tmp_path / "a.bin").stat().st_mode & 0o777 == 0o666 & ~mask


def test_a_file_in_the_current_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    atomic_write("a.bin", b"x")
    assert listing(tmp_path) == ["a.bin"]


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (errno.ENOSPC, "no space is left"),
        (errno.EACCES, "permission denied"),
        (errno.EROFS, "read-only"),
        (errno.EIO, "Input/output error"),
    ],
)
def test_a_failing_disk_leaves_the_former_file_and_nothing_else(tmp_path, monkeypatch, code, reason):
    out = tmp_path / "a.bin"
    out.write_bytes(b"former")
    monkeypatch.setattr(Path, "write_bytes", fails_with(code))
    with pytest.raises(ExportError, match=reason) as caught:
        atomic_write(out, b"new")
    assert str(out) in caught.value.message
    assert caught.value.hint
    assert out.read_bytes() == b"former"
    assert listing(tmp_path) == ["a.bin"]


def test_a_disk_that_turns_out_full_on_flushing(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", fails_with(errno.ENOSPC))
    with pytest.raises(ExportError, match="no space is left"):
        atomic_write(tmp_path / "a.bin", b"new")
    assert listing(tmp_path) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_truly_full_device(tmp_path):
    def write():
        with staged(tmp_path / "a.bin") as (out,):
            out.symlink_to("/dev/full")
            with out.open("wb", buffering=0) as file:
                file.write(b"x")

    with pytest.raises(ExportError, match="no space is left"):
        write()
    assert listing(tmp_path) == []


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, SystemExit, ValueError])
def test_an_interruption_in_the_middle_leaves_nothing(tmp_path, interruption):
    def write():
        with staged(tmp_path / "a", tmp_path / "b") as (a, _):
            a.write_bytes(b"half")
            raise interruption

    with pytest.raises(interruption):
        write()
    assert listing(tmp_path) == []


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(ExportError, match="folder does not exist"):
        atomic_write(tmp_path / "missing" / "a.bin", b"")


def test_an_unwritable_folder_is_told_before_any_work(tmp_path, monkeypatch):
    refuse_folder(tmp_path / "a.onnx")
    assert listing(tmp_path) == []

    def refused(path, mode=0o777):  # the user of CI may be root, who may write anywhere
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)

    monkeypatch.setattr(os, "mkdir", refused)
    with pytest.raises(ExportError, match=r"cannot write .*a\.onnx: permission denied") as caught:
        refuse_folder(tmp_path / "a.onnx")
    assert "folder that you may write to" in caught.value.hint


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="there is no such folder here")
def test_a_folder_that_takes_no_files_is_told_before_any_work_too():
    with pytest.raises(ExportError, match=r"cannot write /proc/a\.onnx: no file can be made in its folder|denied"):
        refuse_folder("/proc/a.onnx")


def test_a_file_used_as_a_folder(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ExportError, match="its folder is a file"):
        atomic_write(tmp_path / "file" / "a.bin", b"")


def test_a_folder_is_not_replaced(tmp_path):
    (tmp_path / "a").mkdir()
    with pytest.raises(ExportError, match="it is a folder, not a file"):
        atomic_write(tmp_path / "a", b"")


def test_a_device_is_not_replaced():
    with pytest.raises(ExportError, match="it is a device"):
        atomic_write(os.devnull, b"")
    assert not Path(os.devnull).is_file()


def test_an_unreadable_source_is_not_blamed_on_the_target(tmp_path):
    with pytest.raises(ExportError, match=r"No such file.*source\.bin"), staged(tmp_path / "a") as (a,):
        a.write_bytes((tmp_path / "source.bin").read_bytes())


def test_several_files_appear_together_under_their_final_names(tmp_path):
    with staged(tmp_path / "m.onnx", tmp_path / "m.onnx.data") as (model, data):
        assert (model.name, data.name) == ("m.onnx", "m.onnx.data")
        assert model.parent == data.parent
        model.write_bytes(b"model")
        data.write_bytes(b"data")
        assert not (tmp_path / "m.onnx").exists()
    assert listing(tmp_path) == ["m.onnx", "m.onnx.data"]


def test_files_in_different_folders(tmp_path):
    (tmp_path / "x").mkdir()
    with staged(tmp_path / "a", tmp_path / "x" / "a") as (a, b):
        a.write_bytes(b"1")
        b.write_bytes(b"2")
    assert (tmp_path / "x" / "a").read_bytes() == b"2"
    assert listing(tmp_path) == ["a", "x"]
    assert listing(tmp_path / "x") == ["a"]


@pytest.mark.parametrize("fault", [OSError(errno.EIO, "Input/output error"), KeyboardInterrupt()])
@pytest.mark.parametrize("nth", [1, 2, 3, 4, 5])
def test_a_rename_that_fails_puts_everything_back(tmp_path, monkeypatch, nth, fault):
    names = ["main", "old", "new"]
    for name in names[:2]:
        (tmp_path / name).write_bytes(b"former " + name.encode())
    rename, calls = Path.replace, []

    def failing(self, target):
        calls.append(target)
        if len(calls) == nth:
            raise fault
        return rename(self, target)

    monkeypatch.setattr(Path, "replace", failing)

    def write():
        with staged(*(tmp_path / name for name in names)) as files:
            for file in files:
                file.write_bytes(b"fresh")

    if nth == 5:  # one rename more than there are: the known-good end of the row
        write()
        assert {(tmp_path / name).read_bytes() for name in names} == {b"fresh"}
        return
    with pytest.raises((ExportError, KeyboardInterrupt)):
        write()
    assert listing(tmp_path) == ["main", "old"]
    assert (tmp_path / "main").read_bytes() == b"former main"
    assert (tmp_path / "old").read_bytes() == b"former old"


def test_a_file_that_was_not_written_is_our_bug(tmp_path):
    with pytest.raises(InternalError, match="was to be written"), staged(tmp_path / "a", tmp_path / "b") as (a, _):
        a.write_bytes(b"")
    assert listing(tmp_path) == []


def test_an_existing_output_is_refused_unless_forced(tmp_path):
    refuse_existing(tmp_path / "a", force=False)
    (tmp_path / "a").write_bytes(b"")
    refuse_existing(tmp_path / "a", force=True)
    with pytest.raises(UsageError, match="exists already") as caught:
        refuse_existing(tmp_path / "a", force=False)
    assert "--force" in (caught.value.hint or "")


def test_sha256_of_more_than_one_chunk(tmp_path):
    data = bytes(range(256)) * 5000
    (tmp_path / "a").write_bytes(data)
    assert sha256_of(tmp_path / "a") == hashlib.sha256(data).hexdigest()
