"""`edge4d blocks`: the structures, and the paper's Table II."""

from pathlib import Path
from typing import Annotated

import typer

from edge4d.cli.options import Force, Json, Threads, complete_structure
from edge4d.cli.output import emit_json, emit_text, note, stage


def _complete_model(incomplete: str) -> list[str]:
    from edge4d.models import names

    return [name for name in names() if name.startswith(incomplete)]


def command(
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            metavar="NAME",
            help="A network to compare them in: eco-lite.",
            autocompletion=_complete_model,
        ),
    ] = None,
    block: Annotated[
        list[str] | None,
        typer.Option(
            "--block", metavar="NAME", help="Only this structure; repeatable.", autocompletion=complete_structure
        ),
    ] = None,
    frames: Annotated[int | None, typer.Option("--frames", help="T of the clip; 16 in the paper.")] = None,
    rounds: Annotated[int, typer.Option("--rounds", min=0, help="Turns of each network; 0 measures no speed.")] = 5,
    threads: Threads = None,
    plot: Annotated[
        Path | None, typer.Option("--plot", metavar="FILE", help="Draw compression against speed (.png, .svg, .pdf).")
    ] = None,
    force: Force = False,
    as_json: Json = False,
) -> int:
    """List the structures that can stand in for a Conv3d, or compare them in a network.

    With --model eco-lite this is the paper's Table II: parameters, multiply-accumulates and frames per second in ONNX
    Runtime, the paper's figures beside them. The exit code is 1 if an exported network fails the gate or parity.

    Examples:
        edge4d blocks
        edge4d blocks --model eco-lite --plot figure4.png
        edge4d blocks --model eco-lite --rounds 0 --json
        edge4d blocks --model eco-lite-small --block conv3d --block proposed-add
    """
    from edge4d.errors import UsageError

    if model is None:
        if plot is not None or block or frames is not None:
            raise UsageError("--plot, --block and --frames belong to a comparison", hint="add --model eco-lite")
        _list(as_json)
        return 0
    from edge4d.comparison import compare_structures
    from edge4d.files import refuse_existing
    from edge4d.plotting import check_plot
    from edge4d.plotting import plot as draw

    if plot is not None:
        refuse_existing(plot, force)
        check_plot(plot)
        if block and "conv3d" not in block:
            raise UsageError("--plot compares with Conv3D, which is left out", hint="add --block conv3d")
    found = compare_structures(
        model, structures=block or (), frames=frames, rounds=rounds, threads=threads, stage=stage
    )
    if as_json:
        emit_json(found.to_dict())
    else:
        emit_text(found.to_text())
    if plot is not None:
        note(f"plot: {draw(found, plot)}")
    return 0 if found.ok else 1


def _list(as_json: bool) -> None:
    from edge4d import blocks, models
    from edge4d.tables import table

    kinds = [blocks.get(name) for name in blocks.names()]
    networks = [models.get(name) for name in models.names()]
    if as_json:
        emit_json(
            {
                "blocks": [{"name": kind.name, "title": kind.title, "summary": kind.summary} for kind in kinds],
                "models": [{"name": kind.name, "summary": kind.summary} for kind in networks],
            }
        )
        return
    structures = table(["block", "what it is"], [[kind.name, kind.summary] for kind in kinds])
    emit_text(structures + "\n\n" + table(["--model", "what it is"], [[kind.name, kind.summary] for kind in networks]))
