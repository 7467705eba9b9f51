"""docs/operators.md names every operator of ATen and says of each what edge4d does today."""

from __future__ import annotations

import torch

from edge4d.lowering import registry
from tests.lowering.operators import PAGE, functional, page, way


def test_the_page_is_what_the_registry_and_torchs_own_list_say():
    assert PAGE.read_text(encoding="utf-8") == page(), "run `python -m tests.lowering.operators`"


def test_a_rule_that_is_lost_shows(monkeypatch):
    monkeypatch.delitem(registry._RULES, torch.ops.aten.topk.default)
    assert way(torch.ops.aten.topk.default, set()) == "refused"
    assert "| `topk` | refused | default |" in page()


def test_the_list_is_long_and_leaves_out_what_writes():
    names = {str(op) for op in functional()}
    assert len(names) > 1000
    assert {"aten.conv3d.default", "aten.relu.default"} < names
    assert "aten.relu_.default" not in names
