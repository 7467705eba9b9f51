"""The fit of the cost model, and the table of errors."""

from __future__ import annotations

import numpy as np
import torch

from benchmarks.calibrate import LAYERS, fit, main, spec_of
from benchmarks.numerics import errors
from edge4d.lowering.conv.cost import WORK
from edge4d.lowering.conv.rates import GENERAL, RATES
from edge4d.offers import RUNTIMES
from edge4d.planning import costs


def test_rates_that_made_the_times_are_found():
    generator = np.random.default_rng(0)
    work = generator.uniform(1e3, 1e6, (40, len(WORK)))
    rates = generator.uniform(0.1, 2.0, len(WORK))
    np.testing.assert_allclose(fit(work, work @ rates / 1e6), rates, rtol=1e-6)


def test_no_rate_is_negative():
    work = np.array([[1.0, 1.0], [1.0, 2.0], [2.0, 1.0]]) * 1e6
    rates = fit(work, np.array([3.0, 2.0, 7.0]))  # the second kind would have to take time away
    assert rates.min() >= 0
    assert rates[0] > 0


def test_every_kind_of_work_occurs_in_the_layers():
    work = np.array([cost.work for layer in LAYERS for cost in costs(spec_of(*layer)).values()])
    assert (work.max(0) > 0).all()


def test_rates_are_those_of_runtimes_that_can_be_asked_for():
    assert set(RATES) <= set(RUNTIMES)
    for rates in (GENERAL, *RATES.values()):
        assert min(vars(rates).values()) >= 0


def test_a_runtime_that_is_not_there(capsys):
    assert main(["toaster"]) == 2
    assert "toaster" in capsys.readouterr().err


def test_errors_grow_from_taps_to_winograd_and_from_float32_to_float16():
    torch.manual_seed(0)
    found = errors(torch.nn.Conv3d(8, 8, 3, padding=1).eval(), torch.randn(1, 8, 8, 10, 10))
    assert found["taps"][0] < found["winograd-4"][0]
    assert all(single < half for single, half in found.values())
    assert "temporal" not in found
