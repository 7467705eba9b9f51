"""What Rockchip's compiler tells of an engine, read from its log: each layer, where it runs, and what it costs."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from edge4d.tables import table

__all__ = ["Layer", "LayerTable", "parse", "source_of"]

_PREFIX = r"[DIWE] RKNN: \[[\d:.]+\] "
_ROW = re.compile(
    rf"{_PREFIX}\d+\s+(?P<op>\w+)\s+(?P<dtype>\w+)\s+(?P<target>\w+)\s+(?P<inputs>\S+)\s+(?P<output>\S+)\s+"
    r"(?P<ddr>\d+)/(?P<npu>\d+)/(?P<total>\d+)\s+(?:[\d.]+%\s+)?(?P<traffic>[\d.]+)(?:\s+(?P<name>\S.*?))?\s*"
)
_ANY_ROW = re.compile(rf"{_PREFIX}\d+\s+\w.*")
_ERROR = re.compile(r"E RKNN: \[[\d:.]+\] (?P<text>.+?)\s*")
_MEMORY = re.compile(rf"{_PREFIX}Total (?P<what>Internal|Weight) Memory Size: (?P<kib>[\d.]+)KB\s*")
_TITLE = "Network Layer Information Table"
_ENDS = ("InputOperator", "OutputOperator")


@dataclass(frozen=True)
class Layer:
    """One row of the compiler's table.

    Attributes:
        name: the compiler's, e.g. ``Conv:layer1.0.conv1.0/Conv_2``; empty for what it adds itself.
        op: the compiler's kind, e.g. ``ConvAddRelu``.
        target: ``NPU`` or ``CPU``.
        dtype: e.g. ``FLOAT16``.
        inputs: shapes as the compiler abbreviates them.
        output: shape; empty for the graph's output.
        npu_cycles: of arithmetic; the compiler counts convolutions and leaves 0 for all else.
        ddr_cycles: of memory traffic, likewise.
        total_cycles: the greater of both.
        traffic_kib: read and written.
        source: layer of the network that was exported; empty where it is not known.
    """

    name: str
    op: str
    target: str
    dtype: str
    inputs: str
    output: tuple[int, ...]
    npu_cycles: int
    ddr_cycles: int
    total_cycles: int
    traffic_kib: float
    source: str = ""

    @property
    def is_end(self) -> bool:
        """Whether it only takes the graph's inputs or gives its outputs, which the compiler counts to the CPU."""
        return self.op in _ENDS

    @property
    def place(self) -> str:
        """For messages: ``Reshape graph/Reshape_rs (layer layer1.0)``."""
        name = self.name.partition(":")[2] or self.name
        return f"{self.op} {name}".rstrip() + (f" (layer {self.source})" if self.source else "")


@dataclass(frozen=True)
class LayerTable:
    """The compiler's table and totals.

    Attributes:
        layers: in the order in which they run.
        internal_kib: memory for values; None when the log does not tell.
        weight_kib: memory for weights, likewise.
        errors: what the log calls an error although an engine was made, with how often.
        unread: rows of the table that are written in a way that edge4d does not know; the sums lack them.
    """

    layers: tuple[Layer, ...]
    internal_kib: float | None
    weight_kib: float | None
    errors: Mapping[str, int]
    unread: int = 0

    @property
    def on_cpu(self) -> tuple[Layer, ...]:
        """What does not run on the NPU, the graph's own inputs and outputs apart."""
        return tuple(layer for layer in self.layers if layer.target != "NPU" and not layer.is_end)

    def totals(self) -> dict[str, Any]:
        """Sums over all layers, JSON-ready."""
        return {
            "npu_cycles": sum(layer.npu_cycles for layer in self.layers),
            "total_cycles": sum(layer.total_cycles for layer in self.layers),
            "traffic_kib": sum(layer.traffic_kib for layer in self.layers),
            "internal_kib": self.internal_kib,
            "weight_kib": self.weight_kib,
            "layers": len(self.layers),
            "on_cpu": len(self.on_cpu),
            "unread": self.unread,
        }

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: ``totals``, ``on_cpu``, ``log_errors`` and ``layers``."""
        return {
            "totals": self.totals(),
            "on_cpu": [layer.place for layer in self.on_cpu],
            "log_errors": dict(self.errors),
            "layers": [asdict(layer) | {"output": list(layer.output)} for layer in self.layers],
        }

    def to_text(self, *, every: bool = False) -> str:
        """A table for people: one row for each kind of operator and target, or for every layer."""
        if every:
            columns = ["layer", "op", "target", "output", "NPU cycles", "KiB moved"]
            rows = [
                [
                    layer.source or layer.name.partition(":")[2],
                    layer.op,
                    layer.target,
                    "x".join(map(str, layer.output)),
                    f"{layer.npu_cycles:,}",
                    f"{layer.traffic_kib:,.0f}",
                ]
                for layer in self.layers
            ]
            text = table(columns, rows, right=(4, 5))
        else:
            groups: dict[tuple[str, str], list[Layer]] = {}
            for layer in self.layers:
                groups.setdefault((layer.op, layer.target), []).append(layer)
            rows = [
                [
                    op,
                    target,
                    str(len(group)),
                    f"{sum(layer.npu_cycles for layer in group):,}",
                    f"{sum(layer.traffic_kib for layer in group):,.0f}",
                ]
                for (op, target), group in groups.items()
            ]
            text = table(["op", "target", "count", "NPU cycles", "KiB moved"], rows, right=(2, 3, 4))
        totals = self.totals()
        ending = f"{totals['npu_cycles']:,} NPU cycles, {totals['traffic_kib']:,.0f} KiB moved"
        if self.internal_kib is not None and self.weight_kib is not None:
            ending += f"; memory: {self.weight_kib:,.0f} KiB weights, {self.internal_kib:,.0f} KiB values"
        return f"{text}\n{ending}"


def parse(log: str, sources: Mapping[str, str] | None = None) -> LayerTable:
    """Read a verbose log of rknn-toolkit2.

    Args:
        log: without colours. Of several tables (it compiles some models twice) the last one counts.
        sources: source layer by name of an ONNX node or of a value that it makes.

    Returns:
        A table without layers where the log has none.
    """
    layers: list[Layer] = []
    memory: dict[str, float] = {}
    errors: Counter[str] = Counter()
    inside, unread = False, 0
    for line in log.splitlines():
        if _TITLE in line:
            layers, inside, unread = [], True, 0
        elif "Information Table" in line:
            inside = False
        elif inside and (row := _ROW.fullmatch(line)):
            layers.append(_layer(row, sources or {}))
        elif inside and _ANY_ROW.fullmatch(line):
            unread += 1
        elif found := _MEMORY.fullmatch(line):
            memory[found["what"]] = float(found["kib"])
        elif found := _ERROR.fullmatch(line):
            errors[re.sub(r"0x[0-9a-f]+", "0x…", found["text"])] += 1
    return LayerTable(tuple(layers), memory.get("Internal"), memory.get("Weight"), errors, unread)


def source_of(name: str, sources: Mapping[str, str]) -> str:
    """The source layer of one of the compiler's names: an ONNX name as it is, or with what the compiler added to it.

    The compiler appends ``_rs``, ``#2``, ``_group_0``, ``_tile1_ConvAdd``…; the longest ONNX name in front counts. A
    bare number is no such addition: ``Conv_12`` is not part of ``Conv``.
    """
    own = name.partition(":")[2] or name
    if own in sources:
        return sources[own]
    for end in range(len(own) - 1, 0, -1):
        rest = own[end:]
        if rest[0] in "_#" and not re.match(r"_\d+(?:$|[_#])", rest) and own[:end] in sources:
            return sources[own[:end]]
    return ""


def sources_of(nodes: Iterable[Any], key: str = "edge4d.layer") -> dict[str, str]:
    """Source layers by name of ONNX nodes and of the values they make, from the metadata that edge4d writes."""
    found: dict[str, str] = {}
    for node in nodes:
        layer = next((str(entry.value) for entry in node.metadata_props if entry.key == key), "")
        if layer:
            found.update(dict.fromkeys((node.name, *node.output), layer))
    return found


def _layer(row: re.Match[str], sources: Mapping[str, str]) -> Layer:
    name = row["name"] or ""
    return Layer(
        name=name,
        op=row["op"],
        target=row["target"],
        dtype=row["dtype"],
        inputs="" if row["inputs"] == "\\" else row["inputs"],
        output=_shape(row["output"]),
        npu_cycles=int(row["npu"]),
        ddr_cycles=int(row["ddr"]),
        total_cycles=int(row["total"]),
        traffic_kib=float(row["traffic"]),
        source=source_of(name, sources),
    )


def _shape(text: str) -> tuple[int, ...]:
    """The first shape of a cell: ``(8,64,56,56),...``."""
    first: Sequence[str] = re.findall(r"\d+", text.partition(")")[0])
    return tuple(int(size) for size in first)
