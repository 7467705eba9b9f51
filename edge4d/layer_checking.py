"""Layer by layer: the outputs of a PyTorch model's modules against the same values inside an artifact."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge4d.errors import UsageError
from edge4d.port_arrays import in_type
from edge4d.source_layers import layer_names, source_layers

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np

    from edge4d.artifact import Opened
    from edge4d.subject import Subject
    from edge4d.validators.layers import LayersReport
    from edge4d.validators.tolerances import Tolerance

__all__ = ["ExposedModel", "check_layers", "compare_layers", "exposed", "reproduce_layer"]


class ExposedModel:
    """An artifact on a runtime that returns the outputs of its layers.

    Attributes:
        path: the artifact itself, not the copy that runs.
        layers: what can be read, by layer.
    """

    def __init__(self, path: Path, opened: Opened, layers: Mapping[str, Any]) -> None:
        self.path = path
        self.layers = layers
        self._opened = opened

    def values(self, arrays: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
        """Everything that the copy returns, by the graph's own names and packed as the graph holds it.

        Args:
            arrays: logical inputs in the artifact's order.
        """
        return dict(self._opened.session.run(self.packed_inputs(arrays)))

    def __call__(self, *arrays: np.ndarray) -> dict[str, np.ndarray]:
        """Logical arrays by layer."""
        values = self.values(arrays)
        return {name: layer.unpack(values[layer.value]) for name, layer in self.layers.items()}

    def packed_inputs(self, arrays: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
        """Logical inputs as the graph takes them."""
        kinds = [port.dtype for port in self._opened.inputs]
        return self._opened.pack(*(in_type(array, kind) for array, kind in zip(arrays, kinds, strict=True)))


@contextmanager
def exposed(path: Path, runtime: str | None = None) -> Iterator[ExposedModel]:
    """Open an artifact so that its layers can be read.

    Args:
        path: an ``.onnx`` file that names its layers.
        runtime: the runtime that runs it, for which it is built anew; ONNX Runtime when None.

    Raises:
        UsageError: it names no layers.
        RuntimeUnavailable: the runtime is not installed.
    """
    from edge4d import exporters
    from edge4d.artifact import open as open_artifact
    from edge4d.validators.layers import expose

    with tempfile.TemporaryDirectory(prefix="edge4d-") as name:
        folder = Path(name)
        model, layers = expose(path, folder)
        if runtime is not None and runtime != "onnxruntime":
            exporter = exporters.get(runtime)
            model = exporter.build(model, folder / f"layers{exporter.suffixes[0]}", max_rank=None).path
        with open_artifact(model, runtime) as opened:
            yield ExposedModel(path, opened, layers)


def check_layers(
    subject: Subject,
    candidates: Mapping[Path, Tolerance | None],
    given: Sequence[Mapping[str, np.ndarray]],
    *,
    runtime: str | None = None,
    repro: Path | None = None,
) -> dict[Path, LayersReport]:
    """The layers of every candidate that names them; engines and files of other tools, which do not, are left out.

    Args:
        subject: the PyTorch model.
        candidates: files, each with how far floats may be apart; None for `compare_layers`' own rule.
        given: sets of inputs.
        runtime: what runs the layers.
        repro: a folder in which each candidate with a wrong layer gets one of its own.

    Raises:
        UsageError: no candidate names layers; the message is about the first.
    """
    found: dict[Path, LayersReport] = {}
    refused: list[UsageError] = []
    for path, tolerance in candidates.items():
        with ExitStack() as stack:
            try:
                candidate = stack.enter_context(exposed(path, runtime))
            except UsageError as error:
                refused.append(error)
                continue
            found[path] = compare_layers(subject, candidate, given, tolerance=tolerance)
            if repro is not None and not found[path].ok:
                reproduce_layer(subject, candidate, found[path], given, repro / path.name)
    if not found and refused:
        raise refused[0]
    return found


def compare_layers(
    subject: Subject,
    candidate: ExposedModel,
    given: Sequence[Mapping[str, np.ndarray]],
    *,
    tolerance: Tolerance | None = None,
) -> LayersReport:
    """Hold every layer that both sides have against the source's own.

    Args:
        subject: the PyTorch model.
        candidate: the artifact.
        given: sets of inputs in the order in which both take them.
        tolerance: how far floats may be apart, relative to each layer's range. When None, the table's entry for the
            dtype, or what float32 PyTorch itself is away from float64 in that layer, whichever is more.

    Raises:
        UsageError: the two have no layer in common.
    """
    from edge4d.validators.layers import LayersReport
    from edge4d.validators.parity import compare_callables

    reference = source_layers(subject, candidate.layers)
    first = reference(*_copies(next(iter(given))))
    common = [name for name in first if name in candidate.layers]
    unseen = tuple(name for name in candidate.layers if name not in first)
    if not common:
        raise UsageError(
            f"{candidate.path} and the reference have no layer in common: the one names "
            f"{_some(candidate.layers)}; the other has {_some(layer_names(subject))}",
            hint="compare it with the model that it was exported from",
        )

    def only_common(run: Callable[..., dict[str, np.ndarray]]) -> Callable[..., dict[str, np.ndarray]]:
        def chosen(*arrays: np.ndarray) -> dict[str, np.ndarray]:
            found = run(*arrays)
            return {name: found[name] for name in common if name in found}

        return chosen

    eager, other = only_common(reference), only_common(candidate)
    report = compare_callables(eager, other, given, tolerance=tolerance)
    if tolerance is None and not report.ok and all(row.difference is not None for row in report.rows):
        from edge4d.validators.referee import compare_by_referee

        exact = only_common(source_layers(subject, candidate.layers, double=True))
        report = compare_by_referee(report, eager, exact, other, given)
    folded = {name: candidate.layers[name].folded for name in common if candidate.layers[name].folded}
    return LayersReport(report, folded, unseen, {name: candidate.layers[name] for name in common})


def reproduce_layer(
    subject: Subject,
    candidate: ExposedModel,
    report: LayersReport,
    given: Sequence[Mapping[str, np.ndarray]],
    folder: Path,
) -> None:
    """Write a folder that shows the first wrong layer alone, fed with what the layers before it gave.

    Args:
        subject: the PyTorch model.
        candidate: the artifact.
        report: of the two.
        given: the sets of inputs that it was made on.
        folder: where to.
    """
    import onnx

    from edge4d.validators.repro import cut, write_repro

    first = report.first
    if first is None or first.difference is None:
        return  # nothing could be measured: the outputs' own repro shows it
    arrays = _copies(given[first.input_set])
    values = candidate.values(arrays)
    good = {report.values[row.name].value for row in report.report.rows if row.ok}
    layer = report.values[first.name]
    boundary = candidate.packed_inputs(arrays) | {name: values[name] for name in good if name != layer.value}
    expected = layer.pack(source_layers(subject, {first.name})(*arrays)[first.name])
    model = cut(onnx.load(str(candidate.path)), layer.value, boundary)
    write_repro(
        folder,
        f"{candidate.path.name}, layer {first.name}: {first.reason}",
        model=model,
        origin=candidate.path,
        inputs={port.name: boundary[port.name] for port in model.graph.input},
        reference={layer.value: expected},
        candidate={layer.value: values[layer.value]},
        allowed=first.allowed or 0.0,
    )


def _copies(arrays: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    import numpy as np

    return [np.array(array) for array in arrays.values()]


def _some(names: Any) -> str:
    listed = list(names)
    return ", ".join(listed[:5]) + (f"… ({len(listed)} layers)" if len(listed) > 5 else "") if listed else "none"
