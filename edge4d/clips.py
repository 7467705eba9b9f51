"""Clips to calibrate on, from wherever they lie: arrays, or pictures and videos as they were filmed.

One reader for all that needs clips (the fit of a block, int8 ranges, a parity check), so that the same folder means the
same numbers everywhere. Arrays are taken as the network takes them; pictures and videos become values from 0 to 1, and
then (value - mean) / std.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge4d.errors import UsageError
from edge4d.intake import PIXELS, Intake

if TYPE_CHECKING:
    import numpy as np

__all__ = ["ClipSet", "Pixels", "frames_for", "load_clips", "load_inputs"]

MOST = 512
"""Clips that are made of a folder of videos or frames; ranges settle long before."""

LARGEST = 2**34
"""Bytes that an archive of arrays may unpack to."""

_HINT = "an .npz or .npy of clips (N C T H W), or a folder of .npy files, of videos or of frames"


@dataclass(frozen=True)
class Pixels:
    """What a network was trained to be given instead of values from 0 to 1: (value - mean) / std, by channel.

    Attributes:
        mean, std: one number for all channels or one for each; empty for 0 and 1.
    """

    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if any(not number > 0 for number in self.std):
            raise UsageError(f"a deviation of {min(self.std)}, expected numbers above 0", hint="--calib-std 0.225")

    def normalise(self, clip: np.ndarray) -> np.ndarray:
        """Of one clip (C, T, H, W) with values from 0 to 1."""
        import numpy as np

        for name, numbers in (("mean", self.mean), ("std", self.std)):
            if len(numbers) not in (0, 1, len(clip)):
                raise UsageError(
                    f"{len(numbers)} numbers for the {name} of {len(clip)} channels", hint="give one, or one for each"
                )
        mean, std = (
            np.asarray(numbers or (default,), np.float32).reshape(-1, 1, 1, 1)
            for numbers, default in ((self.mean, 0.0), (self.std, 1.0))
        )
        result: np.ndarray = (clip - mean) / std
        return result

    def to_dict(self) -> dict[str, Any]:
        """What a recipe keeps."""
        return {"mean": list(self.mean), "std": list(self.std)}


@dataclass(frozen=True)
class ClipSet:
    """What was read.

    Attributes:
        clips: (N, C, T, H, W), floats without NaN or infinity.
        skipped: files that could not be read, each as ``name: reason``.
        left: files that were not looked at, since there were enough without them.
    """

    clips: np.ndarray
    skipped: tuple[str, ...] = ()
    left: int = 0

    @property
    def notes(self) -> list[str]:
        """What a user should know, one sentence each."""
        said = []
        if self.skipped:
            listed = "; ".join(self.skipped[:5]) + ("; …" if len(self.skipped) > 5 else "")
            said.append(f"{len(self.skipped)} calibration files were skipped: {listed}")
        if self.left:
            said.append(f"{len(self.clips)} calibration clips are enough: {self.left} further ones were not read")
        return said


def load_clips(
    source: Any, shape: Sequence[int] | None = None, pixels: Pixels | None = None, intake: Intake | None = None
) -> ClipSet:
    """Read clips.

    Args:
        source: an array or tensor; an ``.npz`` with one array or an ``.npy``, of clips (N C T H W); a folder of
            ``.npy`` files (each a clip or a batch), of videos (a clip each), of frames (consecutive ones, T a clip), or
            of folders of videos or frames.
        shape: (N, C, T, H, W) of what the network takes; the clips must have its C, T, H, W. Needed for pictures.
        pixels: how pictures and videos are scaled; arrays never are.
        intake: of a graph that takes frames otherwise than its model; clips are then such as the graph takes.

    Raises:
        UsageError: nothing readable there, another shape or type, or values that are not finite.
        RuntimeUnavailable: videos or frames, and PyAV or Pillow is not installed.
    """
    import numpy as np

    skipped: tuple[str, ...] = ()
    left = 0
    if isinstance(source, str | Path):
        name, path = f"--calib {source}", Path(source)
        if path.is_dir() and not any(path.glob("*.npy")):
            from edge4d.frames import clips_of

            clips, skipped, left = clips_of(path, name, shape, pixels or Pixels(), MOST)
            clips = clips if intake is None else frames_for(intake, clips)
        else:
            clips = _arrays(path, name)
    else:
        name, clips = "calib", np.asarray(source)
    if clips.dtype.kind == "c":
        raise UsageError(f"{name}: expected real numbers, got {clips.dtype}")
    if clips.dtype.kind not in "fiub":
        raise UsageError(f"{name}: expected an array of numbers, got {clips.dtype}", hint=_HINT)
    if clips.ndim != 5 or not clips.size:
        raise UsageError(f"{name}: expected clips (N, C, T, H, W), got shape {clips.shape}")
    axes = "(T H W C)" if intake is not None and intake.last else "(C T H W)"
    if shape is not None and intake is not None:
        shape = intake.shape(shape)
    if shape is not None and clips.shape[1:] != tuple(shape[1:]):
        raise UsageError(
            f"{name}: clips of {_x(clips.shape[1:])}, but the network takes {_x(tuple(shape[1:]))} {axes}",
            hint="calibrate on what it is given in use, at that size",
        )
    if intake is not None and intake.normalize is not None:
        if clips.dtype.name != PIXELS:
            raise UsageError(
                f"{name}: clips of {clips.dtype.name}, but the graph normalises by itself and takes {PIXELS} frames",
                hint="give the frames as they are before any normalisation",
            )
        return ClipSet(clips, skipped, left)
    clips = clips.astype(clips.dtype.newbyteorder("=") if clips.dtype.kind == "f" else np.float32, copy=False)
    bad = int((~np.isfinite(clips)).reshape(len(clips), -1).any(1).sum())
    if bad:
        raise UsageError(f"{name}: {bad} of {len(clips)} clips hold values that are NaN or infinite")
    return ClipSet(clips, skipped, left)


def frames_for(intake: Intake, clips: np.ndarray) -> np.ndarray:
    """Clips (N, C, T, H, W) as a graph takes them.

    Args:
        intake: of the graph.
        clips: pixels from 0 to 1 where it normalises, which every byte survives; else what the model takes.
    """
    import numpy as np

    if intake.normalize is not None:
        clips = np.rint(np.clip(clips, 0, 1) * 255).astype(PIXELS)
    return np.ascontiguousarray(intake.arranged(clips))


def load_inputs(path: Path, names: Sequence[str], option: str) -> dict[str, np.ndarray]:
    """The arrays of an ``.npz`` for a network's inputs: by their names when it has them, else in its own order.

    Args:
        path: the file.
        names: of the inputs.
        option: what the user wrote it behind, for messages.

    Raises:
        UsageError: it cannot be read, or does not hold one array for each input.
    """
    if not path.is_file():
        raise UsageError(f"{option} {path}: no such file")
    arrays = _archive(path, option)
    if set(names) <= set(arrays):
        return {name: arrays[name] for name in names}
    if len(arrays) != len(names):
        raise UsageError(
            f"{option} {path}: holds {', '.join(arrays) or 'nothing'}; the model's inputs are {', '.join(names)}",
            hint="name the arrays after the inputs: np.savez(path, x=clip)",
        )
    return dict(zip(names, arrays.values(), strict=True))


def _archive(path: Path, option: str) -> Mapping[str, np.ndarray]:
    import zipfile

    import numpy as np

    if not zipfile.is_zipfile(path):
        raise UsageError(f"{option} {path}: not an .npz", hint="write it with np.savez(path, x=clip)")
    try:
        with zipfile.ZipFile(path) as listing:
            size = sum(entry.file_size for entry in listing.infolist())
        if size > LARGEST:
            raise UsageError(f"{option} {path}: unpacks to {size} bytes, expected at most {LARGEST}")
        with np.load(path, allow_pickle=False) as archive:
            return {name: np.asarray(archive[name]) for name in archive.files}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise UsageError(
            f"{option} {path}: cannot be read as an .npz: {error}", hint="write it with np.savez(path, x=clip)"
        ) from error


def _arrays(path: Path, name: str) -> np.ndarray:
    """Clips from one file, or from the ``.npy`` files of a folder."""
    import numpy as np

    try:
        if path.is_dir():
            files = sorted(path.glob("*.npy"))
            loaded = [np.load(file, allow_pickle=False) for file in files]
            stacks = [array[None] if array.ndim == 4 else array for array in loaded]
            for file, stack in zip(files, stacks, strict=True):
                if stack.shape[1:] != stacks[0].shape[1:]:
                    sizes = _x(stacks[0].shape[1:]), _x(stack.shape[1:])
                    raise UsageError(f"{name}: {files[0].name} holds clips of {sizes[0]}, {file.name} of {sizes[1]}")
            return np.concatenate(stacks)
        if path.suffix.lower() == ".npy":
            return np.asarray(np.load(path, allow_pickle=False))
        if not path.is_file():
            raise UsageError(f"{name}: no such file or folder", hint=_HINT)
    except (OSError, ValueError, EOFError) as error:
        raise UsageError(f"{name}: cannot be read: {error}", hint=_HINT) from error
    arrays = _archive(path, "--calib")
    if len(arrays) != 1:
        raise UsageError(
            f"{name}: holds {', '.join(arrays) or 'nothing'}, expected one array of clips",
            hint="write it with np.savez(path, clips=clips)",
        )
    return next(iter(arrays.values()))


def _x(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))
