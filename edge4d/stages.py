"""The stages between a PyTorch model and its artifact: the lowered module, and the graph without optimisations.

Where the numbers differ, they tell which step is to blame: the lowering, the translation to ONNX, or the runtime.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge4d.errors import UsageError
from edge4d.planning import Planner
from edge4d.recipe import recipe_path
from edge4d.subject import numpy_of

if TYPE_CHECKING:
    from edge4d.artifact import Opened
    from edge4d.subject import Subject

__all__ = ["lowered_stage", "unoptimised"]


def lowered_stage(subject: Subject, artifact: Path) -> Callable[..., list[Any]]:
    """The model lowered as the artifact was, and run by PyTorch.

    Args:
        subject: the model.
        artifact: whose recipe says which formulations were asked for; without a recipe the default ones are taken, and
            so they are for layers whose formulation was found by timing.

    Returns:
        Takes the tensors among the model's inputs as numpy arrays, flat and in order; returns logical arrays likewise.

    Raises:
        CaptureError, LoweringError: as `edge4d.lower`.
        UsageError: the artifact's layers were replaced by a block, so that the model is no reference for it.
    """
    import torch
    from torch.utils import _pytree as pytree

    from edge4d.lowered import lower

    options = _options(artifact)
    if options.get("block", "exact") != "exact":
        raise UsageError(
            f"{artifact} was exported with --block {options['block']}, so the reference is another network",
            hint="leave --stages out, or export with --block exact",
        )
    planner = Planner.of(
        options.get("for"),
        options.get("formulations", ()),
        options.get("max_weight_growth"),
        options.get("max_activation_memory"),
        precision=options.get("precision", "fp32"),
    )
    lowered = lower(subject.model, subject.args, subject.kwargs, planner=planner)

    def run(*arrays: Any) -> list[Any]:
        args, kwargs = subject.fill(arrays)
        with torch.inference_mode():
            outputs = lowered.unpack(lowered.module(*lowered.pack(*args, **kwargs)))
        return [numpy_of(leaf) for leaf in pytree.tree_leaves(outputs)]

    return run


def unoptimised(artifact: Path) -> Opened:
    """An ``.onnx`` file in ONNX Runtime with its optimisations off.

    Raises:
        RuntimeUnavailable: ONNX Runtime is not installed.
    """
    from edge4d.artifact import open as open_artifact

    return open_artifact(artifact, "onnxruntime", optimization="none")


def _options(artifact: Path) -> dict[str, Any]:
    try:
        recipe = json.loads(recipe_path(artifact).read_text(encoding="utf-8"))
        options = recipe["options"] if recipe["step"] == "export" else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}  # of another tool, or moved without its recipe
    return options if isinstance(options, dict) else {}
