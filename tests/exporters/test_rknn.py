"""RKNN: its interpreter, devices, table and simulator. On a fake toolkit, and where the real one is at hand, on it."""

from __future__ import annotations

import ast
import json
import os
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

from edge4d.artifact import open
from edge4d.cli import main
from edge4d.errors import (
    ExportError,
    GateError,
    RuntimeFailed,
    RuntimeUnavailable,
    UsageError,
    ValidationError,
)
from edge4d.exporters import child_main, rknn_worker
from edge4d.exporters.rknn import DEVICES, PYTHON_VARIABLE, Rknn
from tests.exporters import fake_rknn
from tests.onnx_models import CLIP, RESULT, artifact, expected, five_axes, plain, save

REAL = os.environ.get(PYTHON_VARIABLE, "")
real = pytest.mark.skipif(not REAL, reason=f"{PYTHON_VARIABLE} names no interpreter that has rknn-toolkit2")


@pytest.fixture
def model(tmp_path):
    return save(artifact(), tmp_path / "m.onnx")


@pytest.fixture
def python(tmp_path_factory, monkeypatch):
    """An interpreter with the fake, named by the environment variable."""
    script = fake_rknn.install(tmp_path_factory.mktemp("fake") / "rknn")
    monkeypatch.setenv(PYTHON_VARIABLE, str(script))
    return script


@pytest.fixture
def clip():
    return np.random.default_rng(0).standard_normal(CLIP.shape).astype(np.float32)


def build(model, **options):
    return Rknn().build(model, model.with_suffix(".rknn"), **options)


# ---- the interpreter --------------------------------------------------------------------------------------------


def test_without_an_interpreter_the_command_is_given(model, monkeypatch, capsys):
    monkeypatch.delenv(PYTHON_VARIABLE, raising=False)
    assert main(["build", str(model), "-r", "rknn"]) == 3
    err = capsys.readouterr().err
    assert "no interpreter that has rknn-toolkit2 is named: --python PATH or EDGE4D_RKNN_PYTHON" in err
    assert 'pip install rknn-toolkit2==2.5.0 onnxruntime "setuptools<81" && export EDGE4D_RKNN_PYTHON=' in err


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "is no program that can be run"),
        ("#!/bin/sh\necho hello", "is no Python interpreter that works"),
        ("#!/bin/sh\necho 3", "is no Python interpreter that works"),
        ("#!/bin/sh\nexit 3", "is no Python interpreter that works"),
        ("no program at all", "is no Python interpreter that works"),
    ],
)
def test_what_is_no_interpreter_is_said(model, tmp_path, capsys, content, said):
    script = tmp_path / "other"
    if content is not None:
        script.write_text(content)
        script.chmod(0o755)
    assert main(["build", str(model), "-r", "rknn", "--python", str(script)]) == 3
    err = capsys.readouterr().err
    assert f"{script} {said}" in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("packages", "said", "install"),
    [
        ((), "has no rknn-toolkit2", 'pip install rknn-toolkit2==2.5.0 onnxruntime "setuptools<81"'),
        (("rknn", "onnxruntime"), "2.5.0 needs pkg_resources, which", 'pip install "setuptools<81"'),
        (("rknn", "pkg_resources"), "2.5.0 needs onnxruntime, which", "pip install onnxruntime"),
        (("rknn",), "needs pkg_resources and onnxruntime", 'pip install "setuptools<81" onnxruntime'),
    ],
)
def test_an_interpreter_that_lacks_something_is_told_what(model, tmp_path, packages, said, install):
    script = fake_rknn.install(tmp_path / "rknn", packages=packages)
    with pytest.raises(RuntimeUnavailable, match=said) as caught:
        Rknn().build(model, model.with_suffix(".rknn"), python=str(script))
    assert caught.value.hint == f"install it with: {script} -m {install}"


def test_a_toolkit_that_cannot_be_imported_is_told_how(model, python):
    (python.parent / "packages" / "rknn" / "api" / "__init__.py").write_text(
        "raise ImportError('libGL.so.1: cannot open shared object file')"
    )
    with pytest.raises(RuntimeUnavailable, match=r"cannot be imported by .*libGL\.so\.1") as caught:
        build(model)
    assert "apt-get install libgl1" in caught.value.hint


def test_the_option_goes_before_the_variable(model, python, monkeypatch):
    monkeypatch.setenv(PYTHON_VARIABLE, "/no/such/python")
    assert Rknn().probe().ok is False
    assert build(model, python=str(python)).path.is_file()


def test_packages_of_ours_do_not_reach_the_other_interpreter(model, python, monkeypatch):
    """They would hide its own: our numpy is newer than it can bear."""
    monkeypatch.setenv("PYTHONHOME", "/no/such/home")
    monkeypatch.setenv("PYTHONPATH", "/no/such/path")
    script = python.read_text().replace('PYTHONPATH="', 'test -z "$PYTHONPATH$PYTHONHOME" || exit 9\nPYTHONPATH="')
    python.write_text(script)
    assert build(model).path.is_file()


@pytest.mark.parametrize("module", [rknn_worker, child_main])
def test_what_runs_there_reads_as_python_3_8(module):
    """The toolkit has wheels for interpreters older than ours."""
    tree = ast.parse(Path(module.__file__).read_text(), feature_version=(3, 8))
    named = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    named |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    roots = {name.partition(".")[0] for name in named}
    assert roots <= sys.stdlib_module_names | {"numpy", "ml_dtypes"}


def test_a_recipe_cannot_name_the_interpreter(model, python, tmp_path, monkeypatch):
    """Opening an engine from a stranger must not run a program from a stranger."""
    path = build(model).path
    recipe = path.with_name(f"{path.name}.json")
    assert str(python) not in recipe.read_text()
    document = json.loads(recipe.read_text())
    document["options"]["python"] = document["engine"]["python"] = str(tmp_path / "evil")
    recipe.write_text(json.dumps(document))
    monkeypatch.delenv(PYTHON_VARIABLE)
    with pytest.raises(RuntimeUnavailable, match="no interpreter"):
        Rknn().open(path)


# ---- building ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("device", DEVICES)
def test_each_device_is_taken(model, python, device):
    recipe = json.loads(build(model, device=[device.upper()]).recipe.read_text())
    assert recipe["options"] == {"device": device, "settings": {}, "max_rank": 4}
    assert recipe["engine"]["device"] == device


@pytest.mark.parametrize("device", ["rk9999", "sm_86", ["rk3588", "rk3566"], []])
def test_another_device_is_refused_with_the_known_ones(model, python, device):
    with pytest.raises(UsageError, match="rknn builds for one device") as caught:
        build(model, device=device)
    assert caught.value.hint == "expected one of: rk3562, rk3566, rk3568, rk3576, rk3588"


def test_the_table_is_kept_and_shown(model, python, capsys):
    args = ["build", str(model), "-r", "rknn", "--device", "rk3576"]
    assert main([*args, "--json"]) == 0
    captured = capsys.readouterr()
    told = json.loads(captured.out)
    assert told["engine"]["totals"]["npu_cycles"] == 40
    assert told["engine"]["on_cpu"] == ["Relu result_rs"]
    assert [layer["op"] for layer in told["engine"]["layers"]] == ["InputOperator", "Add", "Relu", "OutputOperator"]
    assert told["engine"] == json.loads(Path(told["recipe"]).read_text())["engine"]
    assert "40 NPU cycles" in captured.err
    assert "1 of 4 operators run on the CPU: Relu result_rs" in captured.err
    assert "calls an error, 1 times: Unkown op target: 0" in captured.err
    assert main([*args, "--layers", "--force"]) == 0
    assert "8x3x5x6" in capsys.readouterr().err  # each layer with its shape


def test_a_log_that_cannot_be_read_is_said(model, python, monkeypatch):
    monkeypatch.setenv("FAKE_RKNN", "says nothing")
    result = build(model)
    assert "no table of layers that edge4d can read" in result.notes[0]
    assert result.engine["totals"]["layers"] == 0


def test_values_too_wide_for_a_register_are_told_with_their_number(model, python, monkeypatch):
    assert not any("REGTASK" in note for note in build(model).notes)
    monkeypatch.setenv("FAKE_RKNN", "exceeds registers")
    model.with_suffix(".rknn").unlink()
    told = [note for note in build(model).notes if "runs right on a board is unknown" in note]
    assert len(told) == 1
    assert "says 3 times" in told[0]


def test_what_the_compiler_makes_is_held_against_the_limit(model, python, monkeypatch):
    monkeypatch.setenv("FAKE_RKNN", "makes five axes")
    with pytest.raises(GateError, match=r"the graph that RKNN made of (.|\n)*'Add:sum_rs' of Add has 5 axes"):
        build(model)
    assert build(model, max_rank=None).path.is_file()


def test_five_axes_stop_before_the_compiler_starts(python, tmp_path, monkeypatch):
    monkeypatch.setenv("FAKE_RKNN", "crashes")
    with pytest.raises(GateError, match="Conv 'conv'"):
        build(save(five_axes(), tmp_path / "m.onnx"))


def test_settings_reach_the_toolkit(model, python):
    result = build(model, settings={"optimization_level": "2"})
    assert json.loads(result.recipe.read_text())["options"]["settings"] == {"optimization_level": 2}
    with pytest.raises(UsageError, match=r"no such setting: .*no_such_thing"):
        build(model, settings={"no_such_thing": "1"})
    with pytest.raises(UsageError, match=r"optimization_level should be in \[0, 1, 2, 3\]!\n"):
        build(model, settings={"optimization_level": "much"})


def test_open_sizes_are_refused_in_the_vendors_words(python, tmp_path):
    with pytest.raises(ValidationError, match=r"m\.onnx holds what RKNN cannot take: The input shape of 'x' is not"):
        build(save(plain("Relu", ("batch", 3)), tmp_path / "m.onnx"))


@pytest.mark.parametrize(
    ("mode", "error", "said"),
    [
        ("answers with a code", ValidationError, "failed to build layer Conv:7, the weights are too large"),
        ("leaves", ValidationError, "cannot go on"),
        ("crashes", RuntimeFailed, r"was killed by SIGSEGV(.|\n)*about to crash"),
        ("writes nothing", RuntimeFailed, "RKNN wrote no engine"),
        ("disk full", ExportError, r"cannot write m\.rknn: no space is left on the disk"),
    ],
)
def test_a_failure_is_told_in_the_vendors_words(model, python, monkeypatch, mode, error, said):
    monkeypatch.setenv("FAKE_RKNN", mode)
    with pytest.raises(error, match=said):
        build(model)
    assert [entry.name for entry in model.parent.iterdir()] == ["m.onnx"]


def test_a_hanging_compiler_is_stopped(model, python, monkeypatch):
    monkeypatch.setenv("FAKE_RKNN", "hangs")
    with pytest.raises(RuntimeFailed, match=r"took more than 5 s and was stopped(.|\n)*rknn building"):
        build(model, timeout=5)
    assert [entry.name for entry in model.parent.iterdir()] == ["m.onnx"]


# ---- the simulator ----------------------------------------------------------------------------------------------


def test_it_computes_in_float16_through_the_description(model, python, clip):
    with open(build(model).path) as engine:
        assert (engine.inputs, engine.outputs) == ((CLIP,), (RESULT,))
        found = engine(clip)["result"]
        np.testing.assert_allclose(found, expected(clip), rtol=2e-3)
        assert np.abs(found - expected(clip)).max() > 0
        assert engine.session.details["providers"] == ["simulator of rk3588"]
        assert engine.session.details["simulated"] is True


def test_parity_allows_what_float16_takes(model, python, capsys):
    build(model)
    engine = str(model.with_suffix(".rknn"))
    assert main(["parity", str(model), engine, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["candidates"][0]["outputs"][0]["allowed"] == 5e-3
    assert main(["parity", str(model), engine, "--max-error", "1e-7"]) == 1


def test_the_model_is_looked_for_beside_the_engine(model, python, tmp_path, clip):
    path = build(model).path
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    model.rename(elsewhere / "m.onnx")
    with pytest.raises(ValidationError, match=r"is simulated from .*m\.onnx, which is not there") as caught:
        open(path)
    assert caught.value.hint == "keep the ONNX file beside its engine"
    with open(path, model=elsewhere / "m.onnx") as engine:
        np.testing.assert_allclose(engine(clip)["result"], expected(clip), rtol=2e-3)


def test_another_model_is_not_taken_for_the_engines(model, python):
    path = build(model).path
    made = artifact()
    made.doc_string = "changed since"
    save(made, model)
    with pytest.raises(ValidationError, match=r"was not built from .*m\.onnx as it is now"):
        Rknn().open(path)


def test_weights_beside_the_model_are_held_against_the_recipe_too(python, tmp_path, clip):
    model = save(artifact(), tmp_path / "m.onnx", beside=True)
    path = build(model).path
    with open(path) as engine:
        np.testing.assert_allclose(engine(clip)["result"], expected(clip), rtol=2e-3)
    data = tmp_path / "m.onnx.data"
    data.write_bytes(bytes(len(data.read_bytes())))
    with pytest.raises(ValidationError, match=r"was not built from .*m\.onnx\.data as it is now"):
        Rknn().open(path)


def test_an_engine_without_its_recipe_is_explained(model, python):
    result = build(model)
    result.recipe.unlink()
    with pytest.raises(ValidationError, match="RKNN's simulator takes no engine, only the model that it is from"):
        Rknn().open(result.path)


@pytest.mark.parametrize("missing", ["sources", "options"])
def test_a_recipe_that_lacks_something_is_said(model, python, missing):
    result = build(model)
    document = json.loads(result.recipe.read_text())
    del document[missing]
    result.recipe.write_text(json.dumps(document))
    with pytest.raises(ValidationError, match="recipe of"):
        Rknn().open(result.path)


@pytest.mark.parametrize(
    ("mode", "said"),
    [
        ("runs into nothing", "gave no result: E inference: The runtime has not been initialized"),
        ("crashes in run", r"running .*m\.rknn: its process was killed by SIGSEGV"),
    ],
)
def test_a_simulator_that_fails_is_an_error(model, python, monkeypatch, clip, mode, said):
    path = build(model).path
    monkeypatch.setenv("FAKE_RKNN", mode)
    with open(path) as engine, pytest.raises(RuntimeFailed, match=said):
        engine(clip)


def test_what_it_leaves_on_the_disk_goes_with_it(model, python, clip, monkeypatch, tmp_path):
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    monkeypatch.chdir(temporary)
    with open(build(model).path) as engine:
        engine(clip)
    with pytest.raises(RuntimeFailed):
        Rknn().open(model.with_suffix(".rknn"), timeout=0.01)
    assert list(temporary.iterdir()) == []


def test_an_engine_is_told_by_its_suffix(model, python, capsys):
    assert main(["build", str(model), "-r", "rknn"]) == 0
    assert capsys.readouterr().out == f"{model.with_suffix('.rknn')}\n"
    other = model.with_name("other.rknn")
    other.write_bytes(b"RKNN from elsewhere")
    assert main(["parity", str(model), str(other)]) == 2
    assert "has no recipe beside it" in capsys.readouterr().err


# ---- the real toolkit -------------------------------------------------------------------------------------------


@pytest.fixture
def convolution(tmp_path):
    """A Conv3d over eight frames in its 4-D form."""
    import torch
    from torch import nn

    import edge4d

    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv3d(8, 16, 3, padding=1), nn.ReLU()).eval()
    path = tmp_path / "c.onnx"
    edge4d.export(module, (torch.randn(1, 8, 8, 14, 14),), output=path)
    return path


@real
@pytest.mark.slow
@pytest.mark.parametrize("device", DEVICES)
def test_the_real_toolkit_compiles_for_each_device(convolution, device):
    result = build(convolution, device=device)
    assert result.path.read_bytes()[:4] == b"RKNN"
    assert result.engine["totals"]["npu_cycles"] > 0
    assert result.engine["totals"]["weight_kib"] > 0
    assert any("Conv" in layer["op"] and layer["target"] == "NPU" for layer in result.engine["layers"])
    assert any(layer["source"] == "0" for layer in result.engine["layers"])


@real
@pytest.mark.slow
def test_the_real_simulator_gives_the_same_numbers(convolution, capsys):
    build(convolution)
    assert main(["parity", str(convolution), str(convolution.with_suffix(".rknn"))]) == 0
    assert main(["parity", str(convolution), str(convolution.with_suffix(".rknn")), "--max-error", "1e-6"]) == 1


@real
@pytest.mark.slow
def test_the_real_toolkit_makes_four_axes_of_five(tmp_path):
    """The vendor rewrites a Conv3d itself; without the gate it shows what that costs."""
    result = build(save(five_axes(), tmp_path / "m.onnx"), max_rank=None)
    assert max(len(layer["output"]) for layer in result.engine["layers"]) == 5
    assert result.engine["totals"]["npu_cycles"] > 0
