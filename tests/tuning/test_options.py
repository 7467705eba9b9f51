"""`edge4d.tuning.options`: what is refused, recipes, and the words that the command line takes."""

from __future__ import annotations

import inspect

import pytest

from edge4d.cli.tune import command
from edge4d.errors import UsageError
from edge4d.tuning.options import TuneOptions, parse_duration, parse_kinds


@pytest.mark.parametrize("text", ["", "ten", "0", "5d", "-3m"])
def test_durations_that_are_none(text):
    with pytest.raises(UsageError, match="is no duration"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"vary": ("mirror", "rotate")}, "unknown variation 'rotate'"),
        ({"labelled": 0.0}, "labelled is 0.0, expected more than 0"),
        ({"seed": -1}, "seed is -1, expected at least 0"),
        ({"decay": -0.1}, "decay is -0.1, expected at least 0"),
        ({"epochs": 0.0}, "epochs is 0.0, expected more than 0"),
    ],
)
def test_options_that_cannot_be(settings, message):
    with pytest.raises(UsageError, match=message):
        TuneOptions(**settings)


def test_recipes():
    assert TuneOptions.of() == TuneOptions.of("match", batch=None) == TuneOptions()
    as_trained = TuneOptions.of("train", rate=1e-3, vary=None)
    assert (as_trained.norms, as_trained.batch, as_trained.vary, as_trained.rate) == ("train", 32, (), 1e-3)
    assert as_trained.weights.labels == 1
    assert not as_trained.weights.original
    assert TuneOptions.of("train", vary=("mirror",)).vary == ("mirror",)
    with pytest.raises(UsageError, match="recipe is 'best'"):
        TuneOptions.of("best")


def test_kinds():
    assert parse_kinds("none") == ()
    assert parse_kinds("mirror, turn") == ("mirror", "turn")
    defaults = {name: parameter.default for name, parameter in inspect.signature(command).parameters.items()}
    names = ("recipe", "batch", "rate", "norms", "trained", "amp", "patience", "vary", "accumulate", "workers", "seed")
    assert TuneOptions.of(**{name: defaults[name] for name in names}) == TuneOptions()


def test_durations():
    assert [parse_duration(text) for text in ("90", "90s", "10m", "1.5h")] == [90, 90, 600, 5400]
