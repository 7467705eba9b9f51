"""What cannot be captured is refused by the name of the operator or layer, with a way out; so is what has no rule."""

import warnings

import pytest
import torch
from torch import nn

import edge4d
from edge4d.errors import CaptureError, LoweringError
from tests.lowering.harness import Fn, lowered_equals_eager

CLIP = torch.randn(1, 2, 3, 5, 4, generator=torch.Generator().manual_seed(0))

REFUSED = {
    "lstsq": (lambda x: torch.linalg.lstsq(x, x[..., :1]).solution, "aten.linalg_lstsq.default", "pass its result in"),
    "complex": (lambda x: torch.polar(x.abs(), x).real, "complex numbers", "two tensors"),
    "fake quantization": (
        lambda x: torch.fake_quantize_per_tensor_affine(x, 0.1, 3, 0, 255),
        "imitates quantization",
        "--precision int8",
    ),
    "quantized tensors": (
        lambda x: torch.quantize_per_tensor(x, 0.1, 3, torch.quint8).dequantize(),
        "works on quantized tensors",
        "--precision int8",
    ),
    "strides": (lambda x: x.as_strided((2, 3), (1, 1)), "memory in an order of its own", "use slices"),
    "random numbers": (lambda x: x + torch.randn_like(x), "draws random numbers", "model.eval()"),
    "a number read": (lambda x: x * x.mean().item(), "a number is read from a tensor", "leave .item() out"),
    "control flow": (
        lambda x: torch.cond(x.sum() > 0, lambda y: y + 1, lambda y: y - 1, (x,)),
        "control flow inside the graph",
        "torch.where",
    ),
    "random windows": (
        lambda x: nn.functional.fractional_max_pool3d(
            x, (1, 2, 2), output_size=2, _random_samples=torch.full((1, 2, 3), 0.5)
        ),
        "drawn at random",
        "adaptive pool",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_operators(name):
    function, reason, way = REFUSED[name]
    with pytest.raises((CaptureError, LoweringError)) as caught:
        edge4d.lower(Fn(function), (CLIP,))
    said = str(caught.value)
    assert reason in said
    assert way in said
    assert "check that the model runs" not in said


def test_quantized_layers():
    network = nn.Sequential(nn.Flatten(), nn.Linear(120, 8))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own
        quantized = torch.ao.quantization.quantize_dynamic(network, {nn.Linear})
    with pytest.raises(CaptureError, match=r"it has quantized layers: 1 \(Linear\)") as caught:
        edge4d.lower(quantized, (CLIP,))
    assert "--precision int8" in str(caught.value)


def test_a_model_that_fails_by_itself_is_not_told_about_operators():
    with pytest.raises(CaptureError, match="check that the model runs"):
        edge4d.lower(Fn(lambda x: x.view(7)), (CLIP,))


def test_rrelu_in_inference_is_a_leaky_relu():
    lowered_equals_eager(nn.Sequential(nn.Conv3d(2, 3, 3, padding=1), nn.RReLU(0.1, 0.5)), CLIP)
    with pytest.raises(LoweringError, match="draws random slopes"):
        edge4d.lower(Fn(lambda x: nn.functional.rrelu(x, training=True)), (CLIP,))
