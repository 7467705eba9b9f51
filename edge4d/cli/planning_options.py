"""Options of the verbs that choose formulations: `export` and `plan`."""

from __future__ import annotations

from typing import Annotated

import typer

__all__ = [
    "For",
    "Formulations",
    "MaxWeightGrowth",
    "MaxActivationMemory",
    "Autotune",
    "AutotuneBudget",
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
