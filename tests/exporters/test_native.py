"""The native 5-D form: the same numbers, five axes kept, the module left alone."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from edge4d.errors import ExportError
from edge4d.exporters.native import write_native


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv3d(2, 4, 3, padding=1)
        self.norm = nn.BatchNorm3d(4)

    def forward(self, clip, *, scale=None):
        scores = self.norm(self.conv(clip))
        return scores if scale is None else scores * scale


CLIP = torch.randn(1, 2, 4, 5, 6, generator=torch.Generator().manual_seed(0))


def ranks(path):
    model = onnx.shape_inference.infer_shapes(onnx.load(path))
    return {len(value.type.tensor_type.shape.dim) for value in (*model.graph.input, *model.graph.output)}


@pytest.mark.parametrize("external_above", [2**31, 0])
def test_it_keeps_five_axes_and_the_numbers(tmp_path, external_above):
    network = Network().train()
    path = tmp_path / "native.onnx"
    notes = write_native(network, (CLIP,), path, external_above=external_above)
    assert network.training  # exported in evaluation mode, and left as it was
    assert (tmp_path / "native.onnx.data").exists() == (external_above == 0)
    assert bool(notes) == (external_above == 0)
    assert ranks(path) == {5}
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (got,) = session.run(None, {session.get_inputs()[0].name: CLIP.numpy()})
    with torch.inference_mode():
        np.testing.assert_allclose(got, network.eval()(CLIP).numpy(), atol=1e-5)


def test_keyword_inputs_are_inputs(tmp_path):
    write_native(Network().eval(), (CLIP,), tmp_path / "n.onnx", kwargs={"scale": torch.ones(1, 4, 1, 1, 1)})
    assert len(onnx.load(tmp_path / "n.onnx").graph.input) == 2


def test_what_torch_cannot_write_is_an_error_and_leaves_no_file(tmp_path):
    class Branches(nn.Module):
        def forward(self, clip):
            return clip + 1 if clip.sum() > 0 else clip

    with pytest.raises(ExportError, match=r"torch\.onnx cannot translate the network with its five axes"):
        write_native(Branches(), (CLIP,), tmp_path / "n.onnx")
    assert list(tmp_path.iterdir()) == []
