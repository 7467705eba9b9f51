"""The parts of the loss against the formulas, in plain numpy; a batch in parts is worth the batch."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from edge4d.errors import UsageError
from edge4d.tuning.losses import Weights, layer_outputs, losses

RNG = torch.Generator().manual_seed(0)
TEACHER, STUDENT = torch.randn(6, 5, generator=RNG), torch.randn(6, 5, generator=RNG)
LAYER, OTHER = torch.randn(6, 2, 3, generator=RNG), torch.randn(6, 2, 3, generator=RNG)
LABELS = torch.tensor([0, 1, 2, 3, 4, 0])


def compare(part=slice(None), temperature=2.0):
    return losses(TEACHER[part], STUDENT[part], {"a": [LAYER[part]]}, {"a": [OTHER[part]]}, LABELS[part], temperature)


def softmax(x):
    e = np.exp(x - x.max(1, keepdims=True))
    return e / e.sum(1, keepdims=True)


def test_formulas():
    t, s = TEACHER.numpy().astype(float), STUDENT.numpy().astype(float)
    p, q = softmax(t / 2), softmax(s / 2)
    kl = 4 * (p * (np.log(p) - np.log(q))).sum(1).mean()
    a, b = (x.numpy().reshape(6, -1).astype(float) for x in (LAYER, OTHER))
    relative = (((b - a) ** 2).sum(1) / (a**2).sum(1)).mean()
    entropy = -np.log(softmax(s)[np.arange(6), LABELS.numpy()]).mean()
    found = compare()
    assert float(found.outputs) == pytest.approx(kl, rel=1e-5)
    assert float(found.layers) == pytest.approx(relative, rel=1e-5)
    assert float(found.labels) == pytest.approx(entropy, rel=1e-5)
    total = found.total(Weights(layers=2, outputs=3, labels=5))
    assert float(total) == pytest.approx(2 * relative + 3 * kl + 5 * entropy, rel=1e-5)


def test_a_batch_in_parts_is_the_batch():
    whole, parts = compare(), [compare(slice(0, 3)), compare(slice(3, 6))]
    for name in ("layers", "outputs", "labels"):
        mean = sum(float(getattr(part, name)) for part in parts) / 2
        assert mean == pytest.approx(float(getattr(whole, name)), rel=1e-5)


def test_clips_whose_label_does_not_hold_count_nothing_there():
    holds = torch.tensor([True, False, True, True, False, False])
    entropy = -np.log(softmax(STUDENT.numpy().astype(float))[np.arange(6), LABELS.numpy()])
    found = losses(TEACHER, STUDENT, {}, {}, LABELS, 2.0, holds)
    assert float(found.labels) == pytest.approx(entropy[holds.numpy()].sum() / 6, rel=1e-5)
    assert float(found.outputs) == pytest.approx(float(compare().outputs), rel=1e-6), "the teacher names them all"
    assert float(losses(TEACHER, STUDENT, {}, {}, LABELS, 2.0, ~holds & holds).labels) == 0


def test_the_teacher_itself_has_no_loss():
    found = losses(TEACHER, TEACHER, {"a": [LAYER]}, {"a": [LAYER]}, None, 2.0)
    assert float(found.total(Weights())) == pytest.approx(0, abs=1e-6)
    assert found.labels is None


def test_outputs_that_are_no_classes_are_compared_as_layers_are():
    found = losses({"a": LAYER}, {"a": OTHER}, {}, {}, None, 2.0)
    assert float(found.outputs) == pytest.approx(float(compare().layers), rel=1e-6)
    assert float(found.layers) == 0


def test_one_number_a_clip_is_compared_clip_by_clip():
    found = losses(TEACHER[:, 0], STUDENT[:, 0], {}, {}, None, 2.0)
    assert float(found.outputs) == pytest.approx(float(((STUDENT - TEACHER)[:, 0] / TEACHER[:, 0]).square().mean()))


def test_a_layer_called_twice_counts_twice():
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.ReLU())
    shared = torch.nn.Sequential(model[0], model[0])
    with layer_outputs(shared, ["0"]) as found:
        shared(torch.zeros(1, 2))
    assert len(found["0"]) == 2
    assert not shared[0]._forward_hooks


@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last_3d])
def test_layers_are_compared_in_any_memory_order_and_so_are_gradients(order):
    t, s = (torch.randn(2, 3, 4, 5, 6, generator=RNG, dtype=torch.float64) for _ in range(2))
    t, s = t.contiguous(), s.contiguous(memory_format=order).requires_grad_()
    found = losses(t, s, {}, {}, None, 2.0).outputs
    plain = ((s - t).flatten(1).square().sum(1) / t.flatten(1).square().sum(1)).mean()
    assert found.item() == pytest.approx(plain.item(), rel=1e-5)
    (mine,), (autograd,) = torch.autograd.grad(found, s), torch.autograd.grad(plain, s)
    assert torch.allclose(mine, autograd, rtol=1e-4, atol=1e-8)
    assert not torch.allclose(mine, autograd * 1.01, rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize("wrong", [{"layers": -1.0}, {"temperature": 0.0}, {"labels": float("nan")}])
def test_weights_that_cannot_be(wrong):
    with pytest.raises(UsageError, match="expected weights from 0 on"):
        Weights(**wrong)
