"""Options of the precision, and of the clips that ranges are drawn from: `export` and `plan`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = [
    "PrecisionName",
    "OwnPrecision",
    "KeepFp32",
    "Calib",
    "Calibration",
    "CalibMean",
    "CalibStd",
    "parse_numbers",
]


def _complete_precision(incomplete: str) -> list[str]:
    from edge4d.exporters.precision import PRECISIONS

    return [name for name in PRECISIONS if name.startswith(incomplete)]


def _complete_method(incomplete: str) -> list[str]:
    from edge4d.exporters.precision import METHODS

    return [name for name in METHODS if name.startswith(incomplete)]


PrecisionName = Annotated[
    str,
    typer.Option(
        "--precision",
        metavar="fp32|fp16|int8",
        help="In which types the graph computes, on every runtime; int8 needs --calib.",
        autocompletion=_complete_precision,
    ),
]

OwnPrecision = Annotated[
    str | None,
    typer.Option(
        "--precision",
        metavar="fp32|fp16|int8",
        help="In which types the graph computes, on every runtime; the model's own when not given. int8 needs --calib.",
        autocompletion=_complete_precision,
    ),
]

KeepFp32 = Annotated[
    list[str] | None,
    typer.Option(
        "--keep-fp32",
        metavar="PATTERN",
        help="Layers ('head*') or ONNX operators (Softmax) that stay in float32; repeatable.",
    ),
]

Calib = Annotated[
    Path | None,
    typer.Option(
        "--calib",
        metavar="CLIPS.npz|FOLDER",
        help="Clips (N C T H W) that a block is fitted on and int8 ranges are drawn from: an .npz, or a folder of .npy "
        "files, of videos or of frames.",
    ),
]

Calibration = Annotated[
    str,
    typer.Option(
        "--calibration",
        metavar="minmax|entropy|percentile",
        help="How int8 ranges are drawn from the clips.",
        autocompletion=_complete_method,
    ),
]

CalibMean = Annotated[
    str | None,
    typer.Option(
        "--calib-mean",
        metavar="M[,M,M]",
        help="Taken from the pixels of videos and frames, which go from 0 to 1; one number, or one a channel.",
    ),
]

CalibStd = Annotated[
    str | None, typer.Option("--calib-std", metavar="S[,S,S]", help="What pixels are then divided by.")
]


def parse_numbers(option: str, text: str | None) -> tuple[float, ...]:
    """``"0.45,0.45,0.45"`` as numbers; empty when none was given.

    Raises:
        UsageError: a text that is not finite numbers joined by commas.
    """
    import math

    from edge4d.errors import UsageError

    try:
        numbers = tuple(float(part) for part in text.split(",")) if text is not None else ()
    except ValueError:
        numbers = (math.nan,)
    if not all(math.isfinite(number) for number in numbers):
        raise UsageError(f"{option} {text!r}, expected numbers joined by commas", hint=f"{option} 0.45,0.45,0.45")
    return numbers
