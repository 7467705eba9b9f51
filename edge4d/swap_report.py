"""What a swap did to each layer, and how far the numbers have moved."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from edge4d.tables import table

__all__ = ["RECOVERY", "Calibration", "Distance", "SwapReport", "SwapRow"]

RECOVERY = "`edge4d tune` recovers accuracy"
"""What to do about changed numbers."""


@dataclass
class SwapRow:
    """One Conv3d.

    Attributes:
        layer: its name in the model.
        block: what replaced it; None when it was left alone.
        reason: why it was left alone.
        kernel: its kernel (kT, kH, kW).
        in_channels, out_channels: of the layer.
        parameters_before, parameters_after: weights and biases; what an earlier layer has counted is not counted again.
        input_shape, output_shape: of its first call, when example inputs were given.
        macs_before, macs_after: multiply-accumulates of all its calls, likewise; None when it was not called.
        relative_error: ‖K − W‖/‖W‖ of the data-free fit; None where the block equals no Conv3d.
        output_error: of the layer's output on the calibration clips: (data-free, calibrated).
        shared_with: an earlier layer of the same weight and bias, whose block this one shares; its calls count there.
        scarce: whether the calibration clips have fewer output places than a weight of the layer has taps.
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
    shared_with: str | None = None
    scarce: bool = False

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
        clips: how many sets of inputs.
        inputs: what they were.
    """

    output: str
    relative_error: float
    cosine: float
    top1: float | None
    clips: int
    inputs: str = "random inputs"

    def to_text(self) -> str:
        """One sentence."""
        agreed = f", top-1 agrees on {self.top1:.0%}" if self.top1 is not None else ""
        return (
            f"{self.output}: relative error {self.relative_error:.3g}, cosine {self.cosine:.4f}{agreed}"
            f" ({self.clips} {self.inputs})"
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
        counted: whether calls were counted, on example inputs.
    """

    block: str
    rows: tuple[SwapRow, ...]
    distance: tuple[Distance, ...] = ()
    calibration: Calibration | None = field(default=None)
    counted: bool = False

    @property
    def replaced(self) -> tuple[SwapRow, ...]:
        """The rows of the layers that were replaced."""
        return tuple(row for row in self.rows if row.block is not None)

    @property
    def left_alone(self) -> tuple[SwapRow, ...]:
        """The rows of the layers that were not."""
        return tuple(row for row in self.rows if row.block is None)

    @property
    def idle(self) -> tuple[SwapRow, ...]:
        """Replaced, but never called on the example inputs: not needed there, or reached in some other way."""
        if not self.counted:
            return ()
        return tuple(row for row in self.replaced if row.macs_after is None and row.shared_with is None)

    def totals(self) -> dict[str, int]:
        """Parameters of all 3-D convolutions before and after, and multiply-accumulates where they were counted."""
        sums = {side: sum(getattr(row, f"parameters_{side}") for row in self.rows) for side in ("before", "after")}
        found = {f"parameters_{side}": total for side, total in sums.items()}
        if self.counted:
            for side in ("before", "after"):
                found[f"macs_{side}"] = sum(getattr(row, f"macs_{side}") or 0 for row in self.rows)
        return found

    def to_dict(self) -> dict[str, Any]:
        """What ``--json`` prints."""
        return {
            "block": self.block,
            **self.totals(),
            "layers": [row.to_dict() for row in self.rows],
            "distance": [vars(entry) for entry in self.distance],
            "calibration": vars(self.calibration) if self.calibration is not None else None,
        }

    def to_text(self) -> str:
        """A table of the layers, then what the numbers have become."""
        rows = [
            [
                row.layer or "(model)",
                _said(row),
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
        total = self.totals()
        counts = f"parameters {total['parameters_before']:,} -> {total['parameters_after']:,}"
        if "macs_after" in total:
            counts += f", M MACs {_mega(total['macs_before'])} -> {_mega(total['macs_after'])}"
        lines.append(f"{len(self.replaced)} of {len(self.rows)} 3-D convolutions replaced ({self.block}): {counts}")
        if self.idle:
            named = ", ".join(row.layer or "(model)" for row in self.idle)
            lines.append(f"never called as modules on these inputs, so that their blocks change nothing: {named}")
        if self.calibration is not None:
            lines.append(self.calibration.to_text())
            scarce = ", ".join(row.layer or "(model)" for row in self.rows if row.scarce)
            if scarce:
                lines.append(f"too few clips to fit {scarce}: other clips will come out worse than these; give more")
        if any(row.block != "conv3d" for row in self.replaced):
            lines.append(f"the numbers change, against the original model; {RECOVERY}" + ":" * bool(self.distance))
        lines += [f"  {entry.to_text()}" for entry in self.distance]
        return "\n".join(lines)


def _said(row: SwapRow) -> str:
    if row.block is None:
        return f"left alone: {row.reason}"
    return row.block if row.shared_with is None else f"{row.block} (that of {row.shared_with})"


def _mega(macs: int | None) -> str:
    return f"{macs / 1e6:.1f}" if macs is not None else ""
