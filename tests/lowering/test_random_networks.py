"""Random networks in float64, 5-D against rank 4: the same numbers, or a refusal by name; never a silent wrong one."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from edge4d.errors import LoweringError
from edge4d.lowered import lower
from tests.lowering.harness import assert_close
from tests.lowering.random_networks import random_network

WITHIN = 1e-9
"""Of each output's range, in float64; steps such as a mean of nearly equal numbers leave few digits."""


def survey(seeds) -> Counter:
    """Lower each network and compare; counts what was exact, what was refused, and what it was made of."""
    counts: Counter = Counter()
    for seed in seeds:
        network, clip = random_network(seed)
        with torch.no_grad():
            expected = network(clip)
        try:
            lowered = lower(network, (clip,))
        except LoweringError as error:
            counts["refused"] += 1
            counts[f"refused: {error.message.splitlines()[1][:100]}"] += 1
            continue
        except Exception as error:
            raise AssertionError(f"seed {seed}: {error}\n{network.described()}") from error
        with torch.no_grad():
            got = lowered.unpack(lowered.module(*lowered.pack(clip)))
        try:
            assert_close(got, expected, WITHIN)
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {error}\n{network.described()}") from error
        counts["exact"] += 1
        counts.update(step.name.split()[0] for step in network.steps)
    return counts


def test_random_networks():
    counts = survey(range(30))
    assert counts["refused"] <= 0.02 * counts["exact"], counts


@pytest.mark.slow
@pytest.mark.parametrize("start", range(100, 300, 100))
def test_hundreds_of_random_networks(start):
    counts = survey(range(start, start + 100))
    assert counts["refused"] <= 0.02 * counts["exact"], counts


def test_a_wrong_number_would_be_noticed(monkeypatch):
    """Data that stay where they were when their order should have changed."""
    monkeypatch.setattr("edge4d.lowering.builder.plan_repack", lambda sizes, source, target: ())
    with pytest.raises(AssertionError, match=r"seed .*: off by"):
        survey(range(10))
