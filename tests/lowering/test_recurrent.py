"""LSTM and GRU in one piece, and unrolled where ONNX has no operator for them."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import edge4d
from edge4d.errors import LoweringError
from edge4d.lowered import lower
from tests.lowering.harness import Fn, lowered_equals_eager, ops_of, randomise


class Head(nn.Module):
    """A recurrent layer over the frames of a clip; all of its results."""

    def __init__(self, recurrent: nn.Module, time_first: bool, state: bool = False):
        super().__init__()
        self.recurrent, self.time_first, self.state = recurrent, time_first, state

    def forward(self, clip):
        """(N, C, T, H, W)"""
        seen = clip.mean((3, 4)).permute(*((2, 0, 1) if self.time_first else (0, 2, 1)))
        layer = self.recurrent
        first = seen.mean() + torch.zeros(
            layer.num_layers * (1 + layer.bidirectional), clip.shape[0], layer.hidden_size, dtype=clip.dtype
        )
        given = (first, first * 2) if isinstance(layer, nn.LSTM) else first
        return layer(seen, given) if self.state else layer(seen)


LAYERS = {
    "lstm": lambda: Head(nn.LSTM(4, 3), True),
    "lstm_batch_first": lambda: Head(nn.LSTM(4, 3, batch_first=True), False),
    "lstm_deep_both_ways": lambda: Head(nn.LSTM(4, 3, num_layers=2, bidirectional=True, dropout=0.5), True),
    "lstm_no_bias": lambda: Head(nn.LSTM(4, 3, bias=False), True),
    "lstm_state": lambda: Head(nn.LSTM(4, 3, num_layers=2, batch_first=True), False, state=True),
    "gru": lambda: Head(nn.GRU(4, 3), True),
    "gru_batch_first_both_ways": lambda: Head(nn.GRU(4, 3, bidirectional=True, batch_first=True), False),
    "gru_no_bias_state": lambda: Head(nn.GRU(4, 3, bias=False), True, state=True),
}


def clips(n=2):
    return torch.randn(n, 4, 5, 3, 3, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", LAYERS)
def test_recurrent_layers_are_one_call(name):
    lowered = lowered_equals_eager(randomise(LAYERS[name]()), clips())
    assert sum(op.startswith(("aten.lstm", "aten.gru")) for op in ops_of(lowered)) == 1


def test_an_lstm_without_a_batch():
    layer = nn.LSTM(4, 3)
    lowered_equals_eager(Fn(lambda x: layer.double()(x.mean((0, 3, 4)).T)[0]), clips())


@pytest.mark.parametrize(
    "layer", [nn.LSTM(4, 5, proj_size=2), nn.RNN(4, 3), nn.RNN(4, 3, nonlinearity="relu")], ids=repr
)
def test_what_onnx_has_no_operator_for_is_unrolled(layer):
    lowered = lowered_equals_eager(Head(layer, True), clips())
    assert not any(op.startswith(("aten.lstm", "aten.rnn")) for op in ops_of(lowered))


@pytest.mark.parametrize("name", LAYERS)
def test_onnx_runtime_agrees(name, tmp_path):
    report = edge4d.export(randomise(LAYERS[name]()).eval(), (clips(),), output=tmp_path / "head.onnx")
    assert report.ok, report.to_dict()["parity"]
    assert report.operators.get("LSTM", 0) + report.operators.get("GRU", 0) == LAYERS[name]().recurrent.num_layers


@pytest.mark.parametrize("name", ["lstm_deep_both_ways", "gru_batch_first_both_ways"])
def test_the_batch_stays_open(name, tmp_path):
    """A first state of zeros has a batch of its own, which must not be written into the graph."""
    model = randomise(LAYERS[name]()).eval()
    report = edge4d.export(model, (clips(),), output=tmp_path / "head.onnx", dynamic="batch")
    assert report.ok, report.to_dict()["parity"]
    with edge4d.open(report.path) as opened, torch.inference_mode():
        got = opened(clips(7).numpy())
        expected = model(clips(7))[0].numpy()
    assert abs(next(iter(got.values())) - expected).max() < 1e-5


def test_dropout_between_layers_in_training_mode_is_refused():
    def training(x):
        state = torch.zeros(2, 2, 3)
        weights = [w for layer in nn.LSTM(4, 3, 2)._flat_weights for w in [layer]]
        return torch.lstm(x.mean((3, 4)).permute(2, 0, 1), (state, state), weights, True, 2, 0.5, True, False, False)[0]

    with pytest.raises(LoweringError, match="dropout draws random numbers"):
        lower(Fn(training), (clips(),))
