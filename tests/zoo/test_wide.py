"""Transformers over clips, volumes, stereo and recurrent heads: exact at rank 4, or refused by the name expected."""

from __future__ import annotations

import pytest

from tests.zoo.coverage import run
from tests.zoo.test_graph_size import BOUNDS
from tests.zoo.wide import WIDE

pytestmark = pytest.mark.slow

WITHIN = 1e-5


ON_THE_PAGE_ONLY = {"swin3d_s", "mvit_v1_b", "mvit_v2_s", "swin_unetr"}
"""Half a minute each, with the operators that swin3d_t, mvit_base_16x4 and unetr have too."""


@pytest.mark.parametrize(
    "entry", [entry for entry in WIDE if entry.name not in ON_THE_PAGE_ONLY], ids=lambda entry: entry.name
)
def test_network_is_exact_or_refused_by_name(entry, tmp_path):
    bound = BOUNDS.get(entry.name)
    outcome = run(entry, tmp_path, native=bound is not None)
    if entry.refused:
        assert entry.refused in outcome.result
    else:
        assert outcome.result == "exact"
        assert outcome.error <= WITHIN
    if bound is not None:
        assert outcome.native is not None
        assert outcome.nodes <= bound * outcome.native


def test_every_bound_is_of_a_network_that_is_exported_here():
    exported = {entry.name for entry in WIDE if not entry.refused} - ON_THE_PAGE_ONLY
    assert set(BOUNDS) <= exported
