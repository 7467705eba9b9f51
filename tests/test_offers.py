"""The table of formulations and runtimes: complete, without doubles, and what the planner reads off it."""

from __future__ import annotations

import itertools
from collections import Counter

from edge4d.lowering.conv.rules import FORMULATIONS
from edge4d.offers import AVOIDED, GENERAL_WITHOUT, MILDER, OFFERS, RUNTIMES


def test_each_formulation_is_in_one_row():
    listed = Counter(name for offer in OFFERS for name in offer.forms)
    assert set(listed) == set(FORMULATIONS)
    assert set(listed.values()) == {1}


def test_rows_name_runtimes_that_there_are():
    for offer in OFFERS:
        assert set(offer.to.split()) <= {"all", *RUNTIMES}, offer
        assert offer.why


def test_what_a_row_does_not_offer_is_left_out():
    for offer in OFFERS:
        for runtime, without in RUNTIMES.items():
            assert (runtime in offer.to.split()) == (not offer.forms & without)
        assert ("all" in offer.to.split()) == (not offer.forms & GENERAL_WITHOUT)


def test_every_runtime_is_left_with_a_formulation_for_any_layer():
    for without in (GENERAL_WITHOUT, *RUNTIMES.values()):
        assert {"taps", "padded", "phases"} <= set(FORMULATIONS) - without - MILDER[-1] - AVOIDED["int8"]


def test_milder_steps_leave_out_ever_more():
    for before, after in itertools.pairwise(MILDER):
        assert before < after
    assert MILDER[-1] <= set(FORMULATIONS)
