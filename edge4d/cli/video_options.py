"""Options of the verbs that read clips: `tune` and `eval`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

__all__ = ["FrameStep", "Mean", "ShortSide", "Split", "Std", "Workers", "video_options"]

Split = Annotated[
    Path | None,
    typer.Option("--split", metavar="FILE", help="A split file of UCF-101: which of the folder's videos to use."),
]

FrameStep = Annotated[
    int, typer.Option("--frame-step", min=1, help="Video frames from one frame of the clip to the next.")
]

ShortSide = Annotated[
    int | None,
    typer.Option("--short-side", min=1, help="Pixels of a video's shorter side before the crop; 8/7 of the clip's."),
]

Mean = Annotated[
    str | None, typer.Option("--mean", metavar="0.45[,…]", help="Mean of each channel, of pixels in 0..1; 0.45.")
]

Std = Annotated[
    str | None, typer.Option("--std", metavar="0.225[,…]", help="Deviation of each channel, of pixels in 0..1; 0.225.")
]

Workers = Annotated[int, typer.Option("--workers", min=0, help="Processes that read clips; 0 reads in this one.")]


def video_options(frame_step: int, short_side: int | None, mean: str | None, std: str | None) -> dict[str, Any]:
    """Fields of `edge4d.data.ClipSpec`.

    Raises:
        UsageError: a mean or deviation that is no list of numbers.
    """
    found: dict[str, Any] = {"step": frame_step, "short_side": short_side}
    for name, text in (("mean", mean), ("std", std)):
        if text is not None:
            found[name] = _numbers(text, f"--{name}", positive=name == "std")
    return found


def _numbers(text: str, option: str, positive: bool) -> tuple[float, ...]:
    from edge4d.errors import UsageError

    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError:
        values = ()
    if not values or any(not value > 0 for value in values if positive):
        raise UsageError(
            f"{option} {text!r}: expected {'numbers above 0' if positive else 'numbers'} joined by commas",
            hint=f"for example {option} 0.45,0.45,0.45",
        )
    return values
