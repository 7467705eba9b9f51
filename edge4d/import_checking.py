"""Whether our import of an ONNX file computes what ONNX Runtime makes of the file itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge4d.errors import CaptureError, ExportError, RuntimeFailed, RuntimeUnavailable, ValidationError

if TYPE_CHECKING:
    from edge4d.subject import Subject

__all__ = ["check_import"]

_NOT_RUN = (ExportError, RuntimeFailed, RuntimeUnavailable, ValidationError)
"""What ONNX Runtime's session raises for a file that it cannot load or run. Other errors are the import's own."""


def check_import(subject: Subject, seed: int = 0) -> None:
    """Run the file and its import on one random input; where the file cannot be run, `subject.notes` say so.

    Args:
        subject: with the imported network in it, unchanged; its example inputs fix the shapes.
        seed: of the input.

    Raises:
        CaptureError: they differ; says where and by how much.
    """
    from edge4d import exporters
    from edge4d.artifact import in_types_of
    from edge4d.artifact import open as open_artifact
    from edge4d.ports import Port
    from edge4d.validators.parity import compare_callables, random_inputs
    from edge4d.validators.referee import compare_by_referee

    assert subject.path is not None
    probed = exporters.get("onnxruntime").probe()
    if not probed.ok:
        subject.notes.append(f"the import was not checked: {probed.why_not}; {probed.install}")
        return
    names = subject.model.outputs
    ports = [
        Port(port.name, tuple(arg.shape), tuple(arg.shape), str(arg.dtype).removeprefix("torch."))
        for port, arg in zip(subject.model.inputs, subject.args, strict=True)
    ]
    given = [random_inputs(ports, seed)]
    try:
        with open_artifact(subject.path, "onnxruntime") as opened:
            eager, candidate = subject.reference(names), in_types_of(opened)
            report = compare_callables(eager, candidate, given)
            if not report.ok:
                report = compare_by_referee(report, eager, subject.reference(names, double=True), candidate, given)
    except _NOT_RUN as error:
        subject.notes.append(
            f"the import was not checked: ONNX Runtime cannot run {subject.path.name}: {error.message}"
        )
        return
    if not report.ok:
        raise CaptureError(
            f"{subject.path}: our import of it does not compute what ONNX Runtime computes:\n{report.to_text()}",
            hint="please report this file; meanwhile export the network from PyTorch, e.g. as a torch.export archive",
        )
