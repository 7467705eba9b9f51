"""What each code means, at length: `edge4d verify --explain CODE` and ``--list-rules``."""

from __future__ import annotations

import difflib
from collections.abc import Mapping

from edge4d.errors import UsageError
from edge4d.validators.findings import CODES, Code

__all__ = ["explain", "list_rules", "matching_codes"]

_AT_LENGTH: Mapping[str, str] = {
    "E4D001": """
A graph input or output, the result of a node, a weight (used or not), a constant, or a tensor within an attribute has
more axes than --max-rank allows, at any depth of subgraphs and local functions. Most NPUs, DSPs and delegates stop at
four axes: their compilers refuse the model, or hand that part of it to the CPU without saying so. The finding shows
how the value came about: the last step at which the rank rises is the one to change.""",
    "E4D002": """
The gate proves ranks; it never assumes them. A rank is unknown when a graph input has no shape, when an operator
belongs to a domain that nobody described, when the length of a shape is computed from data, or when the branches of an
If disagree. What the file itself claims (value_info) proves nothing: a stale claim is how a rank of 5 hides. A value
of unknown rank may have any, so this fails. A graph in an operator set that is newer than the installed onnx is unknown
as a whole. Of a torch.export program each operator is run again on shapes alone; one that cannot be, or a higher-order
operator without a rule, leaves its result unknown.""",
    "E4D003": """
Convolution, pooling, resizing, grid sampling or normalisation over depth (or time), height and width. It is recognised
by the operator's attributes and by the ranks of what it works on, in fused, quantised and NHWC variants too, even where
no rank is known. At --max-rank 5 and more such operators are what the target takes, and nothing is said.""",
    "E4D004": """
The file was read, and there was nothing in it that has a rank. A gate that passes an empty file proves nothing, so this
fails. It cannot be ignored, made a warning or put in a baseline.""",
    "E4D005": """
A shape that the file declares (value_info, a graph output, a subgraph's input) has another number of axes than the
graph gives. Tools that trust the declaration see another model than the runtime does. The gate trusts the graph. Of
a torch.export program it is the shape recorded for a value that its operator does not give.""",
    "E4D006": """
A name is used before it is made, or made twice, the graph has no outputs, two local functions share a name, or ONNX's
operator set is not imported, or in two versions. Nothing that is inferred about such a graph means anything, and a
runtime may read it in another way.""",
    "E4D007": """
The file holds graphs that run only during training (training_info), a graph as the default of a function's attribute,
or it is of an IR version whose fields the installed onnx does not know. What is in there is counted nowhere and checked
nowhere.""",
    "E4D101": """
With --profile the graph is held against limits that a device's documents state: ranks, operators, kernels, strides,
sizes, batch. Each limit carries the address of its source, the version it was stated for and the day it was read; the
finding repeats them. A profile that passes says that none of the *stated* limits is broken, not that the device's
compiler takes every operator.""",
    "E4D102": """
A limit of the device concerns a size, rank or number that nothing in the file tells, such as a dynamic batch. The
verdict of the profile is then `unknown`, and the exit code is that of a failure.""",
}


def explain(code: str) -> str:
    """One code at length.

    Args:
        code: a code or a name, in any case.

    Raises:
        UsageError: there is no such code.
    """
    entry = _entry(code)
    return (
        f"{entry.code} {entry.name}\n\n{entry.explanation[0].upper()}{entry.explanation[1:]}.\n"
        f"{_AT_LENGTH[entry.code]}\n\nWhat to do: {entry.hint}"
    )


def list_rules() -> list[dict[str, str]]:
    """Every code with its name, one line of explanation and its hint, in the order of the codes."""
    return [
        {"code": c.code, "name": c.name, "explanation": c.explanation, "hint": c.hint}
        for c in sorted(CODES.values(), key=lambda c: c.code)
    ]


def matching_codes(wanted: str) -> frozenset[str]:
    """The codes that a user means: a code, the beginning of several (``E4D1``), a name, or ``ALL``.

    Raises:
        UsageError: it matches nothing.
    """
    text = wanted.strip().upper()
    if text == "ALL":
        return frozenset(CODES)
    found = {code for code in CODES if text and code.startswith(text)} if text.startswith("E4D") else set()
    return frozenset(found or {_entry(wanted).code})


def _entry(wanted: str) -> Code:
    text = wanted.strip()
    for entry in CODES.values():
        if text.upper() == entry.code or text.lower() == entry.name:
            return entry
    known = [*CODES, *(entry.name for entry in CODES.values())]
    near = difflib.get_close_matches(text.upper(), known, 1) or difflib.get_close_matches(text.lower(), known, 1)
    raise UsageError(
        f"there is no rule {wanted!r}",
        hint=f"did you mean {near[0]}?" if near else "see `edge4d verify --list-rules`",
    )
