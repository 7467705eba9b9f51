"""What torch works out anew at every capture and export though it stays the same, worked out once a process.

More than half of what a small network takes: `torch.onnx` reads the signatures of its five hundred translations from
their sources, `run_decompositions` asks for every composite operator once for each namespace. Nothing comes out
otherwise: both are made anew where an operator was registered in between. Tests that start a process run torch as is.
"""

from __future__ import annotations

import copy
import functools
import typing

import torch
from torch._C import _dispatch_get_all_op_names, _dispatch_get_registrations_for_dispatch_key
from torch._export import utils
from torch.export import decomp_utils, exported_program
from torch.onnx._internal.exporter import _constants
from torch.onnx._internal.exporter._registration import ONNXRegistry

__all__ = ["fresh_composites", "fresh_registry", "keep_tables"]

fresh_registry = ONNXRegistry.from_torchlib
fresh_composites = utils._collect_all_valid_cia_ops
"""As torch makes them."""


@functools.lru_cache(maxsize=4)
def _registry(opset: int, operators: tuple[str, ...]) -> ONNXRegistry:
    return fresh_registry(opset_version=opset)


def _kept_registry(cls: type[ONNXRegistry], opset_version: int = _constants.TORCHLIB_OPSET) -> ONNXRegistry:
    kept = _registry(opset_version, tuple(_dispatch_get_all_op_names()))
    own = copy.copy(kept)
    own.functions = {target: list(translations) for target, translations in kept.functions.items()}
    return own


@functools.lru_cache(maxsize=1)
def _composites(registered: tuple[str, ...]) -> frozenset[torch._ops.OperatorBase]:
    return frozenset(fresh_composites())


def _kept_composites() -> frozenset[torch._ops.OperatorBase]:
    return _composites(tuple(_dispatch_get_registrations_for_dispatch_key("CompositeImplicitAutograd")))


def keep_tables() -> None:
    """From here on, in this process."""
    ONNXRegistry.from_torchlib = classmethod(_kept_registry)
    exported_program._collect_all_valid_cia_ops = decomp_utils._collect_all_valid_cia_ops = _kept_composites
    # Every `py_impl`, thousands at each capture, spells `Callable[_P, _T]` out; typing keeps its own ones.
    torch._ops.Callable = typing.Callable
