"""`benchmarks.accuracy.tune_budget`: what is recorded of a run, the targets it is held against, what a rerun skips."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import torch
from torch import nn

import edge4d.errors
from benchmarks.accuracy import tune_budget, tune_table
from benchmarks.accuracy.small_r3d import SmallR3d, as_clips
from benchmarks.structures import accuracy


def case_like(seed=0, count=24):
    """A network of one Conv3d, and clips with the labels that it gives."""
    torch.manual_seed(seed)
    network = nn.Sequential(
        nn.Conv3d(1, 6, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(6, 3)
    ).eval()
    clips = np.random.default_rng(seed).standard_normal((count, 1, 4, 6, 6)).astype(np.float32)
    with torch.no_grad():
        network[4].bias -= network(torch.from_numpy(clips)).mean(0)  # so that all three are named
        labels = network(torch.from_numpy(clips)).argmax(1).numpy()
    half = count // 2
    return tune_budget.Case(network, clips[:half].repeat(2, 0), labels[:half].repeat(2), clips[half:], labels[half:])


@pytest.mark.parametrize("labels", [False, True])
def test_a_run_is_recorded_with_its_curve(tmp_path, labels):
    case, said = case_like(), []
    found = tune_budget.tune_one(
        case, "p3d-a", labels=labels, recipe="match", minutes=0.1, folder=tmp_path, seed=0, told=said.append
    )
    assert set(found) == {"top1", "top1_int8", "curve", "steps", "ended", "seconds"}
    assert found["curve"][0]["step"] == 0
    assert [point["seconds"] for point in found["curve"]] == sorted(point["seconds"] for point in found["curve"])
    assert len(found["curve"]) >= 3
    assert found["curve"][-1] == {**found["curve"][-1], "step": found["steps"], "top1": found["top1"]}
    tuned = torch.export.load(tmp_path / f"p3d-a-{'labels' if labels else 'clips'}.pt2").module()
    right = [
        int(tuned(torch.from_numpy(c[None])).argmax()) == v for c, v in zip(case.test, case.test_labels, strict=True)
    ]
    assert found["top1"] == pytest.approx(np.mean(right))
    assert said[-1].startswith(f"top-1 {found['top1']:.2%} of the test clips after {found['steps']} steps")
    assert len(said) == len(found["curve"])


def row(block="p3d-a", labels=False, original=0.90, tuned=0.895, int8=0.89, minutes=10.0):
    return {
        "case": "moving-digits", "block": block, "labels": labels, "minutes": minutes, "clips": 2000, "threads": 2,
        "seed": 0, "test_clips": 800,
        "top1_original": original, "top1": tuned, "top1_int8": int8, "steps": 9, "ended": "all steps done",
        "seconds": 90.0,
        "curve": [{"seconds": 1.0, "step": 0, "top1": 0.5}, {"seconds": 90.0, "step": 9, "top1": tuned}],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (row(), []),
        (row(tuned=0.89, int8=0.885), []),
        (row(tuned=0.8875), ["1.25 points below the original, at most 1"]),
        (row(int8=0.8725), ["int8 2.75 points below it, at most 1.5"]),
        (row("proposed-add", tuned=0.895), []),
        (row("proposed-add", labels=True), ["0.50 points below the original, at most 0"]),
        (row("proposed-cat", labels=True, tuned=0.90), []),
        (row("rank-1", labels=True), []),
    ],
)
def test_targets(given, said):
    assert tune_table.verdicts(given) == said


def test_the_table_and_the_plot(tmp_path):
    rows = [row(), row("proposed-add", labels=True)]  # the table has the order of the structures
    assert tune_table.render(rows).splitlines()[2:] == [
        "| moving-digits | Proposed-Add | 2,000 with labels | 800 | 90.00 | 50.00 | 89.50 | 89.00 | 1.5 | 9 | all "
        "steps done | 0.50 points below the original, at most 0 |",
        "| moving-digits | P3D-A | 2,000 | 800 | 90.00 | 50.00 | 89.50 | 89.00 | 1.5 | 9 | all steps done | met |",
    ]
    assert "| 2,000 with labels, `train` |" in tune_table.render([row(labels=True) | {"recipe": "train"}])
    tune_table.plot(rows, tmp_path / "curve.svg")
    drawn = (tmp_path / "curve.svg").read_text()
    assert drawn.startswith("<?xml")


def test_the_conditions():
    assert tune_table.conditions([row(), row("proposed-add", labels=True, minutes=5.0)]) == (
        "1 of 2 runs reach their target. CPU threads: 2. Minutes of budget: moving-digits 5/10. "
        "Test clips: 800; seeds 0."
    )


def test_the_page_shows_the_record():
    page = (tune_budget.ROOT / "docs" / "tuning.md").read_text(encoding="utf-8")
    (name,) = re.findall(r"Log: `(benchmarks/results/tune-\S+\.jsonl)`", page)
    rows = [json.loads(line) for line in (tune_budget.ROOT / name).read_text(encoding="utf-8").splitlines()]
    shown = page.partition("<!-- tune-budget -->")[2].partition("<!-- /tune-budget -->")[0].strip()
    assert shown == f"{tune_table.render(rows)}\n\n{tune_table.conditions(rows)}"


def command(tmp_path, *more):
    words = ["--out", str(tmp_path / "log.jsonl"), "--cases", "moving-digits", "--block", "p3d-a", "--clips", "2000"]
    return tune_budget.main([*words, "--folder", str(tmp_path), *more])


def test_a_rerun_skips_what_the_log_holds(tmp_path, monkeypatch, capsys):
    asked = []

    def tune_one(case, block, *, labels, recipe, **_):
        asked.append((block, labels) if recipe == "match" else recipe)
        return {name: row()[name] for name in ("top1", "top1_int8", "curve", "steps", "ended", "seconds")}

    case = case_like()
    monkeypatch.setattr(tune_budget, "tune_one", tune_one)
    monkeypatch.setattr(tune_budget, "case_of", lambda *_: case)
    assert command(tmp_path, "--labels", "no") == 1  # 89.5 % of an original that is always right
    assert command(tmp_path) == 1
    assert command(tmp_path) == 1
    assert asked == [("p3d-a", False), ("p3d-a", True)]
    assert command(tmp_path, "--minutes", "5", "--plot", str(tmp_path / "curve.png")) == 1
    assert len(asked) == 4
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [r["minutes"] for r in rows] == [10, 10, 5, 5]
    assert command(tmp_path, "--labels", "yes", "--recipe", "train") == 1
    assert asked[4:] == ["train"]
    assert {r["top1_original"] for r in rows} == {accuracy(case.network, case.test, case.test_labels)} == {1.0}
    assert "P3D-A" in capsys.readouterr().out


def test_as_many_test_clips_as_asked_for(tmp_path, monkeypatch):
    opened = []

    def case_of(name, count, judges, folder):
        opened.append((name, count, judges))
        return case_like()

    found = {name: row()[name] for name in ("top1", "top1_int8", "curve", "steps", "ended", "seconds")}
    monkeypatch.setattr(tune_budget, "tune_one", lambda *_, **__: found)
    monkeypatch.setattr(tune_budget, "case_of", case_of)
    for more in ([], ["--test-clips", "8000"], ["--test-clips", "8000"]):  # another number is another run
        command(tmp_path, "--labels", "no", *more)
    assert opened == [("moving-digits", 2000, 800), ("moving-digits", 2000, 8000)]
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [r["test_clips"] for r in rows] == [800, 8000]


def test_the_clips_of_a_case(tmp_path):
    case = tune_budget.case_of("moving-digits", 20, 30, tmp_path)
    assert (case.clips.shape, case.test.shape) == ((20, 1, 16, 32, 32), (30, 1, 16, 32, 32))
    assert (len(case.labels), len(case.test_labels)) == (20, 30)


def test_an_original_that_has_learned_nothing_is_refused(tmp_path, monkeypatch, capsys):
    case = case_like()
    wrong = tune_budget.Case(case.network, case.clips, case.labels, case.test, (case.test_labels + 1) % 3)
    monkeypatch.setattr(tune_budget, "case_of", lambda *_: wrong)
    assert command(tmp_path) == 2
    assert "right on 0.0% of the test clips, expected 70%" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words", [("--minutes", "0"), ("--threads", "0"), ("--test-clips", "0"), ("--plot", "curve.txt")]
)
def test_wrong_options_are_refused(tmp_path, words):
    assert command(tmp_path, *words) == 2


def test_the_small_r3d_takes_the_hard_digits():
    network = SmallR3d()
    assert sum(isinstance(m, nn.Conv3d) and m.kernel_size == (3, 3, 3) for m in network.modules()) == 12
    assert network(as_clips(np.full((2, 8, 64, 64), 255, np.uint8))).shape == (2, 24)
    assert float(as_clips(np.full((1, 8, 64, 64), 255, np.uint8)).max()) == 1.0
    with pytest.raises(edge4d.errors.UsageError, match="clips"):
        accuracy(network, np.zeros((0, 1, 8, 64, 64), np.float32), np.zeros(0, np.int64))
