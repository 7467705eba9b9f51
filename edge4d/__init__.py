"""edge4d: trained 3-D networks as equal graphs of rank at most four.

Everything here is imported on first use; ``import edge4d`` itself loads neither torch nor ONNX.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from edge4d._version import __version__

if TYPE_CHECKING:
    from edge4d.artifact import open
    from edge4d.exporting import export
    from edge4d.lowered import Lowered, lower, plan
    from edge4d.lowering.registry import register_rule
    from edge4d.ports import Port
    from edge4d.report import ExportReport
    from edge4d.swapping import swap
    from edge4d.tuning.tune import tune

_HOME = {
    "ExportReport": "edge4d.report",
    "Lowered": "edge4d.lowered",
    "Port": "edge4d.ports",
    "export": "edge4d.exporting",
    "lower": "edge4d.lowered",
    "open": "edge4d.artifact",
    "plan": "edge4d.lowered",
    "register_rule": "edge4d.lowering.registry",
    "swap": "edge4d.swapping",
    "tune": "edge4d.tuning.tune",
}
_PACKAGES = ("blocks", "exporters", "loading", "validators")

__all__ = [
    "ExportReport",
    "Lowered",
    "Port",
    "__version__",
    "export",
    "lower",
    "open",
    "plan",
    "register_rule",
    "swap",
    "tune",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    if name in _PACKAGES:
        return import_module(f"edge4d.{name}")
    raise AttributeError(f"module 'edge4d' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, *_PACKAGES])
