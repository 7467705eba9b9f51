"""`edge4d eval`: right answers counted, of PyTorch and of ONNX on the same clips; what falls short is a finding."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

import edge4d
from edge4d.cli import main
from edge4d.errors import UsageError
from edge4d.evaluating import evaluate
from tests.tuning.nets import SHAPE, build, build_holder, clips, write_clips

FACTORY = "tests.tuning.nets:build"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """The network, its ONNX of batch 3, one with a broken head, and 20 clips of which it gets 15 right."""
    folder = tmp_path_factory.mktemp("eval")
    net = build()
    torch.save(net.state_dict(), folder / "net.pt")
    args = (torch.zeros(3, *SHAPE),)
    assert edge4d.export(net, args, output=folder / "net.onnx").ok
    with torch.no_grad():
        net.head.weight[0] = 0
        net.head.bias[0] = 100
    assert edge4d.export(net, args, output=folder / "broken.onnx", parity=False).gate.ok
    found, labels = clips(20, seed=4)
    labels[:5] = (labels[:5] + 1) % 3
    np.savez(folder / "test.npz", clips=found, labels=labels)
    return folder


def test_pytorch_and_onnx_are_counted_alike(place):
    report = evaluate([place / "net.pt", place / "net.onnx"], data=place / "test.npz", factory=FACTORY)
    assert [score.top1 for score in report.scores] == [0.75, 0.75]
    assert [score.top5 for score in report.scores] == [1, 1]
    assert report.scores[1].agreement == 1
    assert (report.clips, report.views, report.ok) == (20, 1, True)


def test_a_worse_model_is_a_finding(place):
    paths = [place / "net.onnx", place / "broken.onnx"]
    report = evaluate(paths, data=place / "test.npz", max_drop=1.0, min_top1=70)
    assert not report.ok
    zeros = float((np.load(place / "test.npz")["labels"] == 0).mean())
    assert report.scores[1].top1 == pytest.approx(zeros)
    assert report.scores[1].drop == pytest.approx(75 - 100 * zeros)
    assert [finding.split(" is ")[0].split(" lies ")[0] for finding in report.findings] == [str(paths[1])] * 2
    assert evaluate(paths, data=place / "test.npz", max_drop=90).ok


def test_a_broken_clip_is_left_out_and_named(place, tmp_path):
    archive = dict(np.load(place / "test.npz"))
    archive["clips"][3, 0, 0, 0, 0] = np.inf
    np.savez(tmp_path / "bad.npz", **archive)
    report = evaluate([place / "net.onnx"], data=tmp_path / "bad.npz")
    assert report.clips == 19
    assert report.skipped == (("bad.npz[3]", "holds values that are NaN or infinite"),)


def test_bad_input(place, tmp_path):
    np.savez(tmp_path / "unlabelled.npz", clips=clips(4)[0])
    with pytest.raises(UsageError, match="these clips have no labels"):
        evaluate([place / "net.onnx"], data=tmp_path / "unlabelled.npz")
    with pytest.raises(UsageError, match="there is only one"):
        evaluate([place / "net.onnx"], data=place / "test.npz", max_drop=1)
    write_clips(tmp_path / "many.npz", 6, labels=np.arange(6))
    with pytest.raises(UsageError, match="knows 3 classes, the data has 6"):
        evaluate([place / "net.onnx"], data=tmp_path / "many.npz")


def test_from_the_command_line(place, capsys):
    words = ["eval", str(place / "net.onnx"), str(place / "broken.onnx"), "--data", str(place / "test.npz")]
    assert main([*words, "--max-drop", "5"]) == 1
    assert "points below" in capsys.readouterr().out
    assert main([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["models"][0]["top1"] == 0.75


@pytest.fixture
def holder(tmp_path):
    torch.save(build_holder().state_dict(), tmp_path / "holder.pt")
    return tmp_path / "holder.pt"


OF_HOLDER = ("--factory", "tests.tuning.nets:build_holder", "--submodule", "video", "--input-shape", "3x1x4x8x8")


def test_a_part_with_a_fixed_input_is_counted(place, holder, capsys):
    words = ["eval", str(holder), str(place / "net.onnx"), "--data", str(place / "test.npz"), *OF_HOLDER, "--json"]
    assert main([*words, "--fix", 'mode="best"']) == 0
    assert [model["top1"] for model in json.loads(capsys.readouterr().out)["models"]] == [0.75, 0.75]
    assert main([*words, "--fix", 'mode="worst"']) == 0
    worst, onnx = json.loads(capsys.readouterr().out)["models"]
    assert worst["top1"] < 0.3
    assert onnx["agreement"] == 0


@pytest.mark.parametrize("verb", ["eval", "bench", "parity"])
def test_graphs_alone_have_neither_parts_nor_inputs_to_fix(verb, place, capsys):
    words = [verb, str(place / "net.onnx"), str(place / "broken.onnx")]
    words += ["--data", str(place / "test.npz")] if verb == "eval" else []
    assert main([*words, "--fix", "mode=1", "--submodule", "video"]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "--submodule video, --fix mode: every file here is a graph" in said


def test_bench_and_parity_run_the_part_with_its_fixed_input(place, holder, capsys):
    """Beside a graph, which has the input already, and with a native form made of the part."""
    words = [str(holder), str(place / "net.onnx"), *OF_HOLDER]
    assert main(["bench", *words, "--fix", 'mode="best"', "--native", "--rounds", "1", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["ok"]
    assert len(report["candidates"]) == 3
    assert main(["parity", *words, "--fix", 'mode="best"']) == 0
    assert main(["parity", *words, "--fix", 'mode="worst"']) == 1
    capsys.readouterr()
    assert main(["bench", *words, "--rounds", "1"]) == 2  # the input is missing
    assert "mode" in capsys.readouterr().out


def test_bench_gives_a_graph_of_torch_no_option_that_is_meant_for_the_network(holder, tmp_path, capsys):
    program = torch.export.export(build(), (torch.zeros(3, *SHAPE),))
    torch.export.save(program, tmp_path / "net.pt2")
    words = ["bench", str(holder), str(tmp_path / "net.pt2"), *OF_HOLDER, "--fix", 'mode="best"', "--rounds", "1"]
    assert main([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["ok"]
