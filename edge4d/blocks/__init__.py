"""Structures that replace a Conv3d: those of *Is 3D Convolution with 5D Tensors Really Necessary?* and their peers.

Each is an `nn.Module` on 4-D tensors and 2-D convolutions, with the input and output shapes of the Conv3d it replaces.
Importing this package loads no torch; ``get(name).module_class`` does.
"""

from __future__ import annotations

from edge4d.blocks.registry import EXACT, BlockType, get, names, suggestion

__all__ = ["EXACT", "BlockType", "get", "names", "suggestion"]
