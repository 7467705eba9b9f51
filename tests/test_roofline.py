"""The roofline: what is counted, what a bound comes to, what is refused, and that the page says what is recorded."""

from __future__ import annotations

import json
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

import edge4d.errors
from benchmarks import bounds, peaks, ratios, roofline, roofline_page
from benchmarks.bounds import Work
from benchmarks.candidates import EDGE4D, EDGE4D_FOR, NATIVE
from benchmarks.cases import Case
from benchmarks.measuring import stamp_of
from tests.test_page import row

CASE = Case("tiny", "tiny", (3, 4, 8, 8), 1, 1)
FLOAT = 4


def clips(seed):
    return (torch.randn(1, 3, 4, 8, 8, generator=torch.Generator().manual_seed(seed)),)


def tiny():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv3d(3, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 4 * 8 * 8, 2)).eval()


# ---- what is counted ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv3d(4, 6, 3, padding=1, bias=False),
        nn.Conv3d(4, 6, (3, 1, 1), padding=(1, 0, 0), bias=False),
        nn.Conv3d(4, 4, 3, stride=(1, 2, 2), padding=1, groups=4, bias=False),
        nn.Conv3d(4, 6, 1, stride=2, bias=False),
        nn.Conv3d(4, 2, (2, 3, 1), stride=(2, 1, 3), padding=(1, 2, 0), dilation=(1, 2, 1), bias=False),
    ],
    ids=str,
)
def test_direct_multiplications_and_bytes_are_those_that_a_window_of_ones_sees(conv):
    x = torch.ones(2, 4, 5, 7, 6, requires_grad=True)
    with torch.no_grad():
        conv.weight.fill_(1)
    made = conv(x)
    made.sum().backward()
    read = int((x.grad > 0).sum())  # what reaches any result
    ((direct, *others),) = bounds.layers_of(conv, (x.detach(),), "onnxruntime")
    assert direct == Work(int(made.sum()), FLOAT * (read + conv.weight.numel() + made.numel()))
    assert conv.weight.device.type == "cpu"
    assert others


def test_winograd_has_fewer_multiplications_and_more_weights():
    conv = nn.Conv3d(16, 16, (3, 1, 1), padding=(1, 0, 0), bias=False)
    ((direct, *others),) = bounds.layers_of(conv, (torch.zeros(1, 16, 8, 5, 5),), "openvino")
    least = min(others, key=lambda way: way.macs)
    assert direct.macs == 22 * 16 * 16 * 25  # three taps on eight frames, two of them see a frame less
    assert least.macs == 12 * 16 * 16 * 25  # two tiles of F(4, 3)
    assert least.bytes - direct.bytes == FLOAT * 3 * 16 * 16


def test_formulations_are_those_of_the_runtime():
    conv = nn.Conv3d(16, 16, (1, 3, 3), padding=(0, 1, 1), bias=False)
    least = {}
    for runtime in ("onnxruntime", "rknn"):
        ((direct, *others),) = bounds.layers_of(conv, (torch.zeros(1, 16, 2, 8, 8),), runtime)
        least[runtime] = min(way.macs for way in (direct, *others)) / direct.macs
    assert least["rknn"] == 1
    assert least["onnxruntime"] < 0.6  # F(4, 3) along rows


def test_a_linear_layer_and_a_plane_convolution_have_one_way():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 36, 10))
    plane, linear = bounds.layers_of(net, (torch.zeros(1, 3, 8, 8),), "onnxruntime")
    assert plane == [Work(9 * 3 * 4 * 36, FLOAT * (3 * 64 + 9 * 12 + 4 * 36))]
    assert linear == [Work(1440, FLOAT * (144 + 1440 + 10))]


def test_a_transposed_convolution_is_refused():
    with pytest.raises(edge4d.errors.UsageError, match="transposed"):
        bounds.layers_of(nn.ConvTranspose3d(2, 2, 2), (torch.zeros(1, 2, 2, 2, 2),), "onnxruntime")


# ---- what a bound comes to ----------------------------------------------------------------------------------------


def test_the_slower_of_multiplying_and_moving_bounds_a_layer():
    by_products, by_bytes = [Work(10**9, 10**6), Work(5 * 10**8, 2 * 10**6)], [Work(10**6, 10**8), Work(10**5, 10**8)]
    found = bounds.bound([by_products, by_bytes], peak=100, bandwidth=10)
    assert found.direct_ms == pytest.approx(20 + 10)
    assert found.least_ms == pytest.approx(10 + 10)
    assert found.memory_share == pytest.approx(1 / 3)
    assert (found.macs, found.least_macs) == (10**9 + 10**6, 5 * 10**8 + 10**5)


def test_fewer_multiplications_do_not_lower_a_bound_when_their_bytes_cost_more():
    found = bounds.bound([[Work(10**6, 10**6), Work(10**3, 10**8)]], peak=100, bandwidth=10)
    assert found.least_ms == found.direct_ms
    assert found.least_macs == 10**6


@pytest.mark.parametrize(("layers", "peak", "bandwidth"), [([], 1, 1), ([[Work(1, 1)]], 0, 1), ([[Work(1, 1)]], 1, 0)])
def test_nothing_has_no_bound(layers, peak, bandwidth):
    with pytest.raises(edge4d.errors.UsageError, match="have no bound"):
        bounds.bound(layers, peak, bandwidth)


# ---- what is measured ---------------------------------------------------------------------------------------------


def test_a_wrong_sum_is_not_timed(tmp_path, monkeypatch):
    assert peaks.write_add(1, tmp_path, "onnxruntime").is_file()

    @contextmanager
    def wrong(path):
        yield lambda number: {"y": np.zeros((256, 1), np.float32)}

    monkeypatch.setattr("edge4d.artifact.open", wrong)
    with pytest.raises(edge4d.errors.UsageError, match="wrong sum"):
        peaks.write_add(1, tmp_path, "onnxruntime")


def measured(monkeypatch, tmp_path, add=None):
    """`roofline.measure` of `tiny`, whose candidates took 2 ms, beside a product of 10 ms and this sum."""
    beside = {
        peaks.GEMM: SimpleNamespace(latency_ms={"p50": 10.0}, failure=None),
        peaks.ADD: SimpleNamespace(latency_ms=add, failure="its process died"),
    }

    def measure_network(case, build, *_, **__):
        build()
        return [row(case.name, NATIVE, 5.0)], [], beside

    monkeypatch.setattr(roofline, "measure_network", measure_network)
    files = dict.fromkeys((peaks.GEMM, peaks.ADD), tmp_path)
    return roofline.measure(CASE, files, tmp_path, runtime="onnxruntime", build=tiny, clips=clips, stamp={})


def test_the_bound_stands_on_rates_of_the_same_turns(tmp_path, monkeypatch):
    (found,), problems = measured(monkeypatch, tmp_path, {"p50": 20.0})
    assert not problems
    roof = found["roofline"]
    assert roof["gflop_s"] == pytest.approx(2 * peaks.gemm_macs(roofline.SIDE) / 10e-3 / 1e9, rel=1e-3)
    assert roof["gb_s"] == pytest.approx(2 * roofline.MEBIBYTES * 2**20 / 20e-3 / 1e9, rel=1e-3)
    wanted = bounds.bound(bounds.layers_of(tiny(), clips(0), "onnxruntime"), roof["gflop_s"], roof["gb_s"])
    assert roof["direct_ms"] == pytest.approx(wanted.direct_ms, rel=1e-3)
    assert roof["macs"] == wanted.macs


def test_without_the_machines_rates_nothing_is_recorded(tmp_path, monkeypatch):
    found, problems = measured(monkeypatch, tmp_path)
    assert found == []
    assert "add: its process died" in problems[0]


@pytest.mark.slow
def test_a_tiny_network_is_measured_and_shown(tmp_path):
    files = roofline.write_peaks(tmp_path, "onnxruntime")
    asked = {"rounds": 2, "warmup": 1, "clock": "processor", "runtime": "onnxruntime", "stamp": stamp_of()}
    rows, problems = roofline.measure(CASE, files, tmp_path, build=tiny, clips=clips, **asked)
    assert not problems
    assert [found["candidate"] for found in rows] == [NATIVE, EDGE4D, EDGE4D_FOR]
    path = tmp_path / "r.jsonl"
    path.write_text("".join(json.dumps(found) + "\n" for found in rows))
    (line,) = [
        line for line in roofline_page.render(roofline_page.read(path), "onnxruntime").splitlines() if "tiny" in line
    ]
    assert "×" in line
    assert 0 < rows[0]["roofline"]["direct_ms"] < rows[0]["latency_ms"]["p50"]


# ---- what is shown ------------------------------------------------------------------------------------------------


def record(case, native, rank4, direct, least):
    roof = {"gflop_s": 500.0, "gb_s": 10.0, "side": 1024, "mebibytes": 128, "macs": 4 * 10**9, "least_macs": 10**9}
    roof |= {"direct_ms": direct, "least_ms": least, "memory_share": 0.25}
    speeds = {NATIVE: native, EDGE4D: rank4, EDGE4D_FOR: rank4}
    return [
        row(case, form, native / ms) | {"latency_ms": {"p50": ms, "p90": ms}, "roofline": roof}
        for form, ms in speeds.items()
    ]


def test_the_page_tells_what_the_bound_leaves():
    text = roofline_page.render([*record("a", 20.0, 12.0, 16.0, 10.0), *record("b", 9.0, 9.0, 9.0, 9.0)], "openvino")
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()]
    assert ["a", "4", "1", "25%", "20", "16", "1.25", "12", "10", "1.20", "2.00×", "1.67×"] in lines
    assert ["b", "4", "1", "25%", "9", "9", "1.00", "9", "9", "1.00", "1.00×", "1.00×"] in lines
    assert "reached 500 GFLOP/s (500 to 500), a number added to 128 MiB 10.0 GB/s" in text
    assert "not in this record: r3d_18" in text


def test_a_target_beyond_the_bound_is_named():
    cases = roofline_page._by_case([*record("a", 20.0, 12.0, 16.0, 10.0), *record("b", 9.0, 9.0, 9.0, 9.0)])
    told = roofline_page.reach(ratios.Target(("a", "b"), 0.95, 1.15), cases)
    assert told == "at most 1.41× geometric mean, reached 1.29×; 1.15× out of reach for b (1.00×)"
    assert roofline_page.reach(ratios.Target(("a",), 1.8), cases).endswith("none is bound below 1.8×")
    assert roofline_page.reach(ratios.Target(("a", "c"), 1.8), cases) == "not in this record: c"


def test_the_plot_has_both_forms_and_the_least_bound_as_multiples_of_the_direct_one():
    (axes,) = roofline_page.plot(record("a", 20.0, 12.0, 16.0, 10.0), "openvino").axes
    assert [bar.get_height() for bar in axes.patches] == [1.25, 0.75]
    assert list(axes.lines[0].get_ydata()) == [0.625, 0.625]


def test_rows_from_before_there_were_rooflines_are_left_out_and_half_a_roofline_is_refused(tmp_path):
    path = tmp_path / "r.jsonl"
    path.write_text(json.dumps(row("a", NATIVE, 1.0)) + "\n")
    assert roofline_page.read(path) == []
    path.write_text(json.dumps(row("a", NATIVE, 1.0) | {"roofline": {"gflop_s": 1.0}}) + "\n")
    with pytest.raises(edge4d.errors.UsageError, match="without gb_s, macs"):
        roofline_page.read(path)
