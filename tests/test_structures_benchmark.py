"""The accuracy table of the structures: its measure, its rows, and what it refuses."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from torch import nn

from benchmarks import structures
from edge4d.errors import UsageError


class Brightest(nn.Module):
    """Names the row of pixels that is the brightest."""

    def forward(self, clip):
        return clip.sum((1, 2, 4))


def test_accuracy_counts_right_answers():
    labels = np.arange(250) % 4
    clips = np.zeros((250, 1, 2, 4, 4), np.float32)
    clips[np.arange(250), :, :, labels] = 1
    assert structures.accuracy(Brightest(), clips, labels) == 1
    assert structures.accuracy(Brightest(), clips, (labels + 1) % 4) == 0
    half = np.where(np.arange(250) < 125, labels, (labels + 1) % 4)
    assert structures.accuracy(Brightest(), clips, half) == 0.5


@pytest.mark.parametrize("labels", [0, 3])
def test_accuracy_of_nothing_is_refused(labels):
    with pytest.raises(UsageError, match="means nothing"):
        structures.accuracy(Brightest(), np.zeros((0, 1, 2, 4, 4), np.float32), np.zeros(labels))


def test_a_row_holds_what_was_measured():
    torch.manual_seed(0)
    (row,) = structures.measure(["r2plus1d"], calibration=8, test=40)
    assert row["layers_replaced"] == 4
    assert row["accuracy_original"] > 0.9
    assert row["accuracy_calibrated"] > 0.8
    assert row["output_error_calibrated"] <= row["output_error_data_free"]
    assert "r2plus1d" in structures.render([row])


def test_mistakes(tmp_path, capsys):
    assert structures.main(["--block", "p4d", "--out", str(tmp_path / "x.jsonl")]) == 2
    assert structures.main(["--calib", "0", "--out", str(tmp_path / "x.jsonl")]) == 2
    (tmp_path / "old.jsonl").write_text("{}")
    assert structures.main(["--out", str(tmp_path / "old.jsonl")]) == 2
    assert capsys.readouterr().err.count("error: ") == 3


def test_the_record(tmp_path, monkeypatch, capsys):
    kept = structures.measure
    monkeypatch.setattr(structures, "measure", lambda names, *_: kept(names, 4, 16))
    assert structures.main(["--block", "conv3d", "--out", str(tmp_path / "x.jsonl")]) == 0
    (line,) = (tmp_path / "x.jsonl").read_text().splitlines()
    assert json.loads(line)["structure"] == "conv3d"
    assert "conv3d" in capsys.readouterr().out
