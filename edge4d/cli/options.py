"""Options that several verbs share, each spelt once: the model, its inputs, where results go."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "Alignment",
    "Blocks",
    "Energy",
    "Factory",
    "Fix",
    "Force",
    "InputLayout",
    "InputShapes",
    "Json",
    "Normalize",
    "Output",
    "Providers",
    "Seed",
    "Submodule",
    "Threads",
    "TrustPickle",
    "block_options",
    "complete_structure",
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


def block_options(energy: float | None, alignment: str | None) -> dict[str, Any]:
    """The structures' options that were given."""
    given = {"energy": energy, "alignment": alignment}
    return {name: value for name, value in given.items() if value is not None}


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


def parse_shapes(texts: Sequence[str] | None) -> tuple[tuple[int, ...], ...]:
    """``["1x3x16x112x112"]`` as ``((1, 3, 16, 112, 112),)``; empty when none was given.

    Raises:
        UsageError: a text that is not sizes joined by ``x``.
    """
    from edge4d.loading import parse_shape

    return tuple(parse_shape(text) for text in texts or ())
