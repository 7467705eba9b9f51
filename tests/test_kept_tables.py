"""The kept tables are those that torch would make now."""

from __future__ import annotations

import pytest
import torch
from torch.export import decomp_utils, exported_program
from torch.onnx._internal.exporter._registration import ONNXRegistry

from tests.kept_tables import fresh_composites, fresh_registry


def functions(registry):
    return {target: [one.onnx_function for one in found] for target, found in registry.functions.items()}


@pytest.mark.parametrize("opset", [18, 23])
def test_a_kept_registry_is_a_fresh_one(opset):
    kept, fresh = ONNXRegistry.from_torchlib(opset_version=opset), fresh_registry(opset_version=opset)
    assert ONNXRegistry.from_torchlib != fresh_registry
    assert functions(kept) == functions(fresh)
    assert kept.opset_version == fresh.opset_version == opset
    assert len(kept.functions) > 400


def test_what_is_registered_in_one_is_not_in_the_next():
    first = ONNXRegistry.from_torchlib()
    op = torch.ops.aten.conv3d.default
    first.register_op(op, lambda x: x)
    assert len(first.get_decomps(op)) == len(ONNXRegistry.from_torchlib().get_decomps(op)) + 1


@pytest.mark.parametrize("module", [decomp_utils, exported_program])
def test_kept_operators_are_those_of_now(module):
    kept = module._collect_all_valid_cia_ops
    assert kept != fresh_composites
    before = set(kept())
    assert before == fresh_composites()
    assert len(before) > 400
    with torch.library._scoped_library(f"later_{module.__name__.rpartition('.')[2]}", "DEF") as library:
        library.define("twice(Tensor x) -> Tensor")
        library.impl("twice", lambda x: x + x, "CompositeImplicitAutograd")
        (added,) = set(kept()) - before
        assert added.name().endswith("::twice")
        assert set(kept()) == fresh_composites()
