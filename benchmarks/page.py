"""``python -m benchmarks.page``: put the newest records into docs/performance.md, as tables and as plots beside it."""

from __future__ import annotations

import argparse
import io
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import ratios, roofline_page, scaling_page
from benchmarks.accuracy import tables
from benchmarks.compare import read_rows
from benchmarks.measuring import RESULTS, say
from edge4d.errors import Edge4dError, UsageError
from edge4d.files import atomic_write
from edge4d.plotting import check_plot

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["PAGE", "SECTIONS", "Section", "main", "newest", "text_of"]

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "performance.md"

Row = dict[str, Any]


@dataclass(frozen=True)
class Section:
    """One kind of record, and its place on the page.

    Attributes:
        name: of the markers on the page.
        records: what the name of such a record matches.
        command: makes one.
        read: gives its rows.
        render: gives the text of the page.
        plot: draws it.
        caption: of the plot, for those who cannot see it.
    """

    name: str
    records: str
    command: str
    read: Callable[[Path], list[Row]]
    render: Callable[[Sequence[Row]], str]
    plot: Callable[[Sequence[Row]], Figure]
    caption: str

    @property
    def picture(self) -> str:
        """Name of the plot's file, beside the page."""
        return f"{self.name.replace('-', '_')}.png"


def _bench(runtime: str) -> Section:
    told = "How many times as fast as native 5-D, network by network"
    return _section("bench", "", "run", runtime, read_rows, ratios, told)


def _scaling(runtime: str) -> Section:
    told = "Time and GFLOP/s against frames, channels, side and batch"
    return _section("scaling", "scaling-", "scaling", runtime, scaling_page.read, scaling_page, told)


def _roofline(runtime: str) -> Section:
    told = "Native 5-D and rank 4 as multiples of the least time of direct convolutions"
    return _section("roofline", "", "run", runtime, roofline_page.read, roofline_page, told)


def _section(
    name: str, record: str, command: str, runtime: str, read: Callable[[Path], list[Row]], shown: Any, caption: str
) -> Section:
    """`record` is what the names of records begin with, `shown` a module that has `render` and `plot`."""
    place, option = ("cpu", "") if runtime == "onnxruntime" else (f"{runtime}-cpu", f" --runtime {runtime}")
    return Section(
        name=f"{name}-{runtime}",
        records=rf"{record}\d{{4}}-\d\d-\d\d-{place}-\d+core\.jsonl",
        command=f"python -m benchmarks.{command}{option}",
        read=read,
        render=lambda rows: shown.render(rows, runtime),
        plot=lambda rows: shown.plot(rows, runtime),
        caption=f"{caption}, on {runtime}",
    )


SECTIONS = tuple(kind(runtime) for kind in (_bench, _scaling, _roofline) for runtime in ("onnxruntime", "openvino"))


def newest(section: Section, folder: Path = RESULTS) -> Path | None:
    """The record with the latest date in its name; None where there is none."""
    found = [path for path in folder.glob("*.jsonl") if re.fullmatch(section.records, path.name)]
    return max(found, key=lambda path: path.name, default=None)


def text_of(section: Section, record: Path | None, rows: Sequence[Row]) -> str:
    """What stands between the markers of a section, for the rows of this record."""
    if record is None or not rows:
        return f"There is no record yet; `{section.command}` makes one, on a quiet machine."
    told = f"Record: `benchmarks/results/{record.name}`, made by `{section.command}`."
    return f"{told}\n\n![{section.caption}]({section.picture})\n\n{section.render(rows)}"


def main(argv: Sequence[str] | None = None) -> int:
    """Returns 0, 2 when a record or the page cannot be read, 3 without matplotlib."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.page", description=__doc__)
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="FOLDER", help="the records (results/)")
    parser.add_argument("--page", type=Path, default=PAGE, metavar="FILE", help="(docs/performance.md)")
    options = parser.parse_args(argv)
    try:
        if not options.results.is_dir():
            raise UsageError(f"{options.results}: no such folder")
        for section in SECTIONS:
            _put(section, newest(section, options.results), options.page)
    except Edge4dError as error:
        say(f"error: {error}")
        return error.exit_code
    return 0


def _put(section: Section, record: Path | None, page: Path) -> None:
    """Write one section and its plot; the page last, so that it names no plot that failed."""
    rows = [] if record is None else section.read(record)
    text = text_of(section, record, rows)
    if rows:
        picture = page.with_name(section.picture)
        check_plot(picture)
        drawn = io.BytesIO()
        section.plot(rows).savefig(drawn, format="png", dpi=110)
        atomic_write(picture, drawn.getvalue())
    tables.write(page, text, section.name)
    say(f"{page.name}, {section.name}: {record.name if record and rows else 'no record'}")


if __name__ == "__main__":
    sys.exit(main())
