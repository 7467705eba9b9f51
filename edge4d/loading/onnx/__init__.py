"""An ONNX file of any rank as a network: one module a node, in ATen calls that `torch.export` captures.

``load_onnx`` reads a file; `OnnxModel` is what it becomes. No library is used for this: those on PyPI either stand
still, or compute shapes with tensors, which `torch.export` refuses as data-dependent.
"""

from __future__ import annotations

from edge4d.loading.onnx.graph import load_onnx
from edge4d.loading.onnx.module import OnnxModel, settle

__all__ = ["OnnxModel", "load_onnx", "settle"]
