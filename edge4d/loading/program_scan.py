"""Looks through a `torch.export` archive's JSON for anything that torch would run.

Reading the JSON is not harmless: operator names are walked by `getattr` from `torch`, size expressions go through
`sympy.sympify` (which evaluates Python), tree specs may import modules, guards and names are pasted into generated
source. So the rule is default-deny: every string must have the form its place calls for.
"""

from __future__ import annotations

import ast
import contextlib
import json
import re
from typing import Any

__all__ = ["Suspicion", "scan_program"]


class Suspicion(Exception):
    """What in the archive could run code, as the end of the sentence "this archive …"."""


# Names with these characters cannot leave a quoted string, an identifier or a comment of generated source.
_PLAIN = re.compile(r"[\w\-./:+@#$<> ]*")
_IDENTIFIER = re.compile(r"([^\W\d]\w*)?")
_KEY = re.compile(r"[\w.\-]*")
# The second form is what torch.export itself writes about a size that depends on data.
_LITERAL = re.compile(
    r"[^\\'\"\x00-\x1f\x7f]*|Runtime assertion failed for expression [^\\'\"\x00-\x1f\x7f]* on node '\w*'"
)
_SYMBOL_TEXT = re.compile(r"[^\W\d]\w*|-?\d[\d.e+\-]*")
_SYM_FUNCTION = re.compile(r"torch\.(_sym|sym)_[a-z]+|math\.[a-z0-9]+|_operator\.[a-z_]+")

_HIGHER_ORDER = frozenset({
    "wrap_with_set_grad_enabled", "wrap_with_autocast", "cond", "map_impl", "while_loop", "scan", "associative_scan",
    "auto_functionalized", "auto_functionalized_v2", "wrap_activation_checkpoint", "tag_activation_checkpoint",
})  # fmt: skip
_OPERATOR_FUNCTIONS = frozenset({
    "getitem", "add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "neg", "pos", "eq", "ne", "lt", "le", "gt",
    "ge", "and_", "or_", "not_", "xor", "lshift", "rshift", "abs",
})  # fmt: skip
# Operators that reach beyond their tensors, to files and other processes: `aten::save`, `image::write_file`…
_OUTSIDE_NAME = re.compile(r"(.*_)?(save|load|read|write|open|file|exec|system)(_.*)?")
_OUTSIDE_NAMESPACES = frozenset({"c10d", "_c10d_functional", "symm_mem", "debugprims", "profiler", "inductor", "rpc"})

# Stack traces and module paths of a node: torch keeps them as text, and looks names up without calling them.
_NOTES = frozenset({"stack_trace", "nn_module_stack", "source_fn_stack", "torch_fn", "custom", "from_node"})

_EXPRESSION_CALLS = frozenset({
    "Symbol", "Integer", "Float", "Rational", "Add", "Mul", "Pow", "Max", "Min", "Mod", "Abs", "floor", "ceiling",
    "sqrt", "Eq", "Ne", "Lt", "Le", "Gt", "Ge", "And", "Or", "Not", "Equality", "Unequality", "StrictLessThan",
    "LessThan", "StrictGreaterThan", "GreaterThan", "FloorDiv", "ModularIndexing", "Where", "PythonMod", "CleanDiv",
    "CeilToInt", "FloorToInt", "CeilDiv", "LShift", "RShift", "PowByNatural", "FloatPow", "FloatTrueDiv", "IntTrueDiv",
    "TruncToFloat", "IsNonOverlappingAndDenseIndicator", "TruncToInt", "RoundToInt", "RoundDecimal", "ToFloat",
    "Identity",
})  # fmt: skip
_GUARD_CALLS = _EXPRESSION_CALLS | {"max", "min"}
_GUARD_METHODS = frozenset({"size", "shape", "stride", "storage_offset", "dim", "ndim", "numel"})
_HARMLESS_NODES = (
    ast.Expression, ast.Constant, ast.Name, ast.Load, ast.Call, ast.keyword, ast.BinOp, ast.UnaryOp, ast.BoolOp,
    ast.Compare, ast.operator, ast.unaryop, ast.boolop, ast.cmpop, ast.Tuple, ast.List,
)  # fmt: skip


def scan_program(program: Any, where: str) -> None:
    """Check the JSON of one program.

    Args:
        program: the parsed JSON of a member ``models/NAME.json``.
        where: that member's name, for the message.

    Raises:
        Suspicion: the first thing that is not plainly data.
    """
    _walk(program, key="", where=where)


def _walk(value: Any, key: str, where: str) -> None:
    if isinstance(value, dict):
        for name, item in value.items():
            if key == "metadata" and name in _NOTES and isinstance(item, str):
                continue
            if name in ("as_custom_obj", "custom_obj"):
                raise Suspicion(f"passes an object other than a tensor to an operator ({where})")
            if key == "range_constraints":  # its keys are sizes, e.g. 2*s39
                _check_source(name, where, "size expression", calls=_EXPRESSION_CALLS, strings=_SYMBOL_TEXT)
            else:
                _require(_PLAIN.fullmatch(name), f"has an unusual name {_short(name)}", where)
            _walk(item, name, where)
    elif isinstance(value, list):
        for item in value:
            _walk(item, key, where)
    elif isinstance(value, str):
        _check_string(value, key, where)


def _check_string(text: str, key: str, where: str) -> None:
    if key in ("target", "as_operator"):
        _check_operator(text, where)
    elif key == "expr_str":
        _check_source(text, where, "size expression", calls=_EXPRESSION_CALLS, strings=_SYMBOL_TEXT)
    elif key == "guards_code":
        _check_source(text, where, "guard", calls=_GUARD_CALLS, strings=_PLAIN, methods=_GUARD_METHODS)
    elif key in ("in_spec", "out_spec"):
        # Keys of inputs end up as argument names in generated source; keys of outputs stay quoted.
        _check_tree(text, where, _KEY if key == "in_spec" else _PLAIN)
    elif key in ("as_string", "as_strings"):
        _require(_LITERAL.fullmatch(text), f"has an unusual text argument {_short(text)}", where)
    elif key in ("name", "as_name", "forward_arg_names"):
        _require(_IDENTIFIER.fullmatch(text), f"has an unusual name {_short(text)}", where)
    else:
        _require(_PLAIN.fullmatch(text), f"has an unusual {key} {_short(text)}", where)


def _require(holds: object, what: str, where: str) -> None:
    if not holds:
        raise Suspicion(f"{what} ({where})")


def _short(text: str) -> str:
    return ascii(text if len(text) <= 80 else text[:77] + "...")


def _check_operator(text: str, where: str) -> None:
    """Only registered operators: torch would take any attribute of `torch` there, `torch.os.system` included."""
    import torch

    parts = text.split(".")
    if text.startswith("torch.ops.higher_order."):
        _require(len(parts) == 4 and parts[3] in _HIGHER_ORDER, f"calls {_short(text)}", where)
        return
    if _SYM_FUNCTION.fullmatch(text):
        _require(parts[0] != "_operator" or parts[1] in _OPERATOR_FUNCTIONS, f"calls {_short(text)}", where)
        return
    _require(text.startswith("torch.ops.") and len(parts) == 5, f"calls {_short(text)}, which is no operator", where)
    namespace, name = parts[2], parts[3]
    _require(
        namespace not in _OUTSIDE_NAMESPACES and not _OUTSIDE_NAME.fullmatch(name),
        f"calls {_short(text)}, which reaches outside the model",
        where,
    )
    target: Any = torch.ops
    for part in parts[2:]:
        target = getattr(target, part, None)
    # An operator nobody registered here cannot run either; torch says which one it is.
    _require(target is None or isinstance(target, torch._ops.OpOverload), f"calls {_short(text)}", where)


def _check_source(
    text: str,
    where: str,
    what: str,
    *,
    calls: frozenset[str],
    strings: re.Pattern[str],
    methods: frozenset[str] = frozenset(),
) -> None:
    """`text` will be evaluated: let it hold arithmetic on names and the named functions, nothing else."""
    complaint = f"has an unusual {what} {_short(text)}"
    try:
        tree = ast.parse(text.strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise Suspicion(f"{complaint} ({where})") from None
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            _require(node.attr in methods, complaint, where)
        elif isinstance(node, ast.Subscript):
            _require(methods, complaint, where)
        elif isinstance(node, ast.Call):
            function = node.func
            named = isinstance(function, ast.Name) and function.id in calls
            _require(named or (isinstance(function, ast.Attribute) and function.attr in methods), complaint, where)
        elif isinstance(node, ast.Name):
            _require(not node.id.startswith("__"), complaint, where)
        elif isinstance(node, ast.Constant):
            text_ok = not isinstance(node.value, str) or strings.fullmatch(node.value)
            _require(text_ok and not isinstance(node.value, bytes), complaint, where)
        else:
            _require(isinstance(node, _HARMLESS_NODES), complaint, where)


def _check_tree(text: str, where: str, keys: re.Pattern[str]) -> None:
    """How inputs and outputs nest. A context with an object in it makes torch import a module by name."""
    try:
        _protocol, spec = json.loads(text)
    except (ValueError, TypeError):
        raise Suspicion(f"has an unusual tree spec {_short(text)} ({where})") from None
    pending = [spec]
    while pending:
        node = pending.pop()
        _require(
            isinstance(node, dict) and {"type", "context", "children_spec"} == set(node),
            "has an unusual tree spec",
            where,
        )
        _require(isinstance(node["children_spec"], list), "has an unusual tree spec", where)
        _require(node["type"] is None or isinstance(node["type"], str), "has an unusual tree spec", where)
        _check_context(node["context"], where, keys)
        pending += node["children_spec"]


def _check_context(context: Any, where: str, keys: re.Pattern[str]) -> None:
    if isinstance(context, str):
        # What is no JSON is a plain name, as named tuples have; judged as text below.
        with contextlib.suppress(ValueError):
            context = json.loads(context)
    pending = [context]
    while pending:
        value = pending.pop()
        if isinstance(value, list):
            pending += value
        elif isinstance(value, str):
            _require(keys.fullmatch(value), f"has an unusual key {_short(value)} in a tree spec", where)
        else:
            _require(
                value is None or isinstance(value, (int, float)),
                f"has a tree spec that names code {_short(str(value))}",
                where,
            )
