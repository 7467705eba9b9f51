"""Which videos belong to a data set: a folder of classes, UCF-101's split files, a Kinetics list."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path

from edge4d.data.videos import VideoFile
from edge4d.errors import UsageError
from edge4d.frames import VIDEOS

__all__ = ["Listing", "list_folder", "list_table"]

Listing = tuple[list[VideoFile], tuple[str, ...] | None, list[tuple[str, str]]]
"""Videos, names of the classes (None without labels), and (name, reason) of what is listed but not there."""

_OFFICIAL = ("label", "youtube_id", "time_start", "time_end")


def list_folder(folder: Path, split: Path | None = None) -> Listing:
    """``folder/CLASS/video.avi``, or videos directly in the folder, which have no labels then.

    Args:
        folder: of the data set.
        split: a UCF-101 split file (``CLASS/video.avi`` a line, perhaps with a number behind it): only these videos.

    Raises:
        UsageError: no video is found, or the split file names a class that is no folder.
    """
    found = sorted(p for p in folder.rglob("*") if p.suffix.lower() in VIDEOS and p.is_file())
    if not found:
        raise UsageError(
            f"--data {folder}: no video in this folder",
            hint=f"looked for {' '.join(sorted(VIDEOS))}, in its subfolders too",
        )
    nested = [p for p in found if p.parent != folder]
    if nested and len(nested) < len(found):
        raise UsageError(
            f"--data {folder}: {len(found) - len(nested)} videos lie beside the folders of classes",
            hint="each subfolder is a class; move these into one, or list the videos in a .csv",
        )
    if not nested:
        if split is not None:
            raise UsageError(f"--split {split}: {folder} has no folders of classes that the list could name")
        return [VideoFile(p, p.name) for p in found], None, []
    classes = tuple(sorted({p.relative_to(folder).parts[0] for p in found}))
    number = {name: i for i, name in enumerate(classes)}
    files = [VideoFile(p, p.relative_to(folder).as_posix(), number[p.relative_to(folder).parts[0]]) for p in found]
    return (files, classes, []) if split is None else _kept(files, classes, split)


def _kept(files: list[VideoFile], classes: tuple[str, ...], split: Path) -> Listing:
    wanted = [line.split()[0] for line in _lines(split, "--split") if line.strip()]
    by_name = {file.name: file for file in files}
    kept = [by_name[name] for name in wanted if name in by_name]
    missing = [(name, f"listed in {split.name}, not there") for name in wanted if name not in by_name]
    if not kept:
        raise UsageError(
            f"--split {split}: none of its {len(wanted)} videos is there",
            hint=f"a line names a video within the folder, as {files[0].name}",
        )
    return kept, classes, missing


def list_table(path: Path) -> Listing:
    """A list of videos: Kinetics' own CSV, or a path and a label a line, apart by comma, space or tab.

    Paths are relative to the list's folder. Kinetics' CSV (columns ``label,youtube_id,time_start,time_end``) means
    ``ID_START_END.mp4`` with six digits, or ``ID.mp4``, in that folder or in a subfolder named after the label.

    Raises:
        UsageError: no line, a line without a label, or no video of the list is there.
    """
    rows = [row for row in _rows(path) if row]
    if not rows:
        raise UsageError(f"--data {path}: an empty list", hint="a line is a video's path and its label")
    if [cell.strip() for cell in rows[0]][: len(_OFFICIAL)] == list(_OFFICIAL):
        named = [(_kinetics_file(path.parent, row), row[0].strip()) for row in rows[1:]]
    else:
        short = [row for row in rows if len(row) != 2]
        if short:
            raise UsageError(
                f"--data {path}: {len(short)} of {len(rows)} lines are not a path and a label, the first: {short[0]}",
                hint="for example: videos/clip_001.mp4 3",
            )
        named = [(path.parent / row[0].strip(), row[1].strip()) for row in rows]
    labels = [label for _, label in named]
    numeric = all(label.isdecimal() for label in labels)
    classes = tuple(map(str, range(max(map(int, labels)) + 1))) if numeric else tuple(sorted(set(labels)))
    number = {name: i for i, name in enumerate(classes)}
    files, missing = [], []
    for file, label in named:
        if file.is_file():
            files.append(VideoFile(file, file.name, int(label) if numeric else number[label]))
        else:
            missing.append((file.name, f"listed in {path.name}, not there"))
    if not files:
        raise UsageError(
            f"--data {path}: none of its {len(named)} videos is there, the first: {named[0][0].name}",
            hint="paths are relative to the list's own folder",
        )
    return files, classes, missing


def _kinetics_file(folder: Path, row: list[str]) -> Path:
    label, name, start, end = (cell.strip() for cell in row[:4])
    stems = [f"{name}_{int(float(start)):06d}_{int(float(end)):06d}", name]
    places = [place / f"{stem}.mp4" for place in (folder / label, folder) for stem in stems]
    return next((p for p in places if p.is_file()), places[0])


def _rows(path: Path) -> Iterable[list[str]]:
    lines = list(_lines(path, "--data"))
    head = lines[0] if lines else ""
    if "," in head:
        return csv.reader(lines)
    return (line.rsplit(None, 1) for line in lines)


def _lines(path: Path, option: str) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{option} {path}: cannot be read: {error}") from error
