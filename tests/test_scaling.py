"""How cost grows: what is measured, what is refused, and that the page says what the record holds."""

from __future__ import annotations

import json
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import edge4d.errors
from benchmarks import measuring, peaks, scaling, scaling_page
from benchmarks.candidates import EDGE4D, EDGE4D_FOR, NATIVE
from benchmarks.sweeps import Point, Sweeps, load_sweeps
from tests.test_page import row

TINY = Point("stack", {"frames": 2, "channels": 4, "side": 6, "batch": 1}, ("frames", "batch"))
HEAD = "threads = 1\ngemm = 8\n"
BASE = "base = {frames = 2, side = 6, batch = 1, channels = 4}\n"


def size(frames, batch, **milliseconds):
    """Rows of one size of the stack, the base being two frames in a batch of one."""
    found = []
    for candidate, taken in milliseconds.items():
        factors = {"frames": frames, "channels": 4, "side": 6, "batch": batch}
        varies = [name for name, base in (("frames", 2), ("batch", 1)) if factors[name] != base] or ["frames", "batch"]
        name = {"native": NATIVE, "four": EDGE4D, "chosen": EDGE4D_FOR}[candidate]
        found.append(
            row(f"{frames}x{batch}", name, milliseconds["native"] / taken)
            | {"latency_ms": dict.fromkeys(("p10", "p50", "p90"), taken), "network": "stack", "factors": factors}
            | {"varies": varies, "macs": 10**6 * frames * batch, "gflop_s": 2.0 * frames * batch / taken}
            | {"gemm": {"side": 8, "p50_ms": 1.0, "gflop_s": 300.0}}
        )
    return found


RECORD = [
    *size(2, 1, native=2.0, four=1.0, chosen=1.0),
    *size(4, 1, native=4.0, four=4.0, chosen=1.0),
    *size(8, 1, native=8.0, four=16.0, chosen=1.0),
    *size(2, 4, native=8.0, four=4.0, chosen=1.0),
]

# ---- what is measured ---------------------------------------------------------------------------------------------


def test_one_factor_at_a_time_is_moved_and_the_base_belongs_to_every_sweep():
    sweeps = load_sweeps()
    assert len({point.name for point in sweeps.points}) == len(sweeps.points)
    for name in {point.network for point in sweeps.points}:
        base, *moved = [point for point in sweeps.points if point.network == name]
        assert set(base.varies) == {factor for point in moved for factor in point.varies}
        for point in moved:
            differing = tuple(f for f in base.factors if point.factors[f] != base.factors[f])
            assert point.varies == differing
            assert len(differing) == 1


def test_a_point_has_its_network_and_clips():
    (clip,) = TINY.clips(0)
    assert clip.shape == (1, 4, 2, 6, 6)
    assert not torch.equal(clip, TINY.clips(1)[0])
    assert TINY.build()(clip).shape == clip.shape
    zoo = Point("r3d_18", {"frames": 4, "side": 56, "batch": 2}, ("frames",))
    assert zoo.clips(0)[0].shape == (2, 3, 4, 56, 56)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[[network", "cannot be read"),
        ("gemm = 8\n", "expected threads and gemm"),
        ("threads = 0\ngemm = 8\n[[network]]\n", "expected threads and gemm"),
        (HEAD, "holds no"),
        (HEAD + '[[network]]\nname = "stack"\nbase = {frames = 2}\n', "a base with frames, channels, side, batch"),
        (HEAD + f'[[network]]\nname = "stack"\n{BASE}depth = [1]\n', "depth is no factor"),
        (HEAD + f'[[network]]\nname = "stack"\n{BASE}frames = [2, 0]\n', "expected positive integers"),
        (HEAD + f'[[network]]\nname = "stack"\n{BASE}frames = [4, 8]\n', "expected its base of 2"),
        (HEAD + f'[[network]]\nname = "stack"\n{BASE}frames = [2, 2]\n', "no size twice"),
        (HEAD + f'[[network]]\nname = "r3d_18"\n{BASE}frames = [2]\n', "a base with frames, side, batch"),
    ],
)
def test_wrong_sweeps_are_refused(tmp_path, text, said):
    path = tmp_path / "scaling.toml"
    path.write_text(text)
    with pytest.raises(edge4d.errors.UsageError, match=said):
        load_sweeps(path)


def test_an_unknown_network_is_refused():
    with pytest.raises(edge4d.errors.UsageError, match="no network resnet"):
        load_sweeps(networks=["resnet"])


def test_a_wrong_product_of_matrices_is_not_timed(tmp_path, monkeypatch):
    assert peaks.write_gemm(16, tmp_path, "onnxruntime").is_file()

    @contextmanager
    def wrong(path):
        yield lambda matrix: {"y": np.zeros_like(matrix[:, :1])}

    monkeypatch.setattr("edge4d.artifact.open", wrong)
    with pytest.raises(edge4d.errors.UsageError, match="wrong product"):
        peaks.write_gemm(16, tmp_path, "onnxruntime")


def measured(monkeypatch, tmp_path, latency, failure=None):
    """`scaling.measure` of `TINY` whose candidates took 2 ms, beside a product that took this."""
    rows = [row(TINY.name, NATIVE, 1.0) | {"latency_ms": {"p50": 2.0, "p90": 2.0}}]
    beside = {peaks.GEMM: SimpleNamespace(latency_ms=latency, failure=failure)}

    def measure_network(case, build, *_, **__):
        build()
        return rows, [], beside

    monkeypatch.setattr(scaling, "measure_network", measure_network)
    return scaling.measure(TINY, Sweeps(1, 1000, (TINY,)), tmp_path / "gemm.onnx", tmp_path, stamp={})


def test_what_is_achieved_counts_the_original_network(tmp_path, monkeypatch):
    (found,), problems = measured(monkeypatch, tmp_path, {"p50": 10.0})
    assert not problems
    # Two blocks of two 3×3×3 convolutions, padded, four channels, and two operations a multiply-accumulate.
    assert found["macs"] == 4 * 27 * 4 * 4 * (2 * 6 * 6)
    assert found["gflop_s"] == pytest.approx(2 * found["macs"] / 2e-3 / 1e9, rel=1e-3)
    assert found["gemm"] == {"side": 1000, "p50_ms": 10.0, "gflop_s": 1600.0}, "eight products"
    assert found["varies"] == ["frames", "batch"]


def test_without_the_machines_peak_nothing_is_recorded(tmp_path, monkeypatch):
    found, problems = measured(monkeypatch, tmp_path, None, "its process died")
    assert found == []
    assert "its process died" in problems[0]


@pytest.mark.slow
def test_a_tiny_sweep_is_measured_and_shown(tmp_path, capsys):
    (tmp_path / "s.toml").write_text(HEAD + f'[[network]]\nname = "stack"\n{BASE}frames = [2, 3]\n')
    out = tmp_path / "scaling.jsonl"
    words = ["--sweeps", str(tmp_path / "s.toml"), "--rounds", "2", "--warmup", "0", "--out", str(out)]
    assert scaling.main([*words, "--clock", "processor"]) == 0
    rows = scaling_page.read(out)
    assert [row["candidate"] for row in rows] == 2 * [NATIVE, EDGE4D, EDGE4D_FOR]
    assert all(row["clock"] == "processor" and row["threads"] == 1 for row in rows)
    assert len(scaling_page.plot(rows, "onnxruntime").axes) == 2
    assert scaling.main(words) == 2
    assert "exists already" in capsys.readouterr().err


@pytest.mark.parametrize("words", [["--networks", "nothing"], ["--rounds", "0"], ["--sweeps", "gone.toml"]])
def test_wrong_usage_is_said_before_anything_is_measured(words, tmp_path, capsys):
    assert scaling.main([*words, "--out", str(tmp_path / "x.jsonl")]) == 2
    assert capsys.readouterr().err.startswith("error: ")


# ---- what is shown ------------------------------------------------------------------------------------------------


def test_how_the_time_grows_is_the_exponent_of_the_size():
    line = [(n, {"latency_ms": {"p50": 3 * n**1.5}}) for n in (1, 4, 16)]
    assert scaling_page.growth(line) == pytest.approx(1.5)
    assert scaling_page.growth(line[:1]) is None


def test_the_page_tells_growth_and_sizes():
    text = scaling_page.render(RECORD, "onnxruntime")
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()]
    assert ["stack", "frames", "2 to 8", "1.00", "2.00", "0.00"] in lines
    assert ["stack", "batch", "2 to 4", "1.00", "1.00", "0.00"] not in lines
    assert ["stack", "batch", "1 to 4", "1.00", "1.00", "0.00"] in lines
    shown = ["stack", "8", "4", "6", "1", "0.008", "8", "16", "0.50×", "1", "8.00×", "2", "1", "16", "300", "3e-07"]
    assert shown in lines
    assert "side 8 reached 300 GFLOP/s (300 to 300)" in text


def test_the_plot_has_time_and_rate_of_every_sweep_and_the_peak():
    figure = scaling_page.plot(RECORD, "onnxruntime")
    assert [axes.get_title() for axes in figure.axes[:2]] == ["stack: frames", "stack: batch"]
    native, four, chosen = figure.axes[0].lines
    assert list(native.get_xdata()) == [2, 4, 8]
    assert list(four.get_ydata()) == [1.0, 4.0, 16.0]
    assert list(chosen.get_ydata()) == [1.0, 1.0, 1.0]
    assert list(figure.axes[2].lines[-1].get_ydata()) == [300.0, 300.0, 300.0]


def test_a_record_of_the_other_benchmark_is_refused(tmp_path):
    path = tmp_path / "r.jsonl"
    path.write_text(json.dumps(row("a", NATIVE, 1.0)) + "\n")
    with pytest.raises(edge4d.errors.UsageError, match="without network, factors"):
        scaling_page.read(path)
    assert measuring.SCHEMA == 1
