"""`edge4d verify`: the gate."""

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from edge4d.cli.options import Json
from edge4d.cli.output import emit_json, emit_text, note, print_error
from edge4d.errors import UsageError
from edge4d.validators.formats import FORMATS, render

_FAIL_ON = ("error", "warning", "never")


def command(
    models: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[MODEL]...", help="ONNX files, torch.export archives, or folders of both."),
    ] = None,
    max_rank: Annotated[
        int | None, typer.Option("--max-rank", min=1, help="The most axes that a value may have; 4 by default.")
    ] = None,
    profile: Annotated[
        list[str] | None,
        typer.Option("--profile", metavar="NAME|FILE", help="Hold against a device's documented limits; repeatable."),
    ] = None,
    select: Annotated[
        list[str] | None, typer.Option("--select", metavar="CODE", help="Only these rules; codes, E4D1, names, or ALL.")
    ] = None,
    ignore: Annotated[
        list[str] | None,
        typer.Option("--ignore", metavar="CODE", help="All rules but these; the rest is counted."),
    ] = None,
    warn: Annotated[
        list[str] | None, typer.Option("--warn", metavar="CODE", help="Make the findings of these rules warnings.")
    ] = None,
    fail_on: Annotated[
        str, typer.Option("--fail-on", metavar="|".join(_FAIL_ON), help="The mildest finding that gives exit code 1.")
    ] = "error",
    baseline: Annotated[
        Path | None, typer.Option("--baseline", metavar="FILE", help="Findings that are known already.")
    ] = None,
    write_baseline: Annotated[
        Path | None, typer.Option("--write-baseline", metavar="FILE", help="Write what is found as known from now on.")
    ] = None,
    form: Annotated[str, typer.Option("--format", metavar="|".join(FORMATS), help="How to print the result.")] = "text",
    as_json: Json = False,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write the result there, not to stdout.")
    ] = None,
    summary: Annotated[
        Path | None,
        typer.Option("--summary", metavar="FILE", help="Append a Markdown summary; $GITHUB_STEP_SUMMARY with github."),
    ] = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show all findings and their chains.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show nothing of files that pass.")] = False,
    explain: Annotated[
        str | None, typer.Option("--explain", metavar="CODE", help="Say what a rule means, and end.")
    ] = None,
    list_rules: Annotated[bool, typer.Option("--list-rules", help="List the rules, and end.")] = False,
    list_profiles: Annotated[bool, typer.Option("--list-profiles", help="List the device profiles, and end.")] = False,
) -> None:
    """Check that nothing in a model exceeds rank 4 or works on three spatial axes.

    MODEL is an ONNX file or a torch.export archive (.pt2), in which nothing is run. Inputs, outputs, results of nodes,
    weights, tensor attributes, subgraphs and local functions are looked at. A rank that cannot be proven is a finding.
    The exit code is 1 on a finding and 2 when a file cannot be read.

    Examples:
        edge4d verify model.onnx
        edge4d verify model.pt2
        edge4d verify models/ --quiet --format github
        edge4d verify model.onnx --profile rknn --profile edgetpu
        edge4d verify model.onnx --format sarif -o edge4d.sarif
        edge4d verify models/ --write-baseline known.json
        edge4d verify --explain E4D001
    """
    if explain is not None or list_rules or list_profiles:
        _tell(explain, list_rules, as_json or form == "json")
        return
    form = "json" if as_json else form
    _check_choice("--format", form, tuple(FORMATS))
    _check_choice("--fail-on", fail_on, _FAIL_ON)
    from edge4d.validators.selection import Selection
    from edge4d.verifying import Limits, verify

    gate = verify(
        models or [],
        Limits(max_rank, tuple(profile or ())),
        selection=Selection.of(select or (), ignore or (), warn or (), fail_on),  # type: ignore[arg-type] # checked above
        baseline=baseline,
        write_baseline=write_baseline,
    )
    for broken in gate.unreadable:
        print_error(broken.message, broken.hint)
    for sentence in gate.notes:
        note(f"note: {sentence}")
    if form == "text":
        from edge4d.validators.formats import text

        text_form = text.render(gate, colour=output is None and _colour(), quiet=quiet, verbose=verbose)
        _write(text_form, output)
    else:
        _write(render(form, gate), output)
    _append_summary(summary, form, gate)
    if gate.exit_code:
        raise typer.Exit(gate.exit_code)


def _tell(explain: str | None, list_rules: bool, as_json: bool) -> None:
    from edge4d.tables import table
    from edge4d.validators import explaining

    if explain is not None:
        emit_text(explaining.explain(explain))
    elif list_rules:
        rules = explaining.list_rules()
        if as_json:
            emit_json({"rules": rules})
        else:
            emit_text(table(["code", "name", "what"], [[r["code"], r["name"], r["explanation"]] for r in rules]))
    else:
        _tell_profiles(as_json)


def _tell_profiles(as_json: bool) -> None:
    from edge4d.validators.profile import shipped_profiles

    profiles = shipped_profiles()
    if as_json:
        emit_json({"profiles": [profile.to_dict() for profile in profiles]})
        return
    for profile in profiles:
        emit_text(f"{profile.name}: {profile.title}, {profile.toolchain}")
        for bound in profile.bounds:
            emit_text(f"  {bound.kind}: {bound.states}\n    {bound.cited}")
        if profile.notes:
            emit_text(f"  note: {profile.notes}")


def _check_choice(option: str, given: str, known: tuple[str, ...]) -> None:
    if given not in known:
        raise UsageError(f"unknown {option.lstrip('-')} {given!r}, expected one of: {', '.join(known)}")


def _colour() -> bool:
    """Colour only for a person at a terminal, and not for one who does not want it."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def _write(text: str, output: Path | None) -> None:
    if output is not None:
        from edge4d.files import atomic_write

        atomic_write(output, (text.rstrip("\n") + "\n").encode("utf-8", "backslashreplace"))
    elif text:
        emit_text(text)


def _append_summary(summary: Path | None, form: str, gate: Any) -> None:
    """For the page of a CI job, to which every step appends."""
    given = os.environ.get("GITHUB_STEP_SUMMARY") if form == "github" else None
    path = summary or (Path(given) if given else None)
    if path is None:
        return
    try:
        with path.open("a", encoding="utf-8", errors="backslashreplace") as stream:
            stream.write(render("markdown", gate))
    except OSError as error:
        raise UsageError(f"--summary {path}: cannot be written: {error.strerror or error}") from error
