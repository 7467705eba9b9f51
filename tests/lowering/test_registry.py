"""The lowering refuses loudly: unread arguments, duplicate rules, leaked ranks, operators without a rule."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

import edge4d
from edge4d.errors import CaptureError, InternalError, LoweringError, PackingError, UsageError
from edge4d.lowered import lower, plan
from edge4d.lowering import registry
from edge4d.lowering.assembling import prove
from edge4d.lowering.builder import Builder
from edge4d.lowering.registry import Decline, lowers, register_rule
from tests.lowering.harness import Fn, lowered_equals_eager

aten = torch.ops.aten


@dataclass(frozen=True)
class _Spec:
    x: Any


class _Forgetful:
    """Looks at its input only."""

    def check(self, site):
        return _Spec(site.take("self"))

    def rewrite(self, b, spec):
        return spec.x


class _WrongShape(_Forgetful):
    def check(self, site):
        site.take_all()
        return _Spec(site.arguments["self"])


@pytest.fixture
def spare_op():
    """An overload without a rule of ours, freed again afterwards."""
    op = aten.diag_embed.default
    assert registry.find(op) is None
    yield op
    registry._RULES.pop(op, None)


def test_an_argument_that_a_rule_ignores_is_our_bug(spare_op):
    register_rule(spare_op, _Forgetful())
    with pytest.raises(InternalError, match=r"_Forgetful .*ignores its arguments \['offset', 'dim1', 'dim2'\]"):
        lower(Fn(lambda x: torch.diag_embed(x, 1)), (torch.zeros(2, 3),))


def test_a_result_of_the_wrong_shape_is_our_bug(spare_op):
    register_rule(spare_op, _WrongShape())
    with pytest.raises(InternalError, match=r"got \(2, 3\) torch.float32, expected \(2, 3, 3\)"):
        lower(Fn(torch.diag_embed), (torch.zeros(2, 3),))


def test_a_second_rule_for_an_overload_is_refused():
    with pytest.raises(InternalError, match="two rules"):
        lowers(aten.conv3d.default)(_Forgetful)


def test_register_rule_wants_an_overload_and_both_methods():
    with pytest.raises(UsageError, match="needs an operator overload"):
        register_rule(torch.ops.aten.relu, _Forgetful())  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"no method check\(\)"):
        register_rule(aten.relu.default, object())  # type: ignore[arg-type]


def test_a_users_rule_serves_their_operator(spare_op):
    class DiagonalByMask:
        def check(self, site):
            if (site.take("offset"), site.take("dim1"), site.take("dim2")) != (0, -2, -1):
                return Decline("only the main diagonal", "use offset=0")
            return _Spec(site.take("self"))

        def rewrite(self, b, spec):
            eye = registry_eye(spec.x.shape[-1], spec.x.dtype)
            return b.lower(aten.mul.Tensor, b.lower(aten.unsqueeze.default, spec.x, -1), eye)

    from edge4d.lowering.values import Const

    def registry_eye(size, dtype):
        return Const(torch.eye(size, dtype=dtype), "eye")

    edge4d.register_rule(spare_op, DiagonalByMask())
    lowered_equals_eager(Fn(torch.diag_embed), torch.randn(2, 2, 3, 4, 5))
    with pytest.raises(LoweringError, match="only the main diagonal; use offset=0"):
        lower(Fn(lambda x: torch.diag_embed(x, 1)), (torch.zeros(2, 3),))


def test_every_operator_without_a_rule_is_named_with_layer_line_reason_and_way_out():
    class Odd(nn.Module):
        def forward(self, x):
            return torch.histc(x, 4) + torch.histc(x * 2, 4)

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.odd = nn.Conv3d(1, 2, 3), Odd()

        def forward(self, x):
            return self.odd(self.conv(x))

    with pytest.raises(LoweringError) as caught:
        lower(Net(), (torch.randn(1, 1, 4, 5, 5),))
    text = str(caught.value)
    assert "2 operators have no way to rank 4" in text
    assert text.count("aten.histc.default at layer 'odd'") == 1
    assert "(2 times)\n  3 of the model's 5 operators (60.0 %) have one" in text
    assert "tests/lowering/test_registry.py:" in text
    assert "no rule for this operator" in text
    assert "edge4d.register_rule" in text
    assert caught.value.exit_code == 1
    layers = plan(Net(), (torch.randn(1, 1, 4, 5, 5),))
    assert [layer.becomes is None for layer in layers if layer.op == "aten.conv3d.default"] == [False]
    assert sum(layer.becomes is None for layer in layers) == 2


def test_a_result_that_a_rule_leaves_out_is_refused_where_it_is_used():
    class FirstAlone:
        def check(self, site):
            assert (site.take("dim"), site.take("keepdim")) == (2, True)
            return _Spec(site.take("self"))

        def rewrite(self, b, spec):  # right where all values are one
            return [b.lower(aten.amax.default, spec.x, [2], True), None]

    op = aten.mode.default
    assert registry.find(op) is None
    register_rule(op, FirstAlone())
    try:
        lowered_equals_eager(Fn(lambda x: torch.mode(x, 2, True)[0]), torch.ones(1, 2, 4, 4, 4))
        with pytest.raises(LoweringError, match=r"result 1 of aten\.mode\.default is used"):
            lower(Fn(lambda x: tuple(torch.mode(x, 2, True))), (torch.ones(1, 2, 4, 4, 4),))
    finally:
        registry._RULES.pop(op, None)


def test_random_dropout_is_refused():
    with pytest.raises(LoweringError, match=r"draws random numbers|dropout in training mode is random"):
        lower(Fn(lambda x: torch.nn.functional.dropout3d(x, 0.5, training=True)), (torch.randn(1, 2, 4, 4, 4),))


def test_data_dependent_control_flow_is_a_capture_error_with_its_line(capsys):
    def branch(x):
        print("kept", file=sys.stderr)
        return x * 2 if x.sum() > 0 else x

    with pytest.raises(CaptureError) as caught:
        lower(Fn(branch), (torch.randn(1, 2, 4, 4, 4),))
    said = caught.value.message
    assert "Fn decides by the values of its input (data-dependent control flow) in `return x * 2 if x.sum() > 0" in said
    assert "(tests/lowering/test_registry.py:" in said
    assert "torch.where" in caught.value.hint
    assert set(capsys.readouterr().err.split()) == {"kept"}  # what the model prints; not the graph that torch prints


def test_an_error_of_the_model_itself_has_its_line():
    def failing(x):
        return x.view(7, 11)

    with pytest.raises(CaptureError, match=r"in `return x.view\(7, 11\)` \(tests/lowering/test_registry.py:\d+\)"):
        lower(Fn(failing), (torch.randn(1, 2, 4, 4, 4),))


def test_wrong_input_shape_is_a_capture_error_with_the_shape():
    with pytest.raises(CaptureError, match="1x3x4x5x5"):
        lower(nn.Conv3d(1, 2, 3), (torch.zeros(1, 3, 4, 5, 5),))


def test_state_that_changes_while_the_model_runs_is_refused():
    class Counting(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("seen", torch.zeros(1))

        def forward(self, x):
            self.seen.add_(1)
            return x + self.seen

    with pytest.raises(CaptureError, match="changes 'seen' while it runs"):
        lower(Counting(), (torch.zeros(1, 1, 2, 2, 2),))


def test_packing_another_shape_is_refused():
    lowered = lower(nn.Conv3d(1, 2, 3), (torch.zeros(1, 1, 4, 5, 5),))
    with pytest.raises(PackingError, match=r"expects \(1, 1, 4, 5, 5\)"):
        lowered.pack(torch.zeros(1, 1, 8, 5, 5))
    with pytest.raises(PackingError, match="got 2 tensors"):
        lowered.pack(torch.zeros(1, 1, 4, 5, 5), torch.zeros(1))


def test_nothing_above_rank_four_can_be_emitted():
    b = Builder(FakeTensorMode())
    x = b.placeholder("x", (2, 3, 4, 5), torch.float32)
    with pytest.raises(InternalError, match="rank 5"):
        b.emit(aten.reshape.default, x, [1, 2, 3, 4, 5])


def test_the_postcondition_looks_at_the_result():
    graph = torch.fx.Graph()
    x = graph.placeholder("x")
    x.meta["val"] = torch.zeros(1, 1, 2, 2, 2)
    graph.output(x)
    with pytest.raises(InternalError, match="rank 5 after lowering"):
        prove(torch.fx.GraphModule(nn.Module(), graph))

    graph = torch.fx.Graph()
    x = graph.placeholder("x")
    x.meta["val"] = torch.zeros(1, 2, 2, 2)
    graph.output(graph.call_function(aten.max_pool3d.default, (x, [1])))
    with pytest.raises(InternalError, match="an operator on three axes"):
        prove(torch.fx.GraphModule(nn.Module(), graph))


def test_every_convolution_pool_norm_and_pad_overload_has_a_rule_or_a_reason():
    # The dispatcher's own list: `dir(torch.ops.aten)` names only what something has touched before.
    families = ("conv", "pool", "norm", "pad", "upsample")
    without = set()
    for qualified in torch._C._dispatch_get_all_op_names():
        namespace, _, spelling = qualified.partition("::")
        name, _, overload = spelling.partition(".")
        if namespace != "aten" or "out" in overload or not any(family in name for family in families):
            continue
        op = getattr(getattr(aten, name), overload or "default")
        if op._schema.is_mutable or any(mark in name for mark in NOT_IN_INFERENCE) or registry.find(op) is not None:
            continue
        without.add(str(op))
    assert len(without) > 50
    unexplained = {op for op in without if not any(op.removeprefix("aten.").startswith(known) for known in EXPLAINED)}
    assert sorted(unexplained) == []


NOT_IN_INFERENCE = ("backward", "cudnn_conv", "miopen", "mkldnn", "mps", "slow_conv", "thnn", "xnnpack", "quantized")
EXPLAINED = {
    "_adaptive_avg_pool": "backends' own; the public spelling has a rule or is captured instead",
    "_batch_norm": "training, or a backend's choice of kernel",
    "_conv_depthwise2d": "CUDA's own kernel, never captured",
    "_convolution.deprecated": "only old TorchScript writes it; its replacement has a rule",
    "_convolution_mode": "captured as conv.padding",
    "_convert_indices": "sparse tensors",
    "_convert_weight": "packs weights for one kernel",
    "_foreach_norm": "lists of optimiser state",
    "_fused_rms_norm": "a backend's choice of kernel",
    "_jagged": "ragged tensors",
    "_native_batch_norm_legit": "training; inference is _native_batch_norm_legit_no_training",
    "_nested": "ragged tensors have no static shape",
    "_nnpack_spatial_convolution": "a backend's choice of kernel",
    "_pad_enum": "captured as pad",
    "_pack_padded_sequence": "ragged sequences",
    "_pad_packed_sequence": "ragged sequences",
    "_padded_dense": "ragged tensors",
    "_philox_normal": "random",
    "_sparse": "sparse tensors",
    "_test": "torch's own tests",
    "_upsample_lanczos": "antialiasing resizes",
    "_weight_norm": "computed at lowering time, from constants",
    "adaptive_max_pool1d_with": "indices",
    "batch_norm_": "training across devices",
    "conv_depthwise3d": "CUDA's own kernel, never captured",
    "conv_tbc": "a layout of its own, not written by 3-D networks",
    "convolution_overrideable": "for backends outside torch",
    "cosine_": "a decomposition",
    "cudnn": "a backend's choice of kernel",
    "embedding_renorm": "changes its weights while it runs",
    "fractional_max_pool": "random windows",
    "fused": "a backend's choice of kernel",
    "frobenius_norm": "decomposed to linalg_vector_norm",
    "linalg": "decomposed, or refused by name",
    "log_normal": "random",
    "lp_pool": "decomposed",
    "max_unpool": "needs the indices of a max pool, refused by name",
    "native_batch_norm": "has a rule",
    "native_channel_shuffle": "decomposed",
    "native_group_norm": "decomposed; group_norm itself has a rule",
    "native_layer_norm": "decomposed; layer_norm itself has a rule",
    "native_norm": "a reduction of sparse tensors",
    "norm": "decomposed to linalg_vector_norm",
    "norm_except_dim": "computed at lowering time, from constants",
    "nuclear_norm": "decomposed, or refused by name",
    "pad_sequence": "ragged sequences",
    "renorm": "refused by name",
    "segment": "ragged",
    "sparse": "sparse tensors",
    "is_": "a question, not a tensor",
    "nested": "ragged tensors have no static shape",
    "normal": "random",
    "sspaddmm": "sparse tensors",
    "to_padded_tensor": "ragged tensors",
}
