"""The compiler's log: rows, sums, placement, and whose layer each row is."""

from __future__ import annotations

import json
from pathlib import Path

import onnx
import pytest
from onnx import helper

from edge4d.exporters.rknn_log import parse, source_of, sources_of

LOG = Path(__file__).with_name("rknn_log.txt").read_text(encoding="utf-8")
"""What rknn-toolkit2 2.5.0 prints of a model, shortened."""


def test_every_row_is_read():
    layers = parse(LOG).layers
    assert [layer.op for layer in layers] == ["InputOperator", "Reshape", "Conv", "Conv", "Split", "OutputOperator"]
    assert [layer.target for layer in layers] == ["CPU", "CPU", "NPU", "NPU", "NPU", "CPU"]
    conv = layers[2]
    assert (conv.ddr_cycles, conv.npu_cycles, conv.total_cycles, conv.traffic_kib) == (814603, 802816, 814603, 6273)
    assert (conv.name, conv.dtype, conv.output) == ("Conv:stem.0/MatMul#2", "FLOAT16", (1, 32, 1, 200704))
    assert (layers[0].inputs, layers[5].output) == ("", ())
    assert layers[3].name == ""  # what the compiler adds has no name
    assert layers[4].output == (8, 64, 56, 56)


def test_totals_and_what_runs_on_the_cpu():
    found = parse(LOG, {"stem.0/Reshape": "stem.0"})
    assert found.totals() == {
        "npu_cycles": 802816 + 401408,
        "total_cycles": 814603 + 401408,
        "traffic_kib": 6272 + 6273 + 1176 + 12544 + 6272,
        "internal_kib": 50176.1,
        "weight_kib": 293.25,
        "layers": 6,
        "on_cpu": 1,
        "unread": 0,
    }
    assert [layer.place for layer in found.on_cpu] == ["Reshape stem.0/Reshape_rs (layer stem.0)"]
    assert found.errors["Unkown op target: 0"] == 1
    assert list(found.errors.values()) == [1, 2]  # the same sentence with other addresses is the same
    assert json.loads(json.dumps(found.to_dict()))["layers"][2]["npu_cycles"] == 802816


def test_a_column_of_newer_chips_is_skipped():
    """For the rk3576 the compiler adds how sparse the weights are, for convolutions alone."""
    newer = LOG.replace("814603/802816/814603", "814603/802816/814603  12%  ")
    assert newer != LOG
    assert parse(newer) == parse(LOG)


def test_rows_that_cannot_be_read_are_counted():
    found = parse(LOG.replace("814603/802816/814603", "814603 cycles"))
    assert found.totals()["unread"] == 1
    assert found.totals()["layers"] == 5


def test_the_last_table_counts():
    first = LOG.replace("814603/802816/814603", "1/2/3").replace("50176.1", "7.0")
    assert parse(first + LOG).totals() == parse(LOG).totals()


def test_tables_for_people():
    text = parse(LOG).to_text()
    assert [line.split() for line in text.splitlines() if line.startswith("Conv ")] == [
        ["Conv", "NPU", "2", "1,204,224", "7,449"]
    ]
    assert text.endswith("1,204,224 NPU cycles, 32,537 KiB moved; memory: 293 KiB weights, 50,176 KiB values")
    every = parse(LOG, {"stem.0/MatMul": "stem.0"}).to_text(every=True)
    assert "1x32x1x200704" in every
    assert sum(line.startswith("stem.0 ") for line in every.splitlines()) == 1


@pytest.mark.parametrize("log", ["", "I rknn building done.", LOG.replace("Network Layer", "Another")])
def test_a_log_without_the_table_gives_no_layers(log):
    found = parse(log)
    assert found.layers == ()
    assert found.totals()["npu_cycles"] == 0


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("Conv:a/Conv", "a"),
        ("Conv:a/Conv_2", "b"),  # a name of its own, although another one stands in front
        ("Conv:a/Conv_group_0", "a"),
        ("Conv:a/Conv_2_tile1_ConvAdd", "b"),
        ("Conv:a/Conv#2", "a"),
        ("Conv:a/Conv_2#2_ConvAddRelu", "b"),
        ("Conv:a/Conv_12", ""),  # not part of a/Conv
        ("Conv:a/Conv_12_rs", ""),
        ("Conv:a/Convolution", ""),
        ("InputOperator:clip", ""),
        ("", ""),
    ],
)
def test_the_source_layer_is_found_by_the_longest_name(name, layer):
    assert source_of(name, {"a/Conv": "a", "a/Conv_2": "b"}) == layer


def test_source_layers_come_from_the_models_metadata():
    described, plain = (helper.make_node("Relu", ["x"], [out], name=f"{out}/Relu") for out in ("y", "z"))
    described.metadata_props.append(onnx.StringStringEntryProto(key="edge4d.layer", value="stem.0"))
    assert sources_of([described, plain]) == {"y/Relu": "stem.0", "y": "stem.0"}
