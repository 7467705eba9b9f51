"""Every file that a user may call "model.pt": recognised by content, read without running what is in it.

``load_model`` gives a `Loaded`; ``resolve_inputs`` gives the tensors to capture it with; ``script_to_module`` turns
TorchScript into a module that `torch.export` accepts.
"""

from __future__ import annotations

from edge4d.loading.load import load_model
from edge4d.loading.loaded import Loaded, Source
from edge4d.loading.script_graph import script_to_module
from edge4d.loading.shapes import infer_input_shapes, parse_shape, resolve_inputs

__all__ = ["Loaded", "Source", "infer_input_shapes", "load_model", "parse_shape", "resolve_inputs", "script_to_module"]
