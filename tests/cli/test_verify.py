"""`edge4d verify`."""

from __future__ import annotations

import json

import onnx
import pytest

from edge4d.cli import main
from tests.validators import onnx_models as zoo


@pytest.fixture
def files(tmp_path):
    paths = {}
    for make in (zoo.plain, zoo.conv3d, zoo.unknown_operator):
        paths[make.__name__] = str(tmp_path / f"{make.__name__}.onnx")
        onnx.save(make(), paths[make.__name__])
    paths["broken"] = str(tmp_path / "broken.onnx")
    (tmp_path / "broken.onnx").write_bytes(b"?")
    return paths


def test_a_good_file(files, capsys):
    assert main(["verify", files["plain"]]) == 0
    out, err = capsys.readouterr()
    assert out == f"✓ {files['plain']}: ok (checked 1 graph, 1 node, 2 values; highest rank 4)\n"
    assert err == ""


def test_several_files_and_the_worst_exit_code(files, capsys):
    assert main(["verify", files["plain"], files["conv3d"]]) == 1
    out, _ = capsys.readouterr()
    assert out.count("✓") == 1
    assert f"✗ {files['conv3d']}: 1 three-axis-operator, 3 rank-over-limit" in out
    assert main(["verify", files["broken"], files["conv3d"], files["plain"]]) == 2
    out, err = capsys.readouterr()
    assert "not an ONNX model" in err
    assert "Traceback" not in err
    assert "✓" in out
    assert "✗" in out


@pytest.mark.parametrize("option", [["--json"], ["--format", "json"]])
def test_json(files, capsys, option):
    assert main(["verify", files["plain"], files["broken"], *option]) == 2
    data = json.loads(capsys.readouterr().out)
    assert (data["ok"], data["exit_code"]) == (False, 2)
    assert [report["ok"] for report in data["reports"]] == [True, False]
    assert data["reports"][1]["error"]["type"] == "ValidationError"


def test_the_limit(files):
    assert main(["verify", files["conv3d"], "--max-rank", "5"]) == 0
    assert main(["verify", files["plain"], "--max-rank", "3"]) == 1
    assert main(["verify", files["plain"], "--max-rank", "0"]) == 2


def test_an_unknown_format_lists_those_there_are(files, capsys):
    assert main(["verify", files["plain"], "--format", "yaml"]) == 2
    assert "expected one of: text, json" in capsys.readouterr().err


def test_folders(tmp_path, files, capsys):
    (tmp_path / "deep" / "er").mkdir(parents=True)
    onnx.save(zoo.conv3d(), tmp_path / "deep" / "er" / "m.ONNX")
    (tmp_path / ".hidden").mkdir()
    onnx.save(zoo.conv3d(), tmp_path / ".hidden" / "m.onnx")
    (tmp_path / "deep" / "notes.txt").touch()
    assert main(["verify", str(tmp_path / "deep"), str(tmp_path / "deep"), "--json"]) == 1
    assert len(json.loads(capsys.readouterr().out)["reports"]) == 1
    (tmp_path / "empty").mkdir()
    assert main(["verify", str(tmp_path / "empty")]) == 2
    assert "nothing to check" in capsys.readouterr().err
    assert main(["verify"]) == 2


def test_links_to_folders_are_not_followed_but_told(tmp_path, files, capsys):
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
    onnx.save(zoo.plain(), tmp_path / "one" / "m.onnx")
    onnx.save(zoo.conv3d(), tmp_path / "other" / "m.onnx")
    (tmp_path / "one" / "loop").symlink_to(tmp_path / "one")
    assert main(["verify", str(tmp_path / "one")]) == 0
    assert f"{tmp_path / 'one' / 'loop'} is a link to a folder and was not followed" in capsys.readouterr().err
    (tmp_path / "link").symlink_to(tmp_path / "other")
    assert main(["verify", str(tmp_path / "link")]) == 1
    (tmp_path / "one" / "gone.onnx").symlink_to("nowhere")
    assert main(["verify", str(tmp_path / "one")]) == 2


def test_explain_and_list_rules(capsys):
    assert main(["verify", "--explain", "e4d002"]) == 0
    assert "never assumes" in capsys.readouterr().out
    assert main(["verify", "--explain", "E4D9"]) == 2
    assert main(["verify", "--list-rules"]) == 0
    assert capsys.readouterr().out.count("E4D") >= 9
    assert main(["verify", "--list-rules", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rules"][0]["name"] == "rank-over-limit"


def test_selection_and_fail_on(files, capsys):
    assert main(["verify", files["conv3d"], "--ignore", "E4D001,E4D003"]) == 0
    assert "4 ignored" in capsys.readouterr().out
    assert main(["verify", files["conv3d"], "--select", "E4D002"]) == 0
    assert main(["verify", files["conv3d"], "--fail-on", "never"]) == 0
    assert main(["verify", files["broken"], "--fail-on", "never"]) == 2
    assert main(["verify", files["conv3d"], "--warn", "ALL"]) == 0
    assert main(["verify", files["conv3d"], "--warn", "ALL", "--fail-on", "warning"]) == 1
    assert main(["verify", files["conv3d"], "--fail-on", "sometimes"]) == 2
    assert main(["verify", files["conv3d"], "--select", "X1"]) == 2


def test_a_baseline(files, tmp_path, capsys):
    known = str(tmp_path / "known.json")
    assert main(["verify", files["conv3d"], "--baseline", known]) == 2
    assert main(["verify", files["conv3d"], "--write-baseline", known]) == 0
    assert "4 known findings" in capsys.readouterr().err
    assert main(["verify", files["conv3d"], "--baseline", known]) == 0
    assert main(["verify", files["conv3d"], files["unknown_operator"], "--baseline", known]) == 1
    onnx.save(zoo.plain(), files["conv3d"])
    capsys.readouterr()
    assert main(["verify", files["conv3d"], "--baseline", known]) == 0
    assert "4 findings of the baseline are there no more" in capsys.readouterr().err
    assert main(["verify", files["broken"], "--write-baseline", known]) == 2


def test_output_and_summary(files, tmp_path, capsys, monkeypatch):
    target, page = tmp_path / "o.sarif", tmp_path / "page.md"
    assert main(["verify", files["conv3d"], "--format", "sarif", "-o", str(target), "--summary", str(page)]) == 1
    assert capsys.readouterr().out == ""
    assert json.loads(target.read_text())["version"] == "2.1.0"
    assert page.read_text("utf-8").startswith("### edge4d verify: fail")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(page))
    assert main(["verify", files["plain"], "--format", "github"]) == 0
    assert page.read_text("utf-8").count("###") == 2
    assert main(["verify", files["plain"]]) == 0
    assert page.read_text("utf-8").count("###") == 2
    assert main(["verify", files["plain"], "--summary", str(tmp_path)]) == 2


def test_quiet_says_nothing_of_what_passes(files, capsys):
    assert main(["verify", files["plain"], "-q"]) == 0
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("form", ["sarif", "junit", "github", "markdown"])
def test_every_form(files, capsys, form):
    assert main(["verify", files["conv3d"], files["broken"], "--format", form]) == 2
    assert "E4D003" in capsys.readouterr().out


def test_profiles(files, capsys, tmp_path):
    assert main(["verify", files["conv3d"], "--profile", "coreml"]) == 0
    assert main(["verify", files["conv3d"], "--profile", "coreml", "--max-rank", "4"]) == 1
    capsys.readouterr()
    assert main(["verify", files["conv3d"], "--profile", "rknn", "--profile", "coreml", "--json"]) == 1
    reports = json.loads(capsys.readouterr().out)["reports"]
    assert [(r["settings"]["profile"], r["verdict"]) for r in reports] == [("rknn", "fail"), ("coreml", "pass")]
    assert main(["verify", files["conv3d"], "--profile", "rknnn"]) == 2
    assert "did you mean rknn?" in capsys.readouterr().err
    assert main(["verify", "--list-profiles"]) == 0
    assert "https://" in capsys.readouterr().out
    assert main(["verify", "--list-profiles", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["profiles"]) == 10
