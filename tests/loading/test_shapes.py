"""Where the inputs come from, and what is said when they do not suit."""

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from edge4d.errors import UsageError
from edge4d.loading import Loaded, Source, infer_input_shapes, load_model, parse_shape, resolve_inputs
from edge4d.loading.shapes import format_shape
from tests.loading.nets import CLIP, Net, Two, clip, make_net, save_program

SOURCE = Source("model.pt", "0" * 64)


def loaded(module, kind="module"):
    return Loaded(kind, module, None, None, SOURCE)


@given(st.lists(st.integers(1, 2**31 - 1), min_size=1, max_size=8))
def test_parse_and_format_are_inverse(sizes):
    assert parse_shape(format_shape(sizes)) == tuple(sizes)


@pytest.mark.parametrize("text", ["1x3x16x112x112", "1X3X16x112x112", " 1 x 3 x 16 x 112 x 112 ", "1×3×16×112×112"])
def test_spellings_of_a_shape(text):
    assert parse_shape(text) == (1, 3, 16, 112, 112)


@pytest.mark.parametrize(
    "text", ["", "x", "1x", "1xx3", "1x3xT", "1,3,16", "1x0x3", "-1x3", "1.5x3", "٣x3", "9" * 5000, "1x99999999999"]
)
def test_nonsense_shapes(text):
    with pytest.raises(UsageError, match="expected positive sizes with x between them") as caught:
        parse_shape(text)
    assert "--input-shape 1x3x16x112x112" in caught.value.hint


def flat(channels, t, s):
    return nn.Sequential(nn.Conv3d(channels, 1, 1), nn.Flatten(), nn.Linear(t * s * s, 2))


@pytest.mark.parametrize(
    ("net", "shape"),
    [
        (lambda: Net(), (1, 3, 16, 112, 112)),
        (lambda: flat(3, 8, 224), (1, 3, 8, 224, 224)),
        (lambda: flat(1, 4, 182), (1, 1, 4, 182, 182)),
        (lambda: flat(2, 16, 64), (1, 2, 16, 64, 64)),
        (lambda: Net().half(), (1, 3, 16, 112, 112)),
        (lambda: nn.Sequential(nn.Conv3d(4, 4, 3, groups=2), nn.BatchNorm3d(4)), (1, 4, 16, 112, 112)),
    ],
)
def test_inferred(net, shape):
    assert infer_input_shapes(net()) == (shape,)


@pytest.mark.parametrize("how", ["script", "trace", "frozen"])
def test_inferred_from_torchscript(tmp_path, how):
    net = make_net()
    made = torch.jit.trace(net, clip()) if how == "trace" else torch.jit.script(net)
    (torch.jit.freeze(made) if how == "frozen" else made).save(tmp_path / "m.pt")
    assert infer_input_shapes(load_model(tmp_path / "m.pt").module) == ((1, 3, 16, 112, 112),)


def test_not_inferable():
    assert infer_input_shapes(nn.Conv2d(3, 4, 1)) is None
    assert infer_input_shapes(Two()) is None
    assert infer_input_shapes(flat(3, 5, 7)) is None
    with pytest.raises(UsageError, match="not in the file and could not be inferred") as caught:
        resolve_inputs(loaded(nn.Conv2d(3, 4, 1)), [])
    assert "--input-shape 1x3x16x112x112" in caught.value.hint


def test_the_module_is_not_changed():
    net = Net().train()
    before = copy.deepcopy(net.state_dict())
    assert infer_input_shapes(net) is not None
    assert net.training
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name]), name
        assert type(value) is torch.Tensor
    assert not any(hasattr(p, "fake_mode") for p in [*net.parameters(), *net.buffers()])


def test_resolve_infers_and_says_so():
    args, said = resolve_inputs(loaded(make_net()), [])
    assert said.startswith("inferred: 1x3x16x112x112")
    assert args[0].shape == (1, 3, 16, 112, 112)
    assert args[0].dtype == torch.float32


def test_resolve_from_the_option():
    args, said = resolve_inputs(loaded(make_net()), [CLIP])
    assert said == "from --input-shape"
    assert args[0].shape == CLIP
    assert 0.9 < args[0].std() < 1.1
    again, _ = resolve_inputs(loaded(make_net()), [CLIP])
    other, _ = resolve_inputs(loaded(make_net()), [CLIP], seed=1)
    assert torch.equal(args[0], again[0])
    assert not torch.equal(args[0], other[0])
    assert resolve_inputs(loaded(make_net().double()), [CLIP])[0][0].dtype == torch.float64


def test_resolve_several():
    args, _ = resolve_inputs(loaded(Two()), [CLIP, (2, 1, 4, 8, 8)])
    assert [tuple(a.shape) for a in args] == [CLIP, (2, 1, 4, 8, 8)]
    assert not torch.equal(args[0][:, :1], args[1])


@pytest.mark.parametrize("wrap", [lambda net: net, torch.jit.script])
def test_rejections(wrap):
    with pytest.raises(
        UsageError, match=r"the model takes 2 inputs \(clip, mask\), --input-shape was given 1 time"
    ) as e:
        resolve_inputs(loaded(wrap(Two())), [CLIP])
    assert "once per input, in the order" in e.value.hint
    with pytest.raises(UsageError, match=r"takes 2 inputs .* was given 3 time"):
        resolve_inputs(loaded(wrap(Two())), [CLIP] * 3)
    with pytest.raises(UsageError) as caught:
        resolve_inputs(loaded(wrap(Two())), [CLIP, CLIP])
    assert "the model rejects the input clip: 2x3x4x8x8, mask: 2x3x4x8x8: " in caught.value.message
    assert "to have 1 channels, but got 3 channels instead" in caught.value.message
    assert "Traceback" not in caught.value.message
    with pytest.raises(UsageError, match="the model rejects the input x: 3x16x112: "):
        resolve_inputs(loaded(wrap(make_net())), [(3, 16, 112)])


def test_a_module_that_looks_at_values_is_run_for_real():
    class Looks(nn.Module):
        def forward(self, x):
            if x.sum() > 0:
                return x
            return -x

    args, _ = resolve_inputs(loaded(Looks()), [CLIP])
    assert args[0].shape == CLIP


def test_archive_inputs_come_back_as_they_are(tmp_path):
    model = load_model(save_program(tmp_path / "m.pt2"))
    args, said = resolve_inputs(model, [])
    assert said == "from the archive"
    assert torch.equal(args[0], clip())
    args, said = resolve_inputs(model, [CLIP])
    assert said == "from --input-shape"
    assert not torch.equal(args[0], clip())


def test_archive_with_fixed_axes(tmp_path):
    model = load_model(save_program(tmp_path / "m.pt2"))
    with pytest.raises(UsageError) as caught:
        resolve_inputs(model, [(2, 3, 16, 8, 8)])
    assert caught.value.message == (
        "the archive says x: 2x3x4x8x8, --input-shape gave 2x3x16x8x8 (axis 2 is fixed at 4)"
    )
    assert "leave --input-shape out" in caught.value.hint
    with pytest.raises(UsageError, match=r"gave 3x4x8x8 \(5 axes against 4\)"):
        resolve_inputs(model, [(3, 4, 8, 8)])
    with pytest.raises(UsageError, match=r"takes 1 input \(x\), --input-shape was given 2 time"):
        resolve_inputs(model, [CLIP, CLIP])


def test_archive_with_dynamic_axes(tmp_path):
    shapes = {"x": {0: torch.export.Dim("batch", min=2, max=8)}}
    model = load_model(save_program(tmp_path / "m.pt2", dynamic_shapes=shapes))
    args, _ = resolve_inputs(model, [(5, 3, 4, 8, 8)])
    assert model.module(*args).shape == (5, 2)
    with pytest.raises(UsageError, match=r"the archive says x: \?x3x4x8x8, .* \(axis 0 must lie in 2…8\)"):
        resolve_inputs(model, [(9, 3, 4, 8, 8)])


def test_archive_keeps_its_element_types(tmp_path):
    class Lookup(nn.Module):
        def __init__(self):
            super().__init__()
            self.table = nn.Embedding(4, 3)

        def forward(self, x: torch.Tensor, which: torch.Tensor) -> torch.Tensor:
            return x * self.table(which).mean()

    program = torch.export.export(Lookup(), (clip().double(), torch.tensor([1, 2])))
    torch.export.save(program, str(tmp_path / "m.pt2"))
    args, _ = resolve_inputs(load_model(tmp_path / "m.pt2"), [CLIP, (2,)])
    assert [a.dtype for a in args] == [torch.float64, torch.int64]


def test_nested_archive_inputs_cannot_be_described(tmp_path):
    class First(nn.Module):
        def forward(self, xs):
            return xs[0] * 2

    torch.export.save(torch.export.export(First(), ([clip()],)), str(tmp_path / "m.pt2"))
    model = load_model(tmp_path / "m.pt2")
    assert torch.equal(resolve_inputs(model, [])[0][0][0], clip())
    with pytest.raises(UsageError, match="inputs are nested"):
        resolve_inputs(model, [CLIP])


def test_no_module_and_no_inputs():
    with pytest.raises(UsageError, match="no example inputs"):
        resolve_inputs(loaded(None), [])
