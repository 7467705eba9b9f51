"""Clips that are arrays already: ``.npz`` and ``.npy`` files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from edge4d.data.source import ClipSpec, ClipUnreadable, Source, View
from edge4d.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["ArrayClips"]


class ArrayClips(Source):
    """Clips (N, C, T, H, W), used as they are: no resizing, no mirroring, no normalisation.

    Args:
        clips: memory-mapped where the file allows; integers are taken for pixels and brought to 0..1.
        labels: (N,) integers, or None.
        title: what to call them in messages.
        classes: names of the classes; ``0``, ``1``… when None.
    """

    fixed = True

    def __init__(
        self, clips: np.ndarray, labels: np.ndarray | None, title: str, classes: tuple[str, ...] | None = None
    ) -> None:
        self.clips, self.labels, self.title = clips, labels, title
        if labels is not None:
            self.classes = classes or tuple(str(i) for i in range(int(labels.max()) + 1))

    @classmethod
    def of(cls, path: Path, spec: ClipSpec) -> ArrayClips:
        """Read an ``.npz`` with ``clips`` and perhaps ``labels`` (and ``classes``), or an ``.npy`` of clips.

        Raises:
            UsageError: unreadable, other arrays, or clips that are not of the network's shape.
        """
        title = f"--data {path}"
        clips, labels, classes = _arrays(path, title)
        if clips.ndim != 5 or not len(clips) or tuple(clips.shape[1:]) != spec.shape:
            wanted = "x".join(map(str, spec.shape))
            raise UsageError(
                f"{title}: expected clips N x {wanted} (N C T H W), got {'x'.join(map(str, clips.shape))}",
                hint=f"the network takes clips of {wanted}; arrays are used as they are, videos are cut to size",
            )
        if clips.dtype.kind not in "fiub":
            raise UsageError(f"{title}: clips are of type {clips.dtype}, expected numbers")
        if labels is not None and (
            labels.shape != clips.shape[:1] or labels.dtype.kind not in "iu" or labels.min() < 0
        ):
            raise UsageError(
                f"{title}: labels are {labels.dtype} of shape {tuple(labels.shape)}, expected {len(clips)} integers"
                " from 0 on, one for each clip"
            )
        if classes is not None and labels is not None and labels.max() >= len(classes):
            raise UsageError(f"{title}: label {labels.max()}, but only {len(classes)} names of classes")
        return cls(clips, labels, path.name, classes)

    def __len__(self) -> int:
        return len(self.clips)

    def name(self, index: int) -> str:
        return f"{self.title}[{index}]"

    def label(self, index: int) -> int | None:
        return None if self.labels is None else int(self.labels[index])

    def read(self, index: int, view: View) -> Tensor:
        array = np.array(self.clips[index], np.float32)
        if self.clips.dtype.kind in "iu":
            array /= np.float32(np.iinfo(self.clips.dtype).max)
        if not np.isfinite(array).all():
            raise ClipUnreadable("holds values that are NaN or infinite")
        return torch.from_numpy(array)


def _arrays(path: Path, title: str) -> tuple[np.ndarray, np.ndarray | None, tuple[str, ...] | None]:
    try:
        if path.suffix == ".npy":
            return np.load(path, mmap_mode="r", allow_pickle=False), None, None
        with np.load(path, allow_pickle=False) as archive:
            names = list(archive.files)
            if "clips" not in names and len(names) != 1:
                raise UsageError(
                    f"{title}: holds {', '.join(names) or 'nothing'}, expected clips and labels",
                    hint="write it with np.savez(path, clips=clips, labels=labels)",
                )
            clips = np.asarray(archive["clips" if "clips" in names else names[0]])
            labels = np.asarray(archive["labels"]) if "labels" in names else None
            classes = tuple(map(str, archive["classes"])) if "classes" in names else None
            return clips, labels, classes
    except (OSError, ValueError, EOFError, TypeError, AttributeError) as error:
        raise UsageError(
            f"{title}: cannot be read: {error}", hint="write it with np.savez(path, clips=clips, labels=labels)"
        ) from error
