"""The paper's Table II as printed, and the table that is set beside it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from edge4d.tables import table

__all__ = ["PAPER", "Comparison", "PaperFigures", "Row"]


@dataclass(frozen=True)
class PaperFigures:
    """A line of the paper's Table II.

    Attributes:
        parameters: millions.
        frames_per_s: on NVIDIA V100; batch and software are not told.
        macs: billions; the paper's "FLOPs", see `edge4d.models.eco_lite`.
    """

    parameters: float
    frames_per_s: int
    macs: float


PAPER = {
    "conv3d": PaperFigures(33.7, 773, 35.6),
    "r2plus1d": PaperFigures(33.7, 764, 36.9),
    "proposed-cat": PaperFigures(32.2, 774, 32.7),
    "proposed-add": PaperFigures(16.3, 865, 17.1),
    "p3d-a": PaperFigures(22.5, 824, 19.5),
    "p3d-b": PaperFigures(23.5, 791, 20.9),
    "p3d-c": PaperFigures(22.8, 758, 19.6),
    "rank-1": PaperFigures(13.7, 724, 14.7),
}
"""Table II, for ECO-Lite."""


@dataclass(frozen=True)
class Row:
    """One structure.

    Attributes:
        structure, title: as `edge4d.blocks` and as the paper spells it.
        parameters: of the whole network.
        macs: multiply-accumulates of the 3D-Net for one clip, as the module is written.
        graph_macs: the same of the lowered 4-D graph: transforms save products, folded time multiplies zeros.
        paper: the paper's line; None for another network than the paper's.
        frames_per_s: of the whole network in ONNX Runtime; None when it was not measured.
        latency_ms: median of one clip.
        speedup: against the Conv3D network as a 5-D graph.
        ok: whether the exported graph passed gate and parity; None when it was not exported.
        failure: why there is no speed although it was asked for.
    """

    structure: str
    title: str
    parameters: int
    macs: int
    graph_macs: int
    paper: PaperFigures | None = None
    frames_per_s: float | None = None
    latency_ms: float | None = None
    speedup: float | None = None
    ok: bool | None = None
    failure: str | None = None

    def difference(self, figure: str) -> float | None:
        """Relative difference to the paper in ``parameters`` or ``macs``; None without the paper's figure."""
        if self.paper is None:
            return None
        unit, printed = {"parameters": (1e6, self.paper.parameters), "macs": (1e9, self.paper.macs)}[figure]
        return float(getattr(self, figure)) / unit / printed - 1

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready mapping."""
        return asdict(self) | {
            "parameters_difference": self.difference("parameters"),
            "macs_difference": self.difference("macs"),
        }


@dataclass(frozen=True)
class Comparison:
    """The table.

    Attributes:
        model: a name of `edge4d.models`.
        input_shape: (1, 3, T, H, W) of the clip.
        rows: in the order of the paper.
        frame_macs: multiply-accumulates of the 2D-Net for one clip, the same for every structure.
        native: speed of the Conv3D network as a 5-D graph: ``frames_per_s``, ``latency_ms``, ``failure``.
        speed: how it was measured; empty when it was not.
        notes: sentences on the reading.
    """

    model: str
    input_shape: tuple[int, ...]
    rows: tuple[Row, ...]
    frame_macs: int
    native: dict[str, Any] | None = None
    speed: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether everything that was exported passed gate and parity and ran, the 5-D graph left out."""
        return all(row.ok is not False and row.failure is None for row in self.rows)

    def row(self, structure: str) -> Row | None:
        """The line of a structure, None where it was not asked for."""
        return next((row for row in self.rows if row.structure == structure), None)

    def to_dict(self) -> dict[str, Any]:
        """What ``--json`` prints."""
        return {
            "ok": self.ok,
            "model": self.model,
            "input_shape": list(self.input_shape),
            "rows": [row.to_dict() for row in self.rows],
            "frame_macs": self.frame_macs,
            "native": self.native,
            "speed": self.speed,
            "notes": list(self.notes),
        }

    def to_text(self) -> str:
        """The table for people: ours, the paper's in the columns headed so, and what the reader must know."""
        head = ["structure", "params M", "paper", "diff", "MACs G", "paper", "diff", "4-D graph G", "FPS", "paper"]
        lines = [[row.title, *_cells(row), *_speed(row)] for row in self.rows]
        if self.native is not None:
            fps = self.native["frames_per_s"]
            rates = [f"{fps:.1f}", "-", "1.00"] if fps is not None else ["failed", "-", "-"]
            lines.append(["Conv3D, 5-D graph", *["-"] * 7, *rates])
        text = [table([*head, "speedup"], lines, right=tuple(range(1, 11))), ""]
        failed = [f"{row.title} failed: {row.failure}" for row in self.rows if row.failure is not None]
        if self.native is not None and self.native["failure"] is not None:
            failed.append(f"Conv3D as a 5-D graph failed: {self.native['failure']}")
        failed += [f"{row.title}: the exported graph failed the gate or parity" for row in self.rows if row.ok is False]
        return "\n".join([*text, *failed, *self.notes])


def _cells(row: Row) -> list[str]:
    cells = []
    for figure, unit in (("parameters", 1e6), ("macs", 1e9)):
        difference = row.difference(figure)
        value = getattr(row, figure) / unit
        cells.append(f"{value:.2f}" if value >= 1 else f"{value:.4f}")
        cells.append(f"{getattr(row.paper, figure):.1f}" if row.paper is not None else "-")
        cells.append(f"{difference:+.1%}" if difference is not None else "-")
    graph = row.graph_macs / 1e9
    return [*cells, f"{graph:.2f}" if graph >= 1 else f"{graph:.4f}"]


def _speed(row: Row) -> list[str]:
    return [
        f"{row.frames_per_s:.1f}" if row.frames_per_s is not None else "-",
        str(row.paper.frames_per_s) if row.paper is not None else "-",
        f"{row.speedup:.2f}" if row.speedup is not None else "-",
    ]
