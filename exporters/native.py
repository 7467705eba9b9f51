"""A network as torch's own exporter writes it: five axes and 3-D convolutions, what one would deploy without edge4d.

It is the yardstick of every speed that edge4d claims: eager PyTorch is easily beaten by any graph whose batch norms are
folded, so this one is simplified too.
"""

from __future__ import annotations

import contextlib
import io
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge4d.exporters.translating import simplified, translating
from edge4d.exporters.writing import EXTERNAL_ABOVE, data_path
from edge4d.files import staged
from edge4d.quiet import quiet

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["OPSET", "export_file", "write_native"]

OPSET = 18


def write_native(
    network: Any,
    args: tuple[Any, ...],
    path: Path,
    *,
    kwargs: Mapping[str, Any] | None = None,
    opset: int = OPSET,
    external_above: int = EXTERNAL_ABOVE,
) -> tuple[str, ...]:
    """Write a network by `torch.onnx`, then onnxsim, untouched otherwise: no packing, no description, no gate.

    Args:
        network: an `nn.Module`, exported as it is in evaluation mode, or an `ExportedProgram`; not changed.
        args, kwargs: its example inputs, which fix the shapes.
        path: the ``.onnx`` to write.
        opset: the ONNX operator set.
        external_above: bytes of weights above which they lie beside the model; such a model is not simplified, for
            onnxsim works on protobufs, which end at 2 GB.

    Returns:
        What a user should know, one sentence each.

    Raises:
        ExportError: torch.onnx cannot translate the network, onnxsim's result differs, or the file cannot be written.
    """
    import onnx
    import torch

    from edge4d.capture import program_of
    from edge4d.fixed_inputs import fixed_of
    from edge4d.subject import evaluation

    if fixed_of(network):  # which our capture can read by value
        network = program_of(network, args, kwargs)
    module = contextlib.nullcontext() if isinstance(network, torch.export.ExportedProgram) else evaluation(network)
    # The exporter prints its progress, and stdout is for results.
    with quiet(), contextlib.redirect_stdout(io.StringIO()), module, torch.no_grad():
        with translating(
            "the network with its five axes",
            "without a native form there is nothing to compare with: leave --native out",
        ):
            program = torch.onnx.export(
                network, args, kwargs=dict(kwargs or {}), dynamo=True, opset_version=opset, verbose=False
            )
        assert program is not None
        tensors = [value.const_value for value in program.model.graph.initializers.values()]
        if sum(tensor.nbytes for tensor in tensors if tensor is not None) > external_above:
            with staged(path, data_path(path)) as (place, _):
                program.save(place, external_data=True)
            return ("the native form was not simplified: its weights are larger than a protobuf can be",)
        made = simplified(program.model_proto, "the native graph")
    with staged(path) as (place,):
        onnx.save(made, place)
    return ()


def export_file(order: Mapping[str, Any]) -> dict[str, Any]:
    """`write_native` for a model file, in a process of its own; see `edge4d.exporters.child.call`.

    Args:
        order: ``model`` and ``output``, paths; ``shapes``, ``factory``, ``trust_pickle``, ``submodule``, ``fix``,
            ``seed`` as `edge4d.subject.Subject.of` takes them.

    Returns:
        ``{"notes": […], "export_s": …}``.
    """
    from edge4d.subject import Subject

    start = time.perf_counter()
    subject = Subject.of(
        Path(order["model"]),
        shapes=[tuple(shape) for shape in order["shapes"]],
        factory=order["factory"],
        trust_pickle=order["trust_pickle"],
        submodule=order["submodule"],
        fix=order["fix"],
        seed=order["seed"],
    )
    notes = write_native(subject.model, subject.args, Path(order["output"]), kwargs=subject.kwargs)
    return {"notes": list(notes), "export_s": round(time.perf_counter() - start, 3)}
