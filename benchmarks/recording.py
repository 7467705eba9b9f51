"""What commands have in common that time networks in turns: their options, where a record goes, and its writing."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.measuring import RESULTS, date_of, say
from edge4d.errors import Edge4dError, UsageError
from edge4d.files import atomic_write, refuse_existing, refuse_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

__all__ = ["Row", "asked_of", "parser_of", "place_of", "recorded", "with_exit_code"]

Row = dict[str, Any]


def parser_of(prog: str, description: str | None, *, rounds: int, warmup: int, record: str) -> argparse.ArgumentParser:
    """The options of every such command.

    Args:
        rounds, warmup: what is taken when nothing is asked for.
        record: what a record's name begins with.
    """
    parser = argparse.ArgumentParser(prog=prog, description=description)
    parser.add_argument("--runtime", default="onnxruntime", choices=("onnxruntime", "openvino"), help="(onnxruntime)")
    parser.add_argument("--rounds", type=int, default=rounds, metavar="N", help=f"turns of every candidate ({rounds})")
    parser.add_argument(
        "--warmup", type=int, default=warmup, metavar="N", help=f"calls of each before, not timed ({warmup})"
    )
    parser.add_argument(
        "--clock", default="wall", choices=("wall", "processor"), help="(wall); processor time is that of one thread"
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help=f"results/{record}DATE-[RUNTIME-]cpu-Ncore.jsonl (or -1thread) when not given",
    )
    parser.add_argument("--date", type=date_of, default=date_of(), metavar="YYYY-MM-DD", help="what rows state (today)")
    parser.add_argument("--force", action="store_true", help="replace an existing FILE")
    return parser


def asked_of(options: argparse.Namespace) -> dict[str, Any]:
    """What `benchmarks.measuring.measure_network` takes of the options."""
    return {name: getattr(options, name) for name in ("rounds", "warmup", "runtime", "clock")}


def place_of(options: argparse.Namespace, record: str) -> Path:
    """The file that a record goes to, before an hour of work.

    So a record is not lost to a mistyped name, nor a committed one replaced unasked.

    Raises:
        UsageError: no rounds, a file that is there, no folder.
        RuntimeUnavailable: the runtime is not installed.
    """
    from edge4d import exporters
    from edge4d.exporters.protocol import require
    from edge4d.validators.fps import machine

    if options.rounds < 1 or options.warmup < 0:
        raise UsageError(f"--rounds {options.rounds} --warmup {options.warmup}: at least one round is needed")
    place = "cpu" if options.runtime == "onnxruntime" else f"{options.runtime}-cpu"
    size = f"{machine()['cores']}core" if options.clock == "wall" else "1thread"
    out: Path = options.out or RESULTS / f"{record}{options.date}-{place}-{size}.jsonl"
    require(exporters.get(options.runtime))
    refuse_existing(out, options.force)
    refuse_folder(out)
    return out


def recorded(
    measured: Iterable[tuple[list[Row], list[str]]], out: Path, render: Callable[[Sequence[Row]], str] | None = None
) -> int:
    """Print rows as they come, then write them all.

    Args:
        measured: rows, and why a candidate has none; of one network after the other.
        out: the record; nothing is written without a row.
        render: makes a table of them, to be printed.

    Returns:
        The exit code: 0, or 1 with a candidate that has no row.
    """
    rows: list[Row] = []
    problems: list[str] = []
    for found, wrong in measured:
        rows += found
        problems += wrong
        for row in found:
            print(json.dumps(row), flush=True)
    if rows:
        atomic_write(out, "".join(json.dumps(row) + "\n" for row in rows).encode())
        if render is not None:
            print("\n" + render(rows))
        say(f"wrote {out}")
    for problem in problems:
        say(f"error: {problem}")
    return 1 if problems else 0


def with_exit_code(work: Callable[[], int]) -> int:
    """Say what went wrong in one line, and give its exit code."""
    try:
        return work()
    except Edge4dError as error:
        say(f"error: {error}")
        return error.exit_code
