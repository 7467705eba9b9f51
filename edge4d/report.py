"""What `export` and `plan` report: the objects that ``--json`` prints and the text that people read."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge4d.ports import Port, shape_text
from edge4d.tables import table

if TYPE_CHECKING:
    from edge4d.planning import LayerPlan
    from edge4d.swap_report import SwapReport
    from edge4d.validators.findings import Report
    from edge4d.validators.parity import ParityReport

__all__ = ["ExportReport", "PlanReport"]


@dataclass
class PlanReport:
    """What every operator above rank 4 would become.

    Attributes:
        source: the model.
        block: the structure asked for.
        layers: one row an operator, in the order of the graph.
        notes: what the user should know, e.g. that shapes were inferred.
        swap: what replaced each Conv3d before the lowering; None for `exact`.
    """

    source: str
    block: str
    layers: tuple[LayerPlan, ...]
    notes: list[str] = field(default_factory=list)
    swap: SwapReport | None = None

    @property
    def ok(self) -> bool:
        """Nothing is declined."""
        return all(layer.becomes is not None for layer in self.layers)

    @property
    def macs(self) -> int:
        """Multiply-accumulates of all convolutions."""
        return sum(layer.macs for layer in self.layers)

    @property
    def moves(self) -> int:
        """Calls of 3-D convolutions that only move data: slices, pads, joins, transposes."""
        return sum(layer.moves for layer in self.layers if layer.macs)

    def to_dict(self) -> dict[str, Any]:
        """What ``--json`` prints."""
        return {
            "ok": self.ok,
            "source": self.source,
            "block": self.block,
            "macs": self.macs,
            "moves": self.moves,
            "layers": [layer.to_dict() for layer in self.layers],
            "swap": self.swap.to_dict() if self.swap is not None else None,
            "notes": self.notes,
        }

    def to_text(self) -> str:
        """A table, then what is declined and what to do about it."""
        rows = [
            [
                layer.layer or "(model)",
                layer.op.removeprefix("aten."),
                "x".join(map(str, layer.shape)),
                layer.becomes or "DECLINED",
                f"{layer.macs / 1e6:.1f}" if layer.macs else "",
                f"{layer.moves}" if layer.moves else "",
                layer.why,
            ]
            for layer in self.layers
        ]
        lines = (
            [table(["layer", "operator", "result", "becomes", "M MACs", "moves", "why"], rows, right=(4, 5))]
            if rows
            else []
        )
        if self.swap is not None:
            lines.insert(0, self.swap.to_text())
        declined = [layer for layer in self.layers if layer.becomes is None]
        for layer in declined:
            at = f" ({layer.line})" if layer.line else ""
            lines.append(
                f"declined: {layer.op} at {layer.layer or 'the model itself'}{at}: {layer.reason}; {layer.hint}"
            )
        covered = len(self.layers) - len(declined)
        lines.append(
            f"{covered} of {len(self.layers)} operators above rank 4 have a way to rank 4"
            f" ({self.macs / 1e9:.2f} G multiply-accumulates in 3-D convolutions, whose {self.moves} calls move data)"
        )
        return "\n".join(lines)


@dataclass
class ExportReport:
    """What `export` did.

    Attributes:
        path: the artifact; its recipe lies beside it as ``<path>.json``.
        block: the structure.
        source: file name and SHA-256 of the model, or the class name of a module in memory.
        inputs, outputs: every port, logical and physical, with its packing.
        gate: the rank report of the written file.
        parity: held against the model in PyTorch; None when it was not compared (a note says why).
        layers: what each operator above rank 4 became.
        opset: the ONNX operator set.
        operators: how many nodes of each operator the graph has.
        weight_bytes: bytes of its weights.
        folded: batch norms taken up by convolutions.
        notes: inferred shapes, checks that did not run, and the like.
        seconds: time of each stage.
        swap: what replaced each Conv3d, and how far the numbers have moved; None for `exact`.
        precision: in which types it computes, and how they were chosen.
    """

    path: Path
    block: str
    source: str
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    gate: Report
    parity: ParityReport | None
    layers: tuple[LayerPlan, ...]
    opset: int
    operators: dict[str, int]
    weight_bytes: int
    folded: int
    notes: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    swap: SwapReport | None = None
    precision: dict[str, Any] = field(default_factory=lambda: {"precision": "fp32"})

    @property
    def ok(self) -> bool:
        """No finding, and the numbers agree where they were compared."""
        return self.gate.ok and (self.parity is None or self.parity.ok)

    def to_dict(self) -> dict[str, Any]:
        """What ``--json`` prints."""
        return {
            "ok": self.ok,
            "path": str(self.path),
            "block": self.block,
            **self.precision,
            "source": self.source,
            "opset": self.opset,
            "inputs": [port.to_dict() for port in self.inputs],
            "outputs": [port.to_dict() for port in self.outputs],
            "gate": self.gate.to_dict(),
            "parity": self.parity.to_dict() if self.parity is not None else None,
            "layers": [layer.to_dict() for layer in self.layers],
            "operators": self.operators,
            "weight_bytes": self.weight_bytes,
            "folded_batch_norms": self.folded,
            "swap": self.swap.to_dict() if self.swap is not None else None,
            "notes": self.notes,
            "seconds": {stage: round(took, 3) for stage, took in self.seconds.items()},
        }

    def to_text(self) -> str:
        """Ports, what became of the 3-D operators, the verdicts, and what to type next."""
        lines = [f"{self.path}  ({self.weight_bytes / 1e6:.1f} MB of weights, {sum(self.operators.values())} nodes)"]
        for role, ports in (("input", self.inputs), ("output", self.outputs)):
            for port in ports:
                how = f"  packed: {port.packing}" if port.packing else ""
                how += f"  ({port.intake.text})" if port.intake is not None else ""
                lines.append(
                    f"  {role:<6} {port.name:<12} {shape_text(port.shape)} -> {shape_text(port.physical)}{how}"
                )
        ways = Counter(layer.becomes for layer in self.layers if layer.macs)
        if ways:
            said = ", ".join(f"{count} by {way}" for way, count in ways.most_common())
            lines.append(f"  3-D convolutions: {said}; {self.folded} batch norms folded")
        if (name := self.precision["precision"]) != "fp32":
            how = ""
            if name == "int8":
                how = f", ranges by {self.precision['calibration']} of {self.precision['runs']} runs on clips"
            kept = ", ".join(self.precision.get("keep_fp32", ()))
            lines.append(f"  types  {name}{how}" + (f"; in float32: {kept}" if kept else ""))
        device = self.gate.settings.get("profile")
        passed = "passed: no value above rank 4" + (f", no stated limit of {device} broken" if device else "")
        lines.append(f"  gate   {passed if self.gate.ok else self.gate.to_text()}")
        if self.parity is None:
            lines.append("  parity not checked")
        else:
            lines += [
                "  parity " + line if i == 0 else line for i, line in enumerate(self.parity.to_text().splitlines())
            ]
        if self.swap is not None:
            lines += ["  " + line for line in self.swap.to_text().splitlines()]
        lines.append(f"next: edge4d verify {self.path}")
        lines.append(f"      edge4d build {self.path} --runtime onnxruntime")
        return "\n".join(lines)
