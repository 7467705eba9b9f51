"""Archives of torch.export before the gate: what they are is said, and nothing in them runs."""

from __future__ import annotations

import json
import pickle
import zipfile

import pytest
import torch
from torch import nn

from edge4d.cli import main
from edge4d.validators import check_exported
from tests.loading.nets import Evil, edit_archive
from tests.validators.programs import CLIP, IMAGE, Net, exported


@pytest.fixture
def archive(tmp_path):
    path = tmp_path / "net.pt2"
    torch.export.save(exported(Net(), CLIP), path)
    return path


def test_a_file_gives_the_same_report_as_the_program(archive):
    report, direct = check_exported(archive), check_exported(exported(Net(), CLIP))
    assert report.path == str(archive)
    assert [item.to_dict() for item in report.findings] == [item.to_dict() for item in direct.findings]
    assert report.checked == direct.checked


def test_the_command_on_files_and_folders(tmp_path, archive, capsys):
    torch.export.save(exported(nn.ReLU(), IMAGE), tmp_path / "flat.pt2")
    assert main(["verify", str(tmp_path / "flat.pt2")]) == 0
    assert main(["verify", str(archive)]) == 1
    out = capsys.readouterr().out
    assert "aten.conv3d.default 'conv3d' (stem, " in out
    assert main(["verify", str(tmp_path), "--json"]) == 1
    reports = json.loads(capsys.readouterr().out)["reports"]
    assert [(report["verdict"], bool(report["versions"]["torch"])) for report in reports] == [
        ("pass", True),
        ("fail", True),
    ]
    assert main(["verify", str(archive), "--max-rank", "5"]) == 0
    for form in ("sarif", "junit", "github", "markdown"):
        assert main(["verify", str(archive), "--format", form]) == 1
        assert "E4D003" in capsys.readouterr().out


def test_the_content_tells_what_a_file_is_not_its_name(tmp_path, archive, capsys):
    from tests.validators import onnx_models as zoo

    (tmp_path / "a.onnx").write_bytes(archive.read_bytes())
    (tmp_path / "b.pt2").write_bytes(zoo.plain().SerializeToString())
    assert main(["verify", str(tmp_path / "a.onnx")]) == 1
    assert "aten.conv3d.default" in capsys.readouterr().out
    assert main(["verify", str(tmp_path / "b.pt2")]) == 0


def test_an_operator_that_is_not_registered_is_said_to_be_missing(tmp_path, archive, capsys):
    calls = {"models/model.json": lambda data: json.loads(json.dumps(data).replace("ops.aten.relu.", "ops.mine.relu."))}
    path = edit_archive(archive, tmp_path / "custom.pt2", calls)
    assert main(["verify", str(path)]) == 2
    err = capsys.readouterr().err
    assert "mine.relu" in err
    assert "import of the module that registers" in err


@pytest.mark.parametrize("kind", ["module", "state_dict", "script", "text", "empty", "cut", "folder"])
def test_other_files_are_told_what_they_are_in_one_line(tmp_path, archive, capsys, kind):
    path = tmp_path / f"{kind}.pt2"
    if kind == "module":
        torch.save(nn.ReLU(), path)
    elif kind == "state_dict":
        torch.save(Net().state_dict(), path)
    elif kind == "script":
        with pytest.warns(DeprecationWarning, match="torch.jit.script"):
            torch.jit.script(nn.ReLU()).save(path)
    elif kind == "cut":
        path.write_bytes(archive.read_bytes()[:-100])
    elif kind != "folder":
        path.write_text("" if kind == "empty" else "hello")
    else:
        path.mkdir()
    assert main(["verify", str(path)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert str(path) in err
    assert "Traceback" not in err
    if kind in ("module", "state_dict", "script"):
        assert f"edge4d export {path}" in err


def test_nothing_in_a_file_runs(tmp_path, archive, capsys):
    marker = tmp_path / "marker"
    evil = tmp_path / "evil.pt2"
    torch.save(Evil(marker), evil)
    assert main(["verify", str(evil)]) == 2
    calls = {
        "models/model.json": lambda data: json.loads(json.dumps(data).replace("ops.aten.relu.default", "os.mkdir"))
    }
    edit_archive(archive, evil, calls)
    assert main(["verify", str(evil)]) == 2
    assert not marker.exists()
    err = capsys.readouterr().err
    assert "could run code from the file" in err
    assert f"edge4d export {evil} --trust-pickle" in err


def test_an_archive_of_pickles_is_one_line(archive, tmp_path, capsys):
    """Bytes where PyTorch's own reader expects a text, which it says in a way of its own."""
    marker, evil = tmp_path / "marker", tmp_path / "evil.pt2"
    pickled = pickle.dumps(Evil(marker))
    with zipfile.ZipFile(archive) as good, zipfile.ZipFile(evil, "w") as bad:
        for name in good.namelist():
            bad.writestr(name, good.read(name) if name.endswith(".json") else pickled)
    assert main(["verify", str(evil)]) == 2
    err = capsys.readouterr().err
    assert "a damaged torch.export archive" in err
    assert "Traceback" not in err
    assert not marker.exists()
