"""`edge4d verify`: the gate."""

from pathlib import Path
from typing import Annotated, Any

import typer

from edge4d.cli.options import Json
from edge4d.cli.output import emit_json, emit_text, print_error
from edge4d.errors import Edge4dError, UsageError

_FORMATS = ("text", "json")


def command(
    models: Annotated[list[Path], typer.Argument(metavar="MODEL.onnx…", help="ONNX files, without their weights.")],
    max_rank: Annotated[int, typer.Option("--max-rank", min=1, help="The most axes that a value may have.")] = 4,
    form: Annotated[
        str, typer.Option("--format", metavar="|".join(_FORMATS), help="How to print the result.")
    ] = "text",
    as_json: Json = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show every finding.")] = False,
) -> None:
    """Check that nothing in an ONNX file exceeds rank 4 or works on three spatial axes.

    Inputs, outputs, results of nodes, weights, tensor attributes, subgraphs and local functions are looked at. A rank
    that cannot be proven is a finding. The exit code is 1 on a finding and 2 when a file cannot be read.

    Examples:
        edge4d verify model.onnx
        edge4d verify a.onnx b.onnx --verbose
        edge4d verify model.onnx --max-rank 5
        edge4d verify model.onnx --json | jq '.reports[].findings[].where.layer'
    """
    if form not in _FORMATS:
        raise UsageError(f"unknown format {form!r}, expected one of: {', '.join(_FORMATS)}")
    from edge4d.checking import verify_paths

    reports: list[dict[str, Any]] = []
    code = 0
    for path, result in verify_paths(models, max_rank=max_rank):
        if isinstance(result, Edge4dError):
            print_error(result.message, result.hint)
            error = {"type": type(result).__name__, "message": result.message, "hint": result.hint}
            reports.append({"path": str(path), "ok": False, "exit_code": result.exit_code, "error": error})
            code = max(code, result.exit_code)
            continue
        reports.append(result.to_dict())
        code = max(code, result.exit_code)
        if not as_json and form == "text":
            emit_text(result.to_text(limit=None if verbose else 5))
    if as_json or form == "json":
        emit_json({"ok": code == 0, "exit_code": code, "reports": reports})
    if code:
        raise typer.Exit(code)
