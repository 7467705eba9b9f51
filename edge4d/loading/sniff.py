"""Recognises a model file by its content; the name says nothing. Needs no torch."""

from __future__ import annotations

import json
import re
import zipfile
from enum import Enum
from typing import TYPE_CHECKING

from edge4d.errors import LoadError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Format", "sniff"]

_HEAD = 4096
_SAVE_HINT = (
    "save the model with torch.export.save(torch.export.export(model, (clip,)), 'model.pt2') and give that file"
)

# What people hand over by mistake: how the file begins, and what it is.
_STRANGERS: tuple[tuple[bytes, str], ...] = (
    (b"\x89PNG\r\n\x1a\n", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"GIF8", "a GIF image"),
    (b"RIFF", "a RIFF file (WebP, AVI or WAV)"),
    (b"%PDF", "a PDF document"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"BZh", "a bzip2 archive"),
    (b"\xfd7zXZ\x00", "an xz archive"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"\x7fELF", "a program or shared library"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file (Keras weights, perhaps)"),
)


class Format(Enum):
    """The containers that edge4d reads."""

    PROGRAM = "a torch.export archive"
    TORCHSCRIPT = "a TorchScript archive"
    PICKLE = "a file of torch.save"
    SAFETENSORS = "a safetensors file"
    ONNX = "an ONNX file"


def sniff(path: Path) -> Format:
    """Say what `path` holds.

    Raises:
        LoadError: no such file, not a file, empty, damaged, or something that edge4d does not read (says what it is).
    """
    _check_is_file(path)
    try:
        with path.open("rb") as stream:
            head = stream.read(_HEAD)
    except OSError as error:
        raise LoadError(
            f"{path}: cannot be read: {error.strerror or error}", hint="check the file's permissions"
        ) from None
    if not head:
        raise LoadError(f"{path}: the file is empty", hint="save or download the model again; 0 bytes were written")
    if head.startswith(b"PK\x03\x04"):
        return _sniff_zip(path)
    if head.startswith(b"\x80") and head[1:2] in b"\x02\x03\x04\x05" and len(head) > 2:
        return Format.PICKLE
    if _is_safetensors(head):
        return Format.SAFETENSORS
    if head[4:8] not in (b"TFL3", b"ORTM") and _is_onnx(head):
        return Format.ONNX
    raise _stranger(path, head)


def _check_is_file(path: Path) -> None:
    if path.is_dir():
        if (path / "saved_model.pb").exists():
            raise LoadError(f"{path}: a TensorFlow SavedModel, not a PyTorch model", hint=_SAVE_HINT)
        inside = sorted(p.name for p in path.iterdir() if p.suffix in {".pt", ".pth", ".pt2", ".bin", ".safetensors"})
        hint = (
            f"give one file: {', '.join(str(path / n) for n in inside[:3])}" if inside else "give the model file itself"
        )
        raise LoadError(f"{path}: is a directory, expected a model file", hint=hint)
    if not path.exists():
        raise LoadError(f"{path}: no such file", hint=_nearby(path))
    if not path.is_file():
        raise LoadError(f"{path}: not a regular file", hint="give the path of a model file on disk")


def _nearby(path: Path) -> str:
    import difflib

    if re.match(r"(torchvision|pytorchvideo|timm):\w", str(path)):
        return f"MODEL is a file; with a file of weights: edge4d export weights.pth --factory {path}"
    folder = path.parent
    if not folder.is_dir():
        return f"the folder {folder} does not exist either; check the path"
    near = difflib.get_close_matches(path.name, [p.name for p in folder.iterdir()], n=1)
    return f"did you mean {folder / near[0]}?" if near else f"check the name; the folder {folder} exists"


def _sniff_zip(path: Path) -> Format:
    try:
        with path.open("rb") as stream:
            # PyTorch's archives end with this record. In a file cut off, zipfile may find that of an inner archive.
            stream.seek(-min(22, path.stat().st_size), 2)
            if stream.read(4) != b"PK\x05\x06":
                raise zipfile.BadZipFile("its last record is not at its end")
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, EOFError, OSError, ValueError, NotImplementedError) as error:
        raise LoadError(
            f"{path}: a zip archive without a readable table of contents ({error}): cut off or damaged",
            hint="copy or download it again and compare the sizes",
        ) from None
    names = [member.filename for member in members]
    _check_members(path, members)
    inner = {name.partition("/")[2] for name in names}
    if "archive_format" in inner:
        return Format.PROGRAM
    if "serialized_exported_program.json" in names:
        raise LoadError(
            f"{path}: a torch.export archive of PyTorch 2.7 or older, whose layout is no longer read",
            hint="load it with the PyTorch that wrote it, export the model again with PyTorch 2.13 and save that",
        )
    if "constants.pkl" in inner and any(name.startswith("code/") for name in inner):
        return Format.TORCHSCRIPT
    if "data.pkl" in inner:
        return Format.PICKLE
    raise LoadError(f"{path}: a zip archive, but not of PyTorch: it holds {_listing(path, names)}", hint=_SAVE_HINT)


def _check_members(path: Path, members: list[zipfile.ZipInfo]) -> None:
    """Nothing is ever unpacked to disk; such an archive is still not one that PyTorch wrote."""
    for name in (member.orig_filename for member in members):
        if name.startswith(("/", "\\")) or ".." in name.replace("\\", "/").split("/") or name[1:2] == ":":
            raise LoadError(
                f"{path}: the archive has a member named {name!r}, which points outside it",
                hint="PyTorch never writes such a name; do not trust this file",
            )
    if len({member.orig_filename for member in members}) != len(members):
        raise LoadError(
            f"{path}: the archive has two members of one name, so that two readers may see two models",
            hint="PyTorch never writes such an archive; do not trust this file",
        )
    expanded, size = sum(member.file_size for member in members), path.stat().st_size
    if expanded > 100 * size + (64 << 20):
        raise LoadError(
            f"{path}: {size:,} bytes that would expand to {expanded:,}; refused as a decompression bomb",
            hint="PyTorch stores its archives uncompressed; save the model again",
        )


def _listing(path: Path, names: list[str]) -> str:
    known = {"[Content_Types].xml": " (an Office document)", "META-INF/MANIFEST.MF": " (a Java archive)"}
    what = next((text for name, text in known.items() if name in names), "")
    if {"config.json", "metadata.json"} <= set(names):
        what = " (a Keras model)"
    elif names and all(name.endswith(".npy") for name in names):
        what = " (NumPy arrays)"
    shown = ", ".join(names[:4]) or "nothing"
    return f"{shown}{', …' if len(names) > 4 else ''}{what}"


def _is_safetensors(head: bytes) -> bool:
    """Eight bytes of header length (little endian), then a JSON object."""
    length = int.from_bytes(head[:8], "little")
    return 2 <= length <= 100_000_000 and head[8:9] == b"{" and head[9:10] in b'"} '


def _stranger(path: Path, head: bytes) -> LoadError:
    for magic, what in _STRANGERS:
        if head.startswith(magic):
            return LoadError(f"{path}: {what}, not a PyTorch model", hint=_SAVE_HINT)
    if head[4:8] == b"TFL3":
        return LoadError(f"{path}: a TFLite model, not a PyTorch model", hint="give the PyTorch model it was made from")
    if head[4:8] == b"ORTM":
        return LoadError(f"{path}: a model in ORT format", hint="give the ONNX file that it was made from")
    if (text := _text(head)) is not None:
        return _text_error(path, text)
    if head[257:262] == b"ustar":
        return LoadError(
            f"{path}: a tar archive (torch.save of PyTorch 0.1, or something else)",
            hint="unpack it, or save the model again",
        )
    if head[:1] == b"\x0a" and b"serve" in head:
        return LoadError(f"{path}: a TensorFlow SavedModel, not a PyTorch model", hint=_SAVE_HINT)
    return LoadError(
        f"{path}: not a model file that edge4d knows; it begins with the bytes {head[:8].hex(' ')}", hint=_SAVE_HINT
    )


def _is_onnx(head: bytes) -> bool:
    """A ModelProto begins with field 1 (ir_version, a small number), then one of the fields that follow it."""
    return (
        len(head) > 3
        and head[0] == 0x08
        and 0 < head[1] < 0x20
        and head[2] in (0x12, 0x1A, 0x22, 0x28, 0x32, 0x3A, 0x42)
    )


def _text(head: bytes) -> str | None:
    if b"\x00" in head:
        return None
    try:
        # The last bytes may be half of a character: the head is cut anywhere.
        text = head.decode("utf-8", "strict") if len(head) < _HEAD else head[:-4].decode("utf-8", "ignore")
    except UnicodeDecodeError:
        return None
    return text if sum(c.isprintable() or c in "\t\r\n\f" for c in text) > 0.98 * len(text) else None


def _text_error(path: Path, text: str) -> LoadError:
    if text.startswith("version https://git-lfs"):
        return LoadError(
            f"{path}: a Git LFS pointer, the model itself was not fetched", hint="run git lfs pull in the repository"
        )
    if text.lstrip().lower().startswith(("<!doctype", "<html")):
        return LoadError(
            f"{path}: a web page; the download gave an error or a login page instead of the model",
            hint="download it again and look at what the address returns",
        )
    first = next((line.strip() for line in text.splitlines() if line.strip()), "")
    return LoadError(f"{path}: a text file, not a model; it begins {json.dumps(first[:60])}", hint=_SAVE_HINT)
