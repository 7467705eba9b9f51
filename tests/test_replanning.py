"""`--max-error`: a plan that strays too far from eager PyTorch is made again with milder formulations, and says so."""

from __future__ import annotations

import pytest
import torch

import edge4d
from edge4d import replanning
from edge4d.errors import UsageError
from edge4d.lowered import lower
from edge4d.offers import MILDER
from edge4d.planning import Planner
from edge4d.replanning import error_of, lower_within
from edge4d.subject import Subject
from tests.lowering.harness import randomise
from tests.test_planning import CLIP, Net


@pytest.fixture
def subject():
    return Subject.of(randomise(Net()).eval(), (CLIP,))


def ways(lowered):
    return {layer.becomes for layer in lowered.layers if layer.macs}


def lowering(subject):
    return lambda planner: lower(subject.model, subject.args, subject.kwargs, planner=planner)


def test_the_error_is_that_of_a_plain_comparison(subject):
    lowered = lowering(subject)(Planner())
    found = error_of(subject, lowered, 3)
    clip = torch.from_numpy(next(iter(edge4d.validators.parity.random_inputs(lowered.inputs, seed=3).values())))
    with torch.no_grad():
        wanted, got = subject.model(clip), lowered.unpack(lowered.module(*lowered.pack(clip)))
    assert found == pytest.approx(float((got.double() - wanted.double()).abs().max() / (wanted.max() - wanted.min())))


def test_a_wrong_network_has_a_large_error(subject):
    lowered = lowering(subject)(Planner())
    with torch.no_grad():
        next(iter(lowered.module.parameters())).mul_(1.5)
    assert error_of(subject, lowered, 0) > 1e-3


def test_a_plan_within_the_limit_stays(subject):
    lowered, planner = lower_within(subject, Planner(), 1e-5, 0, lowering(subject))
    assert (planner.mild, subject.notes) == (0, [])
    assert "winograd-4" in ways(lowered)


def test_a_plan_beyond_the_limit_becomes_milder_and_says_so(subject):
    strong = error_of(subject, lowering(subject)(Planner()), 0)
    mildest = error_of(subject, lowering(subject)(Planner(mild=len(MILDER) - 1)), 0)
    assert mildest < strong
    lowered, planner = lower_within(subject, Planner(), (strong + mildest) / 2, 0, lowering(subject))
    assert planner.mild > 0
    assert not ways(lowered) & MILDER[planner.mild]
    (note,) = subject.notes
    assert "planned again without" in note


def test_what_cannot_be_reached_is_said(subject):
    _, planner = lower_within(subject, Planner(), 1e-12, 0, lowering(subject))
    assert planner.mild == len(MILDER) - 1
    assert "it still strays by" in subject.notes[0]


def test_what_a_milder_plan_does_not_mend_costs_no_speed(subject, monkeypatch):
    found = iter([3e-5, 2.9e-5, 2.8e-5])
    monkeypatch.setattr(replanning, "error_of", lambda *_: next(found))
    lowered, planner = lower_within(subject, Planner(), 1e-5, 0, lowering(subject))
    assert planner.mild == 0
    assert ways(lowered) & MILDER[2]
    assert "the fastest plan stands" in subject.notes[0]


def test_export_takes_the_limit(tmp_path):
    report = edge4d.export(randomise(Net()).eval(), (CLIP,), output=tmp_path / "net.onnx", max_error=1e-9)
    assert any("planned again" in note for note in report.notes)
    with pytest.raises(UsageError, match="no network stays within an error of 0"):
        edge4d.export(Net(), (CLIP,), output=tmp_path / "other.onnx", max_error=0)


def test_a_step_that_leaves_out_nothing_of_the_plan_is_not_lowered_again(subject, monkeypatch):
    monkeypatch.setattr(replanning, "error_of", lambda *_: 1.0)
    lowers, own = [], lowering(subject)

    def lower(planner):
        lowers.append(planner.mild)
        return own(planner)

    lower_within(subject, Planner(), 1e-5, 0, lower)
    assert 1 not in lowers  # a plan for all runtimes has no rows
    assert lowers[-1] == len(MILDER) - 1
