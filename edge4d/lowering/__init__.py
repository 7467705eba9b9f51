"""Lowering: a captured ATen graph becomes an equal one in which no value has a rank above four."""

from edge4d.lowering import (
    attention,
    axis_rules,
    gathering,
    matmul,
    norm,
    ordering,
    places,
    pointwise,
    pool,
    recurrent,
    reduce,
    resize,
    sampling,
    scattering,
    view,
    windows,
)  # the rules register themselves
from edge4d.lowering.conv import rules
from edge4d.lowering.registry import Decline, Rule, Site, lowers, register_rule

__all__ = [
    "Decline",
    "Rule",
    "Site",
    "attention",
    "axis_rules",
    "gathering",
    "lowers",
    "matmul",
    "norm",
    "ordering",
    "places",
    "pointwise",
    "pool",
    "recurrent",
    "reduce",
    "register_rule",
    "resize",
    "rules",
    "sampling",
    "scattering",
    "view",
    "windows",
]
