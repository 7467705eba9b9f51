"""Real networks written by others: exact, at rank 4 by analysis and by execution, at their native clip sizes."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
import torch
from torch import nn

import edge4d
from edge4d.lowered import lower
from edge4d.subject import Subject
from tests.zoo.exposed import run_with_all_values
from tests.zoo.models import ZOO, ZooModel, find, one_after_another, ready

pytestmark = pytest.mark.slow

WITHIN = 1e-5
"""Largest difference from eager float32 PyTorch, relative to the output's range."""


def names(entries):
    return one_after_another(entry.name for entry in entries)


def exported(entry: ZooModel, module: nn.Module, clips, folder: Path):
    report = edge4d.export(module, clips, output=folder / f"{entry.name}.onnx", parity=False)
    assert report.gate.ok, report.gate.to_text()
    return report


def worst_difference(got, expected: torch.Tensor) -> float:
    spread = (expected.max() - expected.min()).item()
    assert spread > 0
    return (torch.from_numpy(got).double() - expected.double()).abs().max().item() / spread


def assert_as_exact_as_pytorch(module: nn.Module, clips, got, expected: torch.Tensor) -> None:
    """Within the limit of eager float32; where a deep network's float32 is itself coarser than the limit, no farther
    from float64 than eager float32 is."""
    if worst_difference(got, expected) <= WITHIN:
        return
    (exact,) = Subject.of(module, clips).reference(double=True)(*(clip.numpy() for clip in clips))
    ours = worst_difference(got, torch.from_numpy(exact))
    eager = worst_difference(expected.numpy(), torch.from_numpy(exact))
    # two float32 runs round differently; twice the reference's own error is still float32's, not ours
    assert ours <= max(WITHIN, 2 * eager), f"{ours:.2e} of the range from float64, eager float32 {eager:.2e}"


def convolutions(module: nn.Module, clips) -> int:
    graph = lower(module, clips).module.graph
    return sum("conv2d" in str(node.target) for node in graph.nodes)


@pytest.mark.parametrize("name", names(ZOO))
def test_network_is_exact_at_rank_four(name, tmp_path):
    entry = find(name)
    module, first, second = ready(name), entry.inputs(seed=1), entry.inputs(seed=2)
    report = exported(entry, module, first, tmp_path)

    with edge4d.open(report.path) as opened:
        for clips in (first, second):
            with torch.inference_mode():
                expected = module(*clips)
            (got,) = opened(*(clip.numpy() for clip in clips)).values()
            assert_as_exact_as_pytorch(module, clips, got, expected)
        packed = opened.pack(*(clip.numpy() for clip in first))

    values = run_with_all_values(onnx.load(report.path), packed)
    assert len(values) >= sum(report.operators.values())
    assert max(array.ndim for array in values.values()) <= 4


@pytest.mark.parametrize("name", names(entry for entry in ZOO if entry.small))
def test_batch_of_three(name, tmp_path):
    entry = find(name)
    module, clips = ready(name), entry.inputs(seed=3, batch=3)
    report = exported(entry, module, clips, tmp_path)
    with torch.inference_mode():
        expected = module(*clips)
    with edge4d.open(report.path) as opened:
        (got,) = opened(*(clip.numpy() for clip in clips)).values()
    assert_as_exact_as_pytorch(module, clips, got, expected)


@pytest.mark.parametrize("name", one_after_another(["r3d_18", "s3d", "x3d_xs"]))
def test_convolution_count_does_not_depend_on_time(name):
    _, channels, frames, *sides = find(name).shapes[0]
    counts = {convolutions(ready(name), (torch.zeros(1, channels, t, *sides),)) for t in (frames, 2 * frames)}
    assert len(counts) == 1
