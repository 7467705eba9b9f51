"""``python -m benchmarks.run``: time every candidate of every case in turns, and record what was measured.

Products of matrices and a large sum take their turns, too: the machine's own rates, then and there, from which
`benchmarks.roofline` says in each row the least time that the network could take.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import roofline
from benchmarks.cases import Case, load_cases, select
from benchmarks.compare import render
from benchmarks.measuring import stamp_of
from benchmarks.recording import Row, asked_of, parser_of, place_of, recorded, with_exit_code

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Returns 0 when every candidate of every case is recorded, 1 when one is not, 2 for wrong usage."""
    parser = parser_of("python -m benchmarks.run", __doc__, rounds=20, warmup=3, record="")
    parser.add_argument("--cases", nargs="+", metavar="NAME", help="only these of cases.toml")
    options = parser.parse_args(argv)
    return with_exit_code(lambda: _run(options))


def _run(options: argparse.Namespace) -> int:
    cases = select(load_cases(), options.cases)
    if options.clock == "processor":
        cases = tuple(replace(case, threads=1) for case in cases)
    return recorded(_measured(cases, options), place_of(options, ""), render)


def _measured(cases: Sequence[Case], options: argparse.Namespace) -> Iterator[tuple[list[Row], list[str]]]:
    stamp = stamp_of(options.date)
    with tempfile.TemporaryDirectory(prefix="edge4d-bench-") as kept:
        peaks = roofline.write_peaks(Path(kept), options.runtime)
        for case in cases:
            with tempfile.TemporaryDirectory(prefix="edge4d-bench-") as folder:
                yield roofline.measure(case, peaks, Path(folder), stamp=stamp, eager=True, **asked_of(options))


if __name__ == "__main__":
    sys.exit(main())
