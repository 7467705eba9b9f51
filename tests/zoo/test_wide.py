"""Transformers over clips, volumes, stereo and recurrent heads: exact at rank 4, or refused by the name expected."""

from __future__ import annotations

import pytest

from tests.zoo.coverage import run
from tests.zoo.wide import WIDE

pytestmark = pytest.mark.slow

WITHIN = 1e-5


ON_THE_PAGE_ONLY = {"swin3d_s", "mvit_v1_b", "mvit_v2_s", "swin_unetr"}
"""Half a minute each, with the operators that swin3d_t, mvit_base_16x4 and unetr have too."""


@pytest.mark.parametrize(
    "entry", [entry for entry in WIDE if entry.name not in ON_THE_PAGE_ONLY], ids=lambda entry: entry.name
)
def test_network_is_exact_or_refused_by_name(entry, tmp_path):
    outcome = run(entry, tmp_path)
    if entry.refused:
        assert entry.refused in outcome.result
    else:
        assert outcome.result == "exact"
        assert outcome.error <= WITHIN
