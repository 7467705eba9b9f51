"""The clips of an export: read once, for the fit of a block, the ranges of int8 and the check of its numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge4d.clips import ClipSet, Pixels, load_clips, load_inputs
from edge4d.errors import UsageError
from edge4d.intake import Intake
from edge4d.intake_options import Asked

if TYPE_CHECKING:
    import numpy as np

    from edge4d.blocks.choice import Choice
    from edge4d.exporters.precision import Precision
    from edge4d.ports import Port
    from edge4d.subject import Subject

__all__ = ["LEAST", "Samples", "check_clips"]

LEAST = 8
"""Clips below which a range of int8 is chance; a few dozen that show what comes in use are better."""


@dataclass
class Samples:
    """Clips for one model.

    Attributes:
        source: what the user gave: see `edge4d.clips.load_clips`; for several inputs an ``.npz`` or a mapping by name.
        pixels: how pictures and videos are scaled.
        clips: of a network that takes one clip tensor; None for any other, whose arrays are read by name later.
        intake: how the graph takes that tensor; None for as the network does.
    """

    source: Any
    pixels: Pixels = field(default_factory=Pixels)
    clips: ClipSet | None = None
    intake: Intake | None = None

    @classmethod
    def of(cls, source: Any, subject: Subject, pixels: Pixels, asked: Asked | None = None) -> Samples:
        """Read what a network with a single clip for its input is calibrated on.

        Raises:
            UsageError: see `edge4d.clips.load_clips`.
            RuntimeUnavailable: likewise.
        """
        shapes = subject.shapes
        single = len(shapes) == 1 and len(shapes[0]) == 5 and not isinstance(source, Mapping)
        if not single:
            return cls(source, pixels)
        (intake,) = asked.resolve([None], shapes, [True]) if asked is not None else (None,)
        return cls(source, pixels, load_clips(source, shapes[0], pixels, intake), intake)

    @property
    def for_blocks(self) -> Any:
        """What `edge4d.swap` fits blocks on."""
        if self.clips is None:
            return self.source
        if self.intake is None:
            return self.clips.clips
        return self.intake.applied(self.clips.clips).astype("float32")

    @property
    def file(self) -> Path | None:
        """The file that a recipe names and hashes; None for arrays and folders."""
        path = Path(self.source) if isinstance(self.source, str | Path) else None
        return path if path is not None and path.is_file() else None

    def to_dict(self) -> dict[str, Any]:
        """What a recipe keeps: the name the clips were given by, how many, and the SHA-256 of their numbers."""
        if self.clips is None:
            return {}
        import hashlib

        import numpy as np

        clips = np.ascontiguousarray(self.clips.clips)
        name = Path(self.source).name if isinstance(self.source, str | Path) else None
        return {"calib": {"source": name, "clips": len(clips), "sha256": hashlib.sha256(clips.tobytes()).hexdigest()}}

    def batches(self, ports: Sequence[Port]) -> list[dict[str, np.ndarray]]:
        """Logical arrays by input name, one mapping for each run of the network; clips that fill no batch are left out.

        Args:
            ports: the inputs, in order.

        Raises:
            UsageError: not one stack of arrays for each input, another shape, NaN, or fewer than `LEAST` clips.
        """
        import numpy as np

        stacks = self._stacks(ports)
        runs: set[int] = set()
        for port in ports:
            array = stacks[port.name]
            if array.ndim != len(port.shape) or array.shape[1:] != port.shape[1:]:
                raise UsageError(
                    f"calib: {port.name!r} holds arrays of shape {array.shape}, but the network takes {port.shape}",
                    hint="clips one behind the other along the first axis",
                )
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                raise UsageError(f"calib: {port.name!r} holds values that are NaN or infinite")
            runs.add(len(array) // port.shape[0])
        count = min(runs)
        least = max(LEAST, ports[0].shape[0])
        if count * ports[0].shape[0] < least:
            raise UsageError(
                f"int8 was given {min(len(stack) for stack in stacks.values())} calibration clips, it needs {least}",
                hint="a few dozen that show all that comes in use: ranges are drawn from them",
            )
        return [
            {p.name: _typed(stacks[p.name][i * p.shape[0] : (i + 1) * p.shape[0]], p) for p in ports}
            for i in range(count)
        ]

    def _stacks(self, ports: Sequence[Port]) -> dict[str, np.ndarray]:
        import numpy as np

        names = [port.name for port in ports]
        if self.clips is not None:
            return {names[0]: self.clips.clips}
        if isinstance(self.source, Mapping):
            if set(self.source) != set(names):
                raise UsageError(f"calib: holds {', '.join(self.source)}; the model's inputs are {', '.join(names)}")
            return {name: np.asarray(self.source[name]) for name in names}
        if isinstance(self.source, str | Path):
            return load_inputs(Path(self.source), names, "--calib")
        raise UsageError(
            f"calib: the network takes {len(names)} inputs: {', '.join(names)}", hint="a mapping, or an .npz, by name"
        )


def _typed(array: np.ndarray, port: Port) -> np.ndarray:
    """Floats in the width that the port takes."""
    return array.astype(port.dtype) if array.dtype.kind == "f" and port.dtype.startswith("float") else array


def check_clips(choice: Choice, types: Precision, calib: Any) -> None:
    """Clips and what needs them: both or none."""
    if types.name == "int8" and calib is None:
        raise UsageError(
            "int8 needs clips of what the network is given: they tell the range of every value",
            hint="--calib CLIPS.npz, or a folder of .npy files, of videos or of frames; --precision fp16 needs none",
        )
    if choice.exact and types.name != "int8" and calib is not None:
        raise UsageError(
            "calibration clips need a block to fit or ranges to draw",
            hint="e.g. --block proposed-add, or --precision int8",
        )
