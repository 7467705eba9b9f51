"""The outputs of source layers inside an artifact, and a report that names the first one that is wrong.

`edge4d export` writes at each ONNX node of which layers it gives the output, and how that is packed. Here these values
become graph outputs of a copy of the model, which any runtime can then open.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge4d.errors import UsageError, ValidationError
from edge4d.layer_values import METADATA_KEY, LayerValue, read_layers
from edge4d.tables import table

if TYPE_CHECKING:
    import onnx

    from edge4d.validators.parity_report import ParityReport, ParityRow

__all__ = ["LayersReport", "expose", "layer_values"]

_SHOWN = 12
"""Names of layers that a sentence may list."""


@dataclass(frozen=True)
class LayersReport:
    """The layers of one candidate against the source's.

    Attributes:
        report: a row for each layer that both sides have, in the order in which the source's layers finish.
        folded: layers that have no value of their own in the graph, by the layer that took them up.
        unseen: layers that the candidate names and the reference does not have, or does not run.
        values: where each layer is in the candidate.
    """

    report: ParityReport
    folded: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    unseen: tuple[str, ...] = ()
    values: Mapping[str, LayerValue] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Every layer is the same, and there was at least one."""
        return self.report.ok

    @property
    def first(self) -> ParityRow | None:
        """The first layer that is not within its limit; None when all are."""
        return next((row for row in self.report.rows if not row.ok), None)

    @property
    def sentence(self) -> str:
        """What was found, in one sentence."""
        rows = self.report.rows
        if not rows:
            return "no layer was compared"
        first = self.first
        if first is None:
            return f"all {len(rows)} layers agree"
        place = next(i for i, row in enumerate(rows) if row is first)
        before = f"the {place} before it agree" if place else "none runs before it"
        own = self.folded.get(first.name, ())
        taken = f" (with {', '.join(own)} folded into it)" if own else ""
        return f"the first layer out of tolerance is {first.name!r}{taken}: {first.reason}; {before}"

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready mapping."""
        compared = self.report.to_dict()
        return {
            "ok": self.ok,
            "first": None if self.first is None else self.first.name,
            "sentence": self.sentence,
            "worst": compared["worst"],
            "notes": compared["notes"],
            "unseen": list(self.unseen),
            "layers": [
                row | {"folded": list(self.folded.get(row["name"], ())), "value": self.values[row["name"]].value}
                for row in compared["outputs"]
            ],
        }

    def to_text(self) -> str:
        """The sentence, a table of the layers, and what could not be compared."""
        lines = [f"{'✓' if self.ok else '✗'} layers: {self.sentence}"]
        if self.report.rows:
            columns = ["", "layer", "shape", "of range", "allowed", "cosine"]
            lines.append(table(columns, [_cells(row) for row in self.report.rows], right=(3, 4, 5)))
        if self.unseen:
            lines.append(f"  note: the reference gives no single tensor for {_listed(self.unseen)}")
        lines += [f"  note: {note}" for note in self.report.notes]
        return "\n".join(lines)


def _cells(row: ParityRow) -> list[str]:
    shape = "x".join(map(str, row.shape or row.candidate_shape or ())) or "scalar"
    head = ["✓" if row.ok else "✗", row.name, shape]
    if row.difference is None:
        return [*head, "-", "-", "-"]
    allowed = "exact" if row.allowed == 0 else f"{row.allowed:.1e}"
    return [*head, f"{row.difference.relative:.2e}", allowed, f"{row.difference.cosine:.6f}"]


def _listed(names: Sequence[str]) -> str:
    more = f", and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def layer_values(model: onnx.ModelProto) -> dict[str, LayerValue]:
    """The layers whose outputs a model says it holds, in the order of its nodes.

    Raises:
        ValidationError: a malformed description, or one layer at two values.
    """
    found: dict[str, LayerValue] = {}
    for node in model.graph.node:
        for entry in node.metadata_props:
            if entry.key != METADATA_KEY:
                continue
            for value in read_layers(entry.value, node.output):
                if value.layer in found:
                    raise ValidationError(f"the file's metadata has the output of layer {value.layer!r} twice")
                found[value.layer] = value
    return found


def expose(path: Path, folder: Path) -> tuple[Path, dict[str, LayerValue]]:
    """Write a copy of an artifact that also returns the outputs of its layers, packed as they are.

    Args:
        path: an ``.onnx`` file.
        folder: where the copy goes; weights beside the model are linked or copied there too.

    Returns:
        The copy, and its layers by name.

    Raises:
        UsageError: no ``.onnx`` file, or one that names no layers.
        ValidationError: an unreadable model, or a malformed description.
        ExportError: the copy cannot be written.
    """
    import onnx

    from edge4d.exporters.sources import model_files
    from edge4d.files import atomic_write

    if path.suffix.lower() != ".onnx":
        raise UsageError(
            f"{path}: layers can be compared inside an .onnx file only",
            hint="give the .onnx that the engine was built from; --layer-runtime NAME runs its layers on that runtime",
        )
    _, *beside = model_files(path)
    model = onnx.load(str(path), load_external_data=False)
    layers = layer_values(model)
    if not layers:
        raise UsageError(
            f"{path} does not say which of its values are the outputs of layers",
            hint="export it again with this edge4d; --dynamic batch and what other tools wrote or optimised lack it",
        )
    _return(model, [value.value for value in layers.values()])
    for file in beside:
        target = folder / file.relative_to(path.parent)
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.link(file, target)
        except OSError:  # another file system
            shutil.copyfile(file, target)
    atomic_write(folder / path.name, model.SerializeToString())
    return folder / path.name, layers


def _return(model: onnx.ModelProto, names: Sequence[str]) -> None:
    """Make values graph outputs; their types are inferred anew, for those in the file may date from before a change."""
    import onnx

    del model.graph.value_info[:]
    known = {value.name: value for value in onnx.shape_inference.infer_shapes(model).graph.value_info}
    returned = {value.name for value in model.graph.output}
    for name in dict.fromkeys(names):
        if name not in returned:
            model.graph.output.append(known.get(name, onnx.ValueInfoProto(name=name)))
