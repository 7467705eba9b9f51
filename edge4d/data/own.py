"""A user's own data set, named as ``package.module:name``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from edge4d.data.source import ClipSpec, ClipUnreadable, Source, View
from edge4d.errors import UsageError

__all__ = ["OwnClips"]


class OwnClips(Source):
    """A map-style ``Dataset`` whose items are a clip (C, T, H, W), or a pair of clip and label.

    Its attribute ``classes``, if it has one, names the classes. What it draws at random is its own affair; its items
    are taken as they are.
    """

    fixed = True

    def __init__(self, dataset: Any, spec: ClipSpec, title: str) -> None:
        if not hasattr(dataset, "__getitem__") or not hasattr(dataset, "__len__"):
            raise UsageError(
                f"--data {title}: is a {type(dataset).__name__}, expected a Dataset with len() and items by number",
                hint="a list of (clip, label) will do",
            )
        if not len(dataset):
            raise UsageError(f"--data {title}: holds no clip")
        self.dataset, self.spec, self.title = dataset, spec, title
        clip, label = self._item(0)
        self._check(clip)
        named = getattr(dataset, "classes", None)
        if label is not None:
            labels = [self._item(i)[1] for i in range(len(dataset))] if named is None else []
            self.classes = (
                tuple(map(str, named))
                if isinstance(named, Sequence)
                else tuple(map(str, range(1 + max(int(v) for v in labels if v is not None))))
            )

    @classmethod
    def of(cls, name: str, spec: ClipSpec) -> OwnClips:
        """Import ``package.module:name``; what can be called (a class, a function) is called without arguments.

        Raises:
            UsageError: not importable, raising, or not a data set of such clips.
        """
        from edge4d.loading.factory import find
        from edge4d.loading.pickles import cwd_importable

        with cwd_importable():
            dataset = find(name, option="--data")
            if (callable(dataset) and not hasattr(dataset, "__getitem__")) or isinstance(dataset, type):
                try:
                    dataset = dataset()
                except Exception as error:
                    raise UsageError(
                        f"--data {name}: calling it without arguments raised {type(error).__name__}: {error}"
                    ) from error
        return cls(dataset, spec, name)

    def __len__(self) -> int:
        return len(self.dataset)

    def name(self, index: int) -> str:
        return f"{self.title}[{index}]"

    def label(self, index: int) -> int | None:
        return self._item(index)[1]

    def read(self, index: int, view: View) -> Tensor:
        clip, _ = self._item(index)
        self._check(clip)
        if not bool(torch.isfinite(clip).all()):
            raise ClipUnreadable("holds values that are NaN or infinite")
        return clip

    def _item(self, index: int) -> tuple[Tensor, int | None]:
        try:
            item = self.dataset[index]
        except Exception as error:
            raise ClipUnreadable(f"the Dataset raised {type(error).__name__}: {error}") from error
        clip, label = item if isinstance(item, tuple | list) else (item, None)
        return torch.as_tensor(clip).float(), None if label is None else int(label)

    def _check(self, clip: Tensor) -> None:
        if tuple(clip.shape) != self.spec.shape:
            raise UsageError(
                f"--data {self.title}: its clips are {'x'.join(map(str, clip.shape))}, the network takes "
                f"{'x'.join(map(str, self.spec.shape))} (C T H W)"
            )
