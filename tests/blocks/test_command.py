"""`--block`, `--energy` and `--calib` of `edge4d export` and `edge4d plan`."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch import nn

from edge4d.cli import main

FACTORY = "tests.blocks.test_command:build"


def build():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv3d(2, 6, 3, padding=1), nn.ReLU(), nn.Conv3d(6, 4, 3, 2, 1))


@pytest.fixture
def weights(tmp_path):
    torch.save(build().state_dict(), tmp_path / "weights.pth")
    np.savez(tmp_path / "clips.npz", clips=np.random.default_rng(0).standard_normal((3, 2, 4, 6, 6)).astype("float32"))
    return tmp_path / "weights.pth"


def run(capsys, *arguments):
    code = main([*map(str, arguments), "--factory", FACTORY, "--input-shape", "1x2x4x6x6"])
    return code, capsys.readouterr()


def test_export_per_layer_with_clips(weights, capsys):
    mixed = ["--block", "exact", "--block", "2=r2plus1d", "--energy", "0.9"]
    clips = ["--calib", weights.parent / "clips.npz"]
    code, said = run(capsys, "export", weights, *mixed, *clips, "--json")
    assert code == 0, said.err
    report = json.loads(said.out)
    assert report["block"] == "mixed: exact, 2=r2plus1d"
    assert [layer["block"] for layer in report["swap"]["layers"]] == [None, "r2plus1d"]
    assert report["swap"]["calibration"]["clips"] == 3
    assert report["parity"]["ok"]
    recipe = json.loads((weights.parent / "weights.onnx.json").read_text())
    assert recipe["options"]["energy"] == 0.9
    assert recipe["options"]["calib"]["clips"] == 3
    assert len(recipe["options"]["calib"]["sha256"]) == 64


def test_paper_alignment(weights, capsys):
    blocks = ["--block", "proposed-add", "--alignment", "paper"]
    code, said = run(capsys, "export", weights, *blocks)
    assert code == 0, said.err
    assert "2 of 2 3-D convolutions replaced (proposed-add)" in said.out
    assert main(["plan", str(weights), *blocks, "--factory", FACTORY, "--input-shape", "1x2x4x7x7"]) == 2
    printed = capsys.readouterr().err
    assert "layer 2: alignment 'paper' cannot stride 7x7 pixels" in printed.replace("\n", " ")
    assert "alignment='spatial'" in printed


def test_plan(weights, capsys):
    code, said = run(capsys, "plan", weights, "--block", "proposed-cat")
    assert code == 0, said.err
    assert "2 of 2 3-D convolutions replaced (proposed-cat)" in said.out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--block", "proposed-ad"], "did you mean 'proposed-add'"),
        (["--block", "p3d-a", "--energy", "0.9"], "no block in use has an option 'energy'"),
        (["--block", "x=p3d-a"], "fits none of the 2 Conv3d layers"),
        (["--block", "proposed-add", "--alignment", "papre"], "unknown alignment 'papre'"),
        (["--calib", "clips.npz"], "need a block to fit"),
        (["--block", "p3d-a", "--calib", "missing.npz"], "no such file or folder"),
    ],
)
def test_mistakes_end_with_2_and_a_sentence(weights, capsys, arguments, said):
    code, printed = run(capsys, "plan", weights, *arguments)
    assert code == 2
    assert said in printed.err.replace("\n", " ")
    assert "Traceback" not in printed.err
