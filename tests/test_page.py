"""The page of figures: it shows the newest records, says what is met and what is not, and is written whole or not."""

from __future__ import annotations

import json
import re

import pytest

from benchmarks import page, ratios
from benchmarks.candidates import EDGE4D, EDGE4D_FOR, NATIVE

BENCH, OPENVINO = page.SECTIONS[:2]
MARKERS = "".join(f"<!-- {section.name} -->\n<!-- /{section.name} -->\n" for section in page.SECTIONS)


def row(case, candidate, ratio, turns=()):
    return {
        "schema": 1, "case": case, "candidate": candidate, "model": case, "shape": [1, 3, 4, 8, 8], "dtype": "float32",
        "threads": 2, "latency_ms": {"p50": 10 / ratio, "p90": 12 / ratio}, "turns_ms": list(turns), "ratio": ratio,
        "frames_per_s": 40 * ratio, "ratio_to": NATIVE, "peak_rss_mib": 100.0, "parity": {"max_error_of_range": 3e-7},
        "rounds": 3, "warmup": 1, "machine": {"cpu": "a processor", "cores": 2}, "date": "2026-11-27",
        "versions": {"torch": "2.13.0"}, "busy": 0.01,
    }  # fmt: skip


def record(**speeds: float):
    """Rows of these cases: native 5-D, rank 4 at the speed given, and with ``--for`` a tenth faster."""
    return [
        row(case, *candidate)
        for case, speed in speeds.items()
        for candidate in ((NATIVE, 1.0), (EDGE4D, speed), (EDGE4D_FOR, 1.1 * speed))
    ]


def write(folder, name, rows):
    (folder / name).write_text("".join(json.dumps(entry) + "\n" for entry in rows))


# ---- the committed page -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("section", page.SECTIONS, ids=lambda section: section.name)
def test_the_page_shows_the_newest_record(section):
    text = page.PAGE.read_text(encoding="utf-8")
    shown = text.partition(f"<!-- {section.name} -->")[2].partition(f"<!-- /{section.name} -->")[0].strip()
    found = page.newest(section)
    rows = section.read(found) if found else []
    assert shown == page.text_of(section, found, rows), "python -m benchmarks.page writes it"
    assert (page.PAGE.parent / section.picture).is_file() == bool(rows)


# ---- ratios and targets -------------------------------------------------------------------------------------------


def test_a_ratio_is_the_median_of_the_rounds_and_its_spread_theirs():
    native, other = row("a", NATIVE, 1.0, [10, 20, 300]), row("a", EDGE4D, 9.0, [5, 10, 100])
    assert ratios.ratio(other, native) == pytest.approx((2, 2, 2.8))
    assert ratios.ratio(other, native).spread == "2.00–2.80"


def test_a_record_without_its_rounds_has_ratios_and_no_spread():
    peer = row("a", "peer", 1.5)
    assert ratios.ratio(row("a", EDGE4D, 1.8), peer) == (pytest.approx(1.2), None, None)
    assert ratios.ratio(row("a", EDGE4D, 1.8, [1, 2]), peer).spread == "-"


@pytest.mark.parametrize(
    ("speeds", "said"),
    [
        ({"a": 1.5, "b": 1.2}, "1.48× geometric mean, least 1.32× (b): met (1.34× geometric mean without `--for`)"),
        ({"a": 1.9, "b": 1.0}, "1.52× geometric mean, least 1.10× (b): **not met** (1.38× geometric"),
        ({"a": 1.2, "b": 1.2}, "1.32× geometric mean, least 1.32× (a): **not met** (1.20× geometric"),
        ({"a": 1.5}, "not in this record: b"),
    ],
)
def test_what_a_target_comes_to(speeds, said):
    cases = ratios._by_case(record(**speeds))
    assert ratios.verdict(ratios.Target(("a", "b"), 1.2, 1.4), cases).startswith(said)


def test_a_peer_is_what_its_target_is_held_against():
    target = ratios.Target(("a",), 1.2, over="peer")
    rows = record(a=1.5)
    assert ratios.verdict(target, ratios._by_case(rows)) == "not in this record: a"
    met, missed = (ratios._by_case([*rows, row("a", "peer", speed)]) for speed in (1.3, 1.5))
    assert ratios.verdict(target, met) == "1.27×: met (1.15× without `--for`)"
    assert ratios.verdict(target, missed) == "1.10×: **not met** (1.00× without `--for`)"


def test_a_candidate_that_is_not_recorded_leaves_dashes():
    lines = ratios.render([r for r in record(a=1.5) if r["candidate"] != EDGE4D], "onnxruntime").splitlines()
    cells = [cell.strip() for cell in lines[2].strip("|").split("|")]
    assert cells == ["a", "10.0", "-", "-", "-", "6.1", "1.65×", "-", "100", "-", "100", "3e-07"]


# ---- the command --------------------------------------------------------------------------------------------------


def test_the_newest_record_is_the_one_of_its_runtime(tmp_path):
    assert page.newest(BENCH, tmp_path) is None
    for name in (
        "2026-11-26-cpu-2core.jsonl", "2026-11-27-cpu-2core.jsonl", "2026-11-28-openvino-cpu-2core.jsonl",
        "2026-11-28-cpu-1thread.jsonl", "memory-2026-11-28-cpu-2core.jsonl",
    ):  # fmt: skip
        (tmp_path / name).touch()
    assert page.newest(BENCH, tmp_path).name == "2026-11-27-cpu-2core.jsonl"
    assert page.newest(OPENVINO, tmp_path).name == "2026-11-28-openvino-cpu-2core.jsonl"


def test_a_page_is_written_with_its_plots(tmp_path):
    target = tmp_path / "page.md"
    target.write_text(f"# Figures\n{MARKERS}the end\n")
    write(tmp_path, "2026-11-27-cpu-2core.jsonl", [*record(r3d_18=2.0, c3d=1.9), row("c3d", "efficient_x3d", 1.2)])
    assert page.main(["--results", str(tmp_path), "--page", str(target)]) == 0
    text = target.read_text()
    assert "Record: `benchmarks/results/2026-11-27-cpu-2core.jsonl`" in text
    assert re.search(r"\| none below 1.8× +\| r3d_18, c3d +\| least 2.09× \(c3d\): met", text)
    assert "There is no record yet; `python -m benchmarks.run --runtime openvino` makes one" in text
    assert text.startswith("# Figures\n")
    assert text.endswith("the end\n")
    assert (tmp_path / "bench_onnxruntime.png").read_bytes().startswith(b"\x89PNG")
    assert not (tmp_path / "bench_openvino.png").exists()


def test_the_plot_has_a_bar_for_each_form_and_a_line_for_its_spread():
    rows = [row("a", NATIVE, 1.0, [10, 10]), row("a", EDGE4D, 2.0, [5, 4]), row("b", NATIVE, 1.0)]
    (axes,) = ratios.plot(rows, "onnxruntime").axes
    assert [bar.get_height() for bar in axes.patches] == [2.25]
    assert list(axes.lines[0].get_ydata()) == pytest.approx([2.05, 2.45])


@pytest.mark.parametrize(
    ("content", "name", "said"),
    [
        (MARKERS, "2026-11-27-cpu-2core.jsonl", "not JSON"),
        ("no markers", "other.jsonl", "has no place for the table"),
    ],
)
def test_what_cannot_be_read_leaves_the_page_as_it_was(tmp_path, capsys, content, name, said):
    target = tmp_path / "page.md"
    target.write_text(content)
    (tmp_path / name).write_text("{")
    assert page.main(["--results", str(tmp_path), "--page", str(target)]) == 2
    assert said in capsys.readouterr().err
    assert target.read_text() == content


def test_a_folder_that_does_not_exist_is_refused(tmp_path, capsys):
    assert page.main(["--results", str(tmp_path / "gone")]) == 2
    assert "no such folder" in capsys.readouterr().err
