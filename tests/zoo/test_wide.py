"""Transformers over clips, volumes, stereo and recurrent heads: exact at rank 4, or refused by the name expected."""

from __future__ import annotations

import pytest

from tests.zoo.coverage import run
from tests.zoo.wide import WIDE

pytestmark = pytest.mark.slow

WITHIN = 1e-5


@pytest.mark.parametrize("entry", WIDE, ids=lambda entry: entry.name)
def test_network_is_exact_or_refused_by_name(entry, tmp_path):
    outcome = run(entry, tmp_path)
    if entry.refused:
        assert entry.refused in outcome.result
    else:
        assert outcome.result == "exact"
        assert outcome.error <= WITHIN
