"""Options of the verbs that choose formulations: `export` and `plan`."""

from __future__ import annotations

import re
from typing import Annotated

import typer

__all__ = [
    "For",
    "Formulations",
    "MaxWeightGrowth",
    "MaxActivationMemory",
    "Autotune",
    "AutotuneBudget",
    "parse_seconds",
    "parse_bytes",
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
