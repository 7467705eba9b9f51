"""What ``--data`` names, as a source of clips."""

from __future__ import annotations

from pathlib import Path

from edge4d.data.source import ClipSpec, Source
from edge4d.errors import UsageError

__all__ = ["open_source"]

_KINDS = (
    "a folder of videos by class, a .csv list, an .npz or .npy of clips, or package.module:name of your own Dataset"
)


def open_source(data: str | Path, spec: ClipSpec, split: Path | None = None) -> Source:
    """Open clips.

    Args:
        data: a folder with one subfolder of videos for each class (or of videos, without labels); a ``.csv`` or
            ``.txt`` list; ``.npz`` or ``.npy`` clips; ``package.module:name`` of a `Dataset`.
        spec: what the network takes.
        split: a split file of UCF-101, for a folder.

    Raises:
        UsageError: nothing of the kind is there, or it does not fit the network.
    """
    path = Path(data)
    if split is not None and not path.is_dir():
        raise UsageError(f"--split {split} chooses among a folder's videos, and {data} is none")
    if path.is_dir():
        from edge4d.data.listing import list_folder
        from edge4d.data.videos import VideoClips

        files, classes, missing = list_folder(path, split)
        return VideoClips(files, spec, classes, missing)
    if path.suffix in (".npz", ".npy"):
        from edge4d.data.arrays import ArrayClips

        if not path.is_file():
            raise UsageError(f"--data {data}: no such file")
        return ArrayClips.of(path, spec)
    if path.is_file():
        if path.suffix.lower() not in (".csv", ".txt", ".tsv"):
            raise UsageError(f"--data {data}: not something to read clips from", hint=f"expected {_KINDS}")
        from edge4d.data.listing import list_table
        from edge4d.data.videos import VideoClips

        files, classes, missing = list_table(path)
        return VideoClips(files, spec, classes, missing)
    if ":" in str(data) and not path.exists():
        from edge4d.data.own import OwnClips

        return OwnClips.of(str(data), spec)
    raise UsageError(f"--data {data}: no such file or folder", hint=f"expected {_KINDS}")
