"""What a swap did to each layer, and how far the numbers have moved."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from edge4d.tables import table

__all__ = ["Calibration", "Distance", "SwapReport", "SwapRow"]


@dataclass
class SwapRow:
    """One Conv3d.

    Attributes:
        layer: its name in the model.
        block: what replaced it; None when it was left alone.
        reason: why it was left alone.
        kernel: its kernel (kT, kH, kW).
        in_channels, out_channels: of the layer.
        parameters_before, parameters_after: weights and biases.
        input_shape, output_shape: of its first call, when example inputs were given.
        macs_before, macs_after: multiply-accumulates of all its calls, likewise.
        relative_error: ‖K − W‖/‖W‖ of the data-free fit; None where the block equals no Conv3d.
        output_error: of the layer's output on the calibration clips: (data-free, calibrated).
    """

    layer: str
    block: str | None
    reason: str
    kernel: tuple[int, int, int]
    in_channels: int
    out_channels: int
    parameters_before: int
    parameters_after: int
    input_shape: tuple[int, ...] | None = None
    output_shape: tuple[int, ...] | None = None
    macs_before: int | None = None
    macs_after: int | None = None
    relative_error: float | None = None
    output_error: tuple[float, float] | None = None

    def to_dict(self) -> dict[str, Any]:
        """What ``--json`` prints."""
        return dict(vars(self))


@dataclass(frozen=True)
class Distance:
    """How far the rewritten network is from the original, at one output.

    Attributes:
        output: its name.
        relative_error: ‖b − a‖/‖a‖ over all clips.
        cosine: of all numbers as one vector.
        top1: share of the rows whose greatest entry is the same; None for an output that is not (N, classes).
        clips: how many sets of random inputs.
    """

    output: str
    relative_error: float
    cosine: float
    top1: float | None
    clips: int

    def to_text(self) -> str:
        """One sentence."""
        agreed = f", top-1 agrees on {self.top1:.0%}" if self.top1 is not None else ""
        return (
            f"{self.output}: relative error {self.relative_error:.3g}, cosine {self.cosine:.4f}{agreed}"
            f" ({self.clips} random inputs)"
        )


@dataclass(frozen=True)
class Calibration:
    """What calibration did to the whole network, on the calibration clips.

    Attributes:
        clips: how many.
        before, after: relative error at the output, data-free and calibrated.
        kept: whether the calibrated weights were kept: they are not where they would be worse.
        norms: whether re-estimated batch-norm statistics were kept, likewise.
    """

    clips: int
    before: float
    after: float
    kept: bool
    norms: bool

    def to_text(self) -> str:
        """One sentence."""
        verdict = "" if self.kept else "; the data-free fit was kept"
        verdict += "; batch norms re-estimated" if self.norms else ""
        return f"calibrated on {self.clips} clips: error at the output {self.before:.3g} -> {self.after:.3g}{verdict}"


@dataclass
class SwapReport:
    """Every Conv3d of a network, in its order.

    Attributes:
        block: the structure, or ``mixed: …``.
        rows: one a layer, the ones left alone too.
        distance: at each output, when it was measured.
        calibration: when clips were given.
    """

    block: str
    rows: tuple[SwapRow, ...]
    distance: tuple[Distance, ...] = ()
    calibration: Calibration | None = field(default=None)

    @property
    def replaced(self) -> tuple[SwapRow, ...]:
        """The rows of the layers that were replaced."""
        return tuple(row for row in self.rows if row.block is not None)

    @property
    def left_alone(self) -> tuple[SwapRow, ...]:
        """The rows of the layers that were not."""
        return tuple(row for row in self.rows if row.block is None)

    def to_dict(self) -> dict[str, Any]:
        """What ``--json`` prints."""
        return {
            "block": self.block,
            "parameters_before": sum(row.parameters_before for row in self.rows),
            "parameters_after": sum(row.parameters_after for row in self.rows),
            "layers": [row.to_dict() for row in self.rows],
            "distance": [vars(entry) for entry in self.distance],
            "calibration": vars(self.calibration) if self.calibration is not None else None,
        }

    def to_text(self) -> str:
        """A table of the layers, then what the numbers have become."""
        rows = [
            [
                row.layer or "(model)",
                row.block or f"left alone: {row.reason}",
                f"{row.parameters_before:,}",
                f"{row.parameters_after:,}",
                _mega(row.macs_before),
                _mega(row.macs_after),
                f"{row.relative_error:.3g}" if row.relative_error is not None else "",
                " -> ".join(f"{error:.3g}" for error in row.output_error) if row.output_error else "",
            ]
            for row in self.rows
        ]
        columns = ["layer", "block", "parameters", "now", "M MACs", "now", "kernel error", "output error"]
        lines = [table(columns, rows, right=(2, 3, 4, 5, 6, 7))]
        lines.append(f"{len(self.replaced)} of {len(self.rows)} 3-D convolutions replaced ({self.block})")
        if self.calibration is not None:
            lines.append(self.calibration.to_text())
        if self.distance:
            lines.append("the numbers change, against the original model; training on recovers accuracy:")
            lines += [f"  {entry.to_text()}" for entry in self.distance]
        return "\n".join(lines)


def _mega(macs: int | None) -> str:
    return f"{macs / 1e6:.1f}" if macs is not None else ""
