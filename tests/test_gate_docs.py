"""docs/gate.md says what the gate does: its tables, its profile and its Python."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import onnx
import pytest
import torch

from benchmarks.gate_peers import GROUPS
from edge4d.validators import CODES
from edge4d.validators.formats import FORMATS
from edge4d.validators.profile import KINDS, load_profile
from tests.test_docs import fenced, write_script
from tests.validators import onnx_models as zoo
from tests.validators.corpus import CASES

GATE = Path(__file__).resolve().parents[1] / "docs" / "gate.md"
TEXT = GATE.read_text(encoding="utf-8")


def rows(head: str) -> list[list[str]]:
    """The cells of the table whose first column is called so."""
    (table,) = re.findall(rf"^\| {re.escape(head)} \|.*\n\|[-|]+\n((?:\|.*\n)+)", TEXT, re.M)
    return [[cell.strip().strip("`") for cell in line.strip("|").split("|")] for line in table.splitlines()]


def test_the_table_of_codes_is_complete():
    assert [row[:2] for row in rows("code")] == [[code, CODES[code].name] for code in sorted(CODES)]


def test_the_table_of_formats_is_complete():
    assert [row[0] for row in rows("format")] == list(FORMATS)


def test_the_table_of_limits_is_complete():
    told = {name: row for row in rows("kind") for name in re.findall(r"[\w-]+", row[0])}
    assert set(told) == set(KINDS)
    for name, kind in KINDS.items():
        keys = set(re.findall(r"[\w-]+", told[name][2])) - {"perhaps"}
        assert keys == kind.required | kind.optional, name


def test_the_table_of_other_tools_is_of_this_corpus():
    """A corpus that has changed since is another one: `benchmarks/gate_peers.py` makes the table anew."""
    text = GATE.with_name("gate_peers.md").read_text(encoding="utf-8")
    members = [sum(belongs(case) for case in CASES.values()) for belongs in GROUPS.values()]
    assert f"holds {len(CASES)} small models" in text
    assert f"on the {len(CASES)} models" in TEXT
    (head,) = re.findall(r"^\| flags, of (\d+) \| (.*) \|$", text, re.M)
    assert int(head[0]) == len(CASES)
    assert [int(n) for n in re.findall(r"\((\d+)\)", head[1])][: len(members)] == members


def test_the_profile_is_one(tmp_path):
    (text,) = fenced(TEXT, "toml")
    (tmp_path / "npu.toml").write_text(text, encoding="utf-8")
    profile = load_profile(str(tmp_path / "npu.toml"))
    assert (profile.name, profile.max_rank, len(profile.bounds)) == ("my-npu", 4, 2)


def test_the_python_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    onnx.save(zoo.plain(), "model.onnx")
    program = torch.export.export(torch.nn.Conv3d(1, 1, 1).eval(), (torch.zeros(1, 1, 2, 2, 2),))
    torch.export.save(program, "model.pt2")
    after = runpy.run_path(str(write_script(tmp_path, GATE)))
    assert not after["report"].ok
    assert "False fail 5" in capsys.readouterr().out


@pytest.mark.parametrize("code", sorted(CODES))
def test_codes_mean_in_the_docs_what_they_mean_in_the_program(code):
    """Each line of the table shares its nouns with the explanation that the command gives."""
    (row,) = [row for row in rows("code") if row[0] == code]
    words = set(re.findall(r"\w{5,}", CODES[code].explanation))
    assert words & set(re.findall(r"\w{5,}", row[2]))
