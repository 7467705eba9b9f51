"""What the tests of the gate on torch.export programs share."""

from __future__ import annotations

import torch
from torch import nn

from edge4d.quiet import quiet
from tests.lowering.harness import Fn

CLIP, IMAGE = (1, 2, 6, 6, 6), (1, 2, 6, 6)


def exported(function, *shapes, dynamic=None):
    module = function if isinstance(function, nn.Module) else Fn(function)
    args = tuple(torch.zeros(shape) for shape in shapes)
    return torch.export.export(module.eval(), args, dynamic_shapes=dynamic, strict=False)


def decomposed(program):
    with quiet():
        return program.run_decompositions()


def codes(report):
    return {item.code for item in report.findings}


def messages(report, code):
    return [f"{item.where.to_text()}: {item.message}" for item in report.findings if item.code == code]


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv3d(2, 4, 3)
        self.unused = nn.Parameter(torch.zeros(1, 1, 1, 1, 1))

    def forward(self, x):
        return self.stem(x).relu().mean((2, 3, 4))
