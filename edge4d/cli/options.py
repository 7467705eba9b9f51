"""Options that several verbs share, each spelt once."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "Autotune",
    "AutotuneBudget",
    "Alignment",
    "Blocks",
    "Calib",
    "CalibMean",
    "CalibStd",
    "Calibration",
    "Energy",
    "Factory",
    "Fix",
    "For",
    "Force",
    "Formulations",
    "InputLayout",
    "InputShapes",
    "Json",
    "MaxActivationMemory",
    "KeepFp32",
    "MaxWeightGrowth",
    "Normalize",
    "Output",
    "OwnPrecision",
    "PrecisionName",
    "Providers",
    "Seed",
    "Submodule",
    "Threads",
    "TrustPickle",
    "block_options",
    "complete_structure",
    "parse_bytes",
    "parse_seconds",
    "parse_numbers",
    "parse_settings",
    "parse_shape_ranges",
    "parse_shapes",
]

Json = Annotated[bool, typer.Option("--json", help="Print the result as one JSON document on stdout.")]

Output = Annotated[
    Path | None, typer.Option("--output", "-o", metavar="FILE", help="Where to write; see above for the default.")
]

Force = Annotated[bool, typer.Option("--force", help="Replace an existing output.")]

InputShapes = Annotated[
    list[str] | None,
    typer.Option(
        "--input-shape", metavar="1x3x16x112x112", help="Shape of one input (N C T H W); once for each input, in order."
    ),
]

Factory = Annotated[
    str | None,
    typer.Option(
        "--factory",
        metavar="PACKAGE.MODULE:CALLABLE",
        help="What builds the model when the file holds a state_dict; also torchvision:NAME, pytorchvideo:NAME and "
        "timm:NAME. Arguments may follow: 'torchvision:r3d_18(num_classes=10)'. This imports and runs that code.",
    ),
]

TrustPickle = Annotated[
    bool, typer.Option("--trust-pickle", help="Load a pickled nn.Module, which runs code from the file.")
]

Submodule = Annotated[
    str | None,
    typer.Option(
        "--submodule",
        metavar="PATH",
        help="The part of the network that is wanted, e.g. model.visual, the vision tower of a language model.",
    ),
]

Fix = Annotated[
    list[str] | None,
    typer.Option(
        "--fix",
        metavar="NAME=VALUES",
        help="Bake an input into the graph, as JSON, e.g. 'grid_thw=[[1, 16, 24]]' which the code reads by value; "
        "repeatable. A list becomes a tensor.",
    ),
]

Seed = Annotated[int, typer.Option("--seed", help="Seed of the random inputs.")]

Threads = Annotated[
    int | None, typer.Option("--threads", min=1, help="CPU threads of each runtime; all that are allowed by default.")
]

Providers = Annotated[
    list[str] | None,
    typer.Option(
        "--provider",
        metavar="NAME",
        help="ONNX Runtime execution provider, e.g. CUDAExecutionProvider; CPUExecutionProvider by default.",
    ),
]


def complete_structure(incomplete: str) -> list[str]:
    """For the shell: the structures whose names begin so."""
    from edge4d.blocks import names

    return [name for name in names() if name.startswith(incomplete)]


def _complete_block(incomplete: str) -> list[str]:
    from edge4d.blocks import EXACT

    pattern, equals, name = incomplete.rpartition("=")
    fitting = [EXACT] if EXACT.startswith(name) else []
    return [pattern + equals + word for word in [*fitting, *complete_structure(name)]]


Blocks = Annotated[
    list[str] | None,
    typer.Option(
        "--block",
        metavar="NAME|PATTERN=NAME",
        help="What replaces a 3x3x3 Conv3d: exact (keeps every number, the default), proposed-add, proposed-cat, "
        "r2plus1d, p3d-a, p3d-b, p3d-c, rank-1; repeat with 'layer4.*=NAME' for some layers.",
        autocompletion=_complete_block,
    ),
]


def _complete_formulation(incomplete: str) -> list[str]:
    from edge4d.lowering.conv.rules import FORMULATIONS

    pattern, equals, name = incomplete.rpartition("=")
    return [pattern + equals + word for word in FORMULATIONS if word.startswith(name)]


def _complete_runtime(incomplete: str) -> list[str]:
    from edge4d.offers import RUNTIMES

    return [name for name in RUNTIMES if name.startswith(incomplete)]


For = Annotated[
    str | None,
    typer.Option(
        "--for",
        metavar="RUNTIME",
        help="Leave out formulations that this runtime handles badly: onnxruntime, openvino, tensorrt or rknn.",
        autocompletion=_complete_runtime,
    ),
]

Formulations = Annotated[
    list[str] | None,
    typer.Option(
        "--formulation",
        metavar="PATTERN=NAME",
        help="The exact formulation of some layers, e.g. 'layer4.*=taps', where it fits; repeatable.",
        autocompletion=_complete_formulation,
    ),
]

MaxWeightGrowth = Annotated[
    float | None,
    typer.Option("--max-weight-growth", metavar="X", help="The most times its own weights that a layer may get."),
]

MaxActivationMemory = Annotated[
    str | None,
    typer.Option(
        "--max-activation-memory",
        metavar="64MiB",
        help="The most memory that a formulation may need between a layer's input and its result.",
    ),
]

Autotune = Annotated[
    str | None,
    typer.Option(
        "--autotune",
        metavar="RUNTIME",
        help="Time the formulations of each kind of layer on this runtime, which must be here, instead of predicting "
        "them: onnxruntime or openvino. Times are kept under the user's cache folder.",
        autocompletion=_complete_runtime,
    ),
]

AutotuneBudget = Annotated[
    str, typer.Option("--autotune-budget", metavar="60s", help="How long timing may take; the rest is predicted.")
]

Energy = Annotated[
    float | None, typer.Option("--energy", help="r2plus1d: keep this share of each weight's squared norm, e.g. 0.99.")
]


def _complete_alignment(incomplete: str) -> list[str]:
    return [name for name in ("spatial", "paper") if name.startswith(incomplete)]


Alignment = Annotated[
    str | None,
    typer.Option(
        "--alignment",
        metavar="spatial|paper",
        help="proposed-add, proposed-cat: which pixels the temporal branch strides to; spatial, those of the spatial "
        "branch (the default), or every s²-th of the flattened frame as the paper prints it.",
        autocompletion=_complete_alignment,
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


def block_options(energy: float | None, alignment: str | None) -> dict[str, Any]:
    """The structures' options that were given."""
    given = {"energy": energy, "alignment": alignment}
    return {name: value for name, value in given.items() if value is not None}


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


Normalize = Annotated[
    list[str] | None,
    typer.Option(
        "--normalize",
        metavar="[NAME:]'mean=M,M,M std=S,S,S scale=255'",
        help="The graph takes uint8 frames and makes (frame / scale - mean) / std of them; M,S,SCALE in numbers when "
        "one is for all channels; NAME: for one of several inputs.",
    ),
]


def _complete_layout(incomplete: str) -> list[str]:
    return [name for name in ("nchw", "nhwc") if name.startswith(incomplete)]


InputLayout = Annotated[
    list[str] | None,
    typer.Option(
        "--input-layout",
        metavar="[NAME:]nhwc",
        help="The graph takes frames with their channels last (N T H W C), as cameras and decoders give them.",
        autocompletion=_complete_layout,
    ),
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


def parse_shapes(texts: Sequence[str] | None) -> tuple[tuple[int, ...], ...]:
    """``["1x3x16x112x112"]`` as ``((1, 3, 16, 112, 112),)``; empty when none was given.

    Raises:
        UsageError: a text that is not sizes joined by ``x``.
    """
    from edge4d.loading import parse_shape

    return tuple(parse_shape(text) for text in texts or ())


def parse_seconds(text: str) -> float:
    """``60s``, ``1.5m`` or ``60`` as seconds.

    Raises:
        UsageError: anything else.
    """
    return _quantity(text, {"": 1, "s": 1, "m": 60, "h": 3600}, "a time", "e.g. 60s or 2m")


def parse_bytes(text: str | None) -> int | None:
    """``64MiB``, ``2GiB`` or ``4096`` as bytes; None as it is.

    Raises:
        UsageError: anything else.
    """
    units = {"": 1, "B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "kB": 10**3, "MB": 10**6, "GB": 10**9}
    return None if text is None else int(_quantity(text, units, "an amount of memory", "e.g. 64MiB"))


def _quantity(text: str, units: dict[str, int], what: str, example: str) -> float:
    from edge4d.errors import UsageError

    match = re.fullmatch(r"(\d+(?:\.\d*)?)\s*([A-Za-z]*)", text.strip())
    if match is None or match[2] not in units:
        raise UsageError(f"{text!r} is not {what}", hint=example)
    return float(match[1]) * units[match[2]]


def parse_settings(texts: Sequence[str] | None) -> dict[str, str]:
    """``["NUM_STREAMS=2"]`` as a mapping.

    Raises:
        UsageError: a text without ``=``, or a name given twice.
    """
    from edge4d.errors import UsageError

    found: dict[str, str] = {}
    for text in texts or ():
        name, sign, value = text.partition("=")
        if not name or not sign:
            raise UsageError(f"--option {text!r}, expected NAME=VALUE")
        if name in found:
            raise UsageError(f"--option {name} was given twice")
        found[name] = value
    return found


def parse_shape_ranges(texts: Sequence[str] | None) -> dict[str, tuple[tuple[int, ...], ...]]:
    """``["clip=1x3x64x64:8x3x64x64:16x3x64x64"]`` as least, best and greatest shape by name.

    Raises:
        UsageError: no name, or not three shapes.
    """
    from edge4d.errors import UsageError

    found: dict[str, tuple[tuple[int, ...], ...]] = {}
    for text in texts or ():
        name, _, shapes = text.rpartition("=")
        parts = parse_shapes(shapes.split(":"))
        if not name or len(parts) != 3:
            raise UsageError(f"--shape-range {text!r}, expected NAME=MIN:BEST:MAX, three shapes of one input")
        found[name] = parts
    return found
