"""Small models with known verdicts, made in code; `CASES` holds them all by name."""

from importlib import import_module

from tests.validators.corpus.case import CASES, Case

__all__ = ["CASES", "Case"]

for _topic in [
    "basics",
    "ports",
    "weights",
    "constants",
    "bodies",
    "functions",
    "containers",
    "declarations",
    "shapes",
    "three_axes",
    "microsoft",
    "precisions",
    "opsets",
]:
    import_module(f"{__name__}.{_topic}")
