"""`--autotune`: the runtime is asked, its answers are kept, and they decide."""

from __future__ import annotations

import json

import pytest
import torch

import edge4d
from edge4d.cli import main
from edge4d.errors import UsageError, ValidationError
from edge4d.exporters.autotune import Autotuner, cache_folder, planner_for
from edge4d.lowered import plan
from edge4d.planning import Planner
from tests.test_planning import CLIP, Net


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "edge4d"


def tuned(**settings):
    planner, tuner = planner_for(Planner.of("onnxruntime"), "onnxruntime", settings.pop("budget", 60.0), None)
    return plan(Net(), (CLIP,), planner=planner), tuner


def test_layers_are_timed_on_the_runtime_and_the_fastest_is_chosen(cache):
    layers, tuner = tuned()
    body = next(layer for layer in layers if layer.layer == "body.0")
    assert body.measured
    assert body.estimates[body.becomes] == min(body.estimates.values())
    assert "ms measured" in body.why
    assert (len(tuner.timed), len(tuner.known), tuner.failures) == (2, 0, [])  # the two of the body are of one kind
    assert cache_folder() == cache
    assert json.loads(tuner.path.read_text())["about"]["runtime"] == "onnxruntime"


def test_times_are_kept_and_decide_the_next_time():
    _, tuner = tuned()
    held = json.loads(tuner.path.read_text())
    for times in held["times"].values():
        for name in times:
            times[name] = 0.001 if name == "taps" else 1.0
    tuner.path.write_text(json.dumps(held))
    layers, second = tuned()
    assert {layer.becomes for layer in layers if layer.macs} == {"taps"}
    assert (len(second.timed), len(second.known)) == (0, 2)


def test_without_time_left_the_prediction_stands():
    planner, tuner = planner_for(Planner.of("onnxruntime"), "onnxruntime", 60.0, None)
    tuner.left = 0.0
    layers = plan(Net(), (CLIP,), planner=planner)
    assert not any(layer.measured for layer in layers)
    assert {layer.layer: layer.becomes for layer in layers} == {
        layer.layer: layer.becomes for layer in plan(Net(), (CLIP,), planner=Planner.of("onnxruntime"))
    }
    assert "2 predicted because the time was up" in tuner.note()


def test_a_damaged_cache_is_told():
    _, tuner = tuned()
    tuner.path.write_text("{}")
    with pytest.raises(ValidationError, match="no autotune cache"):
        Autotuner(edge4d.exporters.get("onnxruntime"))


@pytest.mark.parametrize(
    ("runtime", "budget", "said"), [("openvino", 60.0, "are two runtimes"), ("onnxruntime", 0.0, "nothing is timed")]
)
def test_wrong_settings(runtime, budget, said):
    with pytest.raises(UsageError, match=said):
        planner_for(Planner.of("onnxruntime"), runtime, budget, None)


def test_from_the_command_line(tmp_path, capsys):
    path = tmp_path / "net.pt2"
    torch.export.save(torch.export.export(Net().eval(), (CLIP,)), path)
    words = ["export", str(path), "-o", str(tmp_path / "net.onnx"), "--autotune", "onnxruntime"]
    assert main([*words, "--autotune-budget", "30s"]) == 0
    assert "autotune on onnxruntime: 2 kinds of layer timed" in capsys.readouterr().err
    assert json.loads((tmp_path / "net.onnx.json").read_text())["options"]["autotune"] == "onnxruntime"
    assert main([*words, "--force", "--autotune", "onnxrutime"]) == 2
