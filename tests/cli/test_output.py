"""What goes to stdout and what to stderr."""

from __future__ import annotations

import json

import pytest

from edge4d.cli.options import parse_shapes
from edge4d.cli.output import emit_json, emit_text, print_error, stage
from edge4d.errors import UsageError
from edge4d.tables import table


def test_json_has_no_nan(capsys):
    emit_json({"a": [float("nan"), 1.5, float("-inf")], "b": {"c": (float("inf"),)}, "d": None})
    document = json.loads(capsys.readouterr().out, parse_constant=lambda word: pytest.fail(word))
    assert document == {"a": ["nan", 1.5, "-inf"], "b": {"c": ["inf"]}, "d": None}


def test_a_stage_is_told_on_stderr_once_it_is_done(capsys):
    with stage("lowering"):
        pass
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("lowering")
    assert captured.err.rstrip().endswith("s")


def test_a_stage_that_fails_leaves_no_line(capsys):
    def fail():
        with stage("lowering"):
            raise UsageError("no")

    with pytest.raises(UsageError):
        fail()
    assert capsys.readouterr().err == ""


def test_errors_are_printed_as_they_are(capsys):
    print_error("a [bold]message[/bold] " + "x" * 200, hint="a hint")
    assert capsys.readouterr().err == "error: a [bold]message[/bold] " + "x" * 200 + "\n  hint: a hint\n"


def test_a_table_is_aligned():
    text = table(["name", "ms"], [["a", "1"], ["longer", "100"]], right=(1,))
    assert text.splitlines() == ["name     ms", "------  ---", "a         1", "longer  100"]


def test_text_ends_with_one_newline(capsys):
    emit_text("a\n\n")
    assert capsys.readouterr().out == "a\n"


def test_shapes():
    assert parse_shapes(None) == ()
    assert parse_shapes(["1x3x16x112x112", "4"]) == ((1, 3, 16, 112, 112), (4,))
    with pytest.raises(UsageError, match="--input-shape"):
        parse_shapes(["1x0"])
