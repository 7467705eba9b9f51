"""Compilers and sessions in child processes: what hangs or dies there is an error here."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from edge4d import exporters
from edge4d.cli import main
from edge4d.errors import (
    ExportError,
    GateError,
    InternalError,
    RuntimeFailed,
    RuntimeUnavailable,
    UsageError,
    ValidationError,
)
from edge4d.exporters.child import Child, call, check_timeout
from edge4d.exporters.child_main import receive, send
from tests.exporters.fakes import Fake
from tests.onnx_models import artifact, five_axes, save


@pytest.fixture
def model(tmp_path):
    return save(artifact(), tmp_path / "m.onnx")


def is_alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{pid}/stat")  # a zombie that nobody has waited for yet has ended too
    return not (status.is_file() and status.read_text().rpartition(")")[2].split()[0] == "Z")


def wait_until(is_so):
    for _ in range(400):
        if is_so():
            return
        time.sleep(0.05)
    pytest.fail("it did not come about")


def only_the_model_is_left(folder):
    return [entry.name for entry in folder.iterdir()] == ["m.onnx"]


def test_a_build_happens_in_another_process(model, tmp_path, capfd):
    result = Fake().build(model, tmp_path / "m.fake")
    recipe = json.loads(result.recipe.read_text())
    assert recipe["engine"]["pid"] != os.getpid()
    assert recipe["step"] == "build fake"
    assert result.notes == ("a copy",)
    assert capfd.readouterr().out == ""  # a library's chatter is not our result


def test_without_a_limit_it_happens_here(model, tmp_path):
    result = Fake().build(model, tmp_path / "m.fake", timeout=0)
    assert json.loads(result.recipe.read_text())["engine"]["pid"] == os.getpid()


@pytest.mark.parametrize(
    ("compiler", "said"),
    [
        ("hangs", r"building .*m\.fake with fake took more than 3 s and was stopped\n    about to hang"),
        ("crashes", r"its process was killed by SIGSEGV\n    about to crash"),
        ("is_killed", r"its process was killed by SIGKILL \(out of memory\?\)"),
        ("leaves", r"its process ended with code 7 before it answered"),
    ],
)
def test_a_compiler_that_hangs_or_dies_is_reported_and_leaves_nothing(model, tmp_path, compiler, said):
    with pytest.raises(RuntimeFailed, match=said) as caught:
        Fake(compiler).build(model, tmp_path / "m.fake", timeout=3)
    assert caught.value.exit_code == 2
    assert caught.value.hint
    assert only_the_model_is_left(tmp_path)


def test_the_command_line_survives_it(model, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(exporters, "get", lambda name: Fake("crashes"))
    assert main(["build", str(model), "-r", "fake", "--timeout", "60", "--json"]) == 2
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["type"] == "RuntimeFailed"
    assert "SIGSEGV" in error["message"]


def test_a_full_disk_there_is_a_full_disk_here(model, tmp_path):
    with pytest.raises(ExportError, match=r"cannot write .*m\.fake: no space is left on the disk"):
        Fake("fills_the_disk").build(model, tmp_path / "m.fake")
    assert only_the_model_is_left(tmp_path)


def test_our_own_bugs_there_are_bugs_here(model, tmp_path):
    with pytest.raises(InternalError, match=r"KeyError: 'a bug of ours'\n(.*\n)*.*has_a_bug"):
        Fake("has_a_bug").build(model, tmp_path / "m.fake")
    assert only_the_model_is_left(tmp_path)


def test_the_gate_comes_before_the_compiler(tmp_path):
    model = save(five_axes(), tmp_path / "m.onnx")
    with pytest.raises(GateError, match="E4D003 works on three spatial axes") as caught:
        Fake("crashes").build(model, tmp_path / "m.fake")
    assert caught.value.exit_code == 1
    assert "--no-gate" in caught.value.hint
    assert Fake().build(model, tmp_path / "m.fake", max_rank=None).path.is_file()


@pytest.mark.parametrize("timeout", [-1, "9", True, float("nan")])
def test_a_wrong_time_limit_is_named(model, tmp_path, timeout):
    with pytest.raises(UsageError, match="timeout"):
        Fake().build(model, tmp_path / "m.fake", timeout=timeout)
    assert check_timeout(None) > 0


# ---- sessions ---------------------------------------------------------------------------------------------------


@pytest.fixture
def engine(model, tmp_path):
    return Fake().build(model, tmp_path / "m.fake", timeout=0).path


X = np.arange(6, dtype=np.float32).reshape(2, 3)


def test_a_session_there_looks_like_one_here(engine):
    with Fake().open(engine) as session:
        assert session.inputs[0].physical == (2, 3)
        assert (session.metadata, session.details) == ({"edge4d.version": "1"}, {"runtime": "fake"})
        np.testing.assert_array_equal(session.run({"x": X})["x"], 2 * X)
        np.testing.assert_array_equal(session.run({"x": X.T.copy().T})["x"], 2 * X)
        assert session.spent == {"compute": 1.5}
    with pytest.raises(UsageError, match="the session is closed"):
        session.run({"x": X})
    session.close()


def test_a_session_outlives_the_thread_that_opened_it(engine):
    opened = []
    thread = threading.Thread(target=lambda: opened.append(Fake().open(engine)))
    thread.start()
    thread.join()
    with opened[0] as session:
        np.testing.assert_array_equal(session.run({"x": X})["x"], 2 * X)


@pytest.mark.parametrize(
    "number",
    [
        signal.SIGINT,
        pytest.param(
            signal.SIGKILL,
            marks=pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child of its parent's death"),
        ),
    ],
)
def test_a_compiler_does_not_outlive_us(model, tmp_path, number):
    code = (
        "import signal, sys; from edge4d import exporters; from edge4d.cli import main\n"
        "from tests.exporters.fakes import Fake\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # whoever runs the tests may have it ignored
        "exporters.get = lambda name: Fake('tells_its_pid_and_hangs')\n"
        "sys.exit(main(sys.argv[1:]))"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code, "build", str(model), "-r", "fake"],
        cwd=Path(__file__).resolve().parents[2],
        stderr=subprocess.PIPE,
        text=True,
    )
    pid = tmp_path / "pid"
    wait_until(lambda: pid.is_file() and pid.read_text())
    parent.send_signal(number)
    _, said = parent.communicate(timeout=60)
    wait_until(lambda: not is_alive(int(pid.read_text())))
    if number == signal.SIGINT:
        assert parent.returncode == 130
        assert "nothing was left half-written" in said
        assert sorted(entry.name for entry in tmp_path.iterdir()) == ["m.onnx", "pid"]


def test_an_array_that_is_not_contiguous_comes_back_right(engine):
    with Fake(session="transposed").open(engine) as session:
        np.testing.assert_array_equal(session.run({"x": X})["x"], X.T)


@pytest.mark.parametrize(
    ("session", "said"),
    [("crashes_in_run", r"running .*m\.fake: its process was killed by SIGSEGV"), ("hangs_in_run", "more than 4 s")],
)
def test_a_run_that_hangs_or_dies_is_reported(engine, session, said):
    with Fake(session=session).open(engine, timeout=4) as opened:
        with pytest.raises(RuntimeFailed, match=said):
            opened.run({"x": X})
        with pytest.raises(RuntimeFailed):  # and stays so
            opened.run({"x": X})


def test_an_open_that_hangs_is_reported(engine):
    with pytest.raises(RuntimeFailed, match=r"opening .*m\.fake took more than 2 s"):
        Fake(session="hangs_in_open").open(engine, timeout=2)


def test_an_engine_that_was_changed_is_not_opened(engine):
    engine.write_bytes(engine.read_bytes()[:-1] + b"x")
    with pytest.raises(ValidationError, match=r"is not the file that its recipe m\.fake\.json describes"):
        Fake().open(engine)


def test_another_runtimes_engine_is_not_opened(engine):
    recipe = engine.with_name("m.fake.json")
    recipe.write_text(recipe.read_text().replace("build fake", "build other"))
    with pytest.raises(ValidationError, match="is the work of `build other`, not of `build fake`"):
        Fake().open(engine)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"step": "build fake", "files": {}}', '{"step": 1, "files": []}'])
def test_a_broken_recipe_is_named(engine, text):
    engine.with_name("m.fake.json").write_text(text)
    with pytest.raises(ValidationError, match=r"m\.fake\.json: not the recipe of m\.fake"):
        Fake().open(engine)


# ---- the process itself -----------------------------------------------------------------------------------------


def test_a_child_ends_with_its_context():
    with Child("waiting", 60) as child:
        pid = child.ask({"do": "call", "target": "os:getpgid", "argument": 0})[0]
        assert is_alive(pid)
    wait_until(lambda: not is_alive(pid))


def test_a_function_of_a_file_runs_under_an_interpreter_without_edge4d(tmp_path):
    side = tmp_path / "side.py"
    side.write_text("import sys\ndef names(given):\n    return [given, 'edge4d' in sys.modules]\n")
    assert call(f"{side}:names", "hello", 60, "asking", python=sys.executable) == ["hello", False]


def test_a_missing_interpreter_is_a_missing_runtime(tmp_path):
    with pytest.raises(RuntimeUnavailable, match=r"cannot start .*no-python: No such file"):
        call("os:getpgid", 0, 60, "asking", python=str(tmp_path / "no-python"))


def test_files_of_the_current_folder_hide_no_package(tmp_path, monkeypatch):
    (tmp_path / "json.py").write_text("raise SystemExit('the wrong json')")
    monkeypatch.chdir(tmp_path)
    assert call("os.path:basename", "a/b", 60, "asking") == "b"


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.int8, np.bool_, np.int64, ml_dtypes.bfloat16])
@pytest.mark.parametrize("shape", [(), (0, 3), (2, 3)])
def test_arrays_travel_whole(tmp_path, dtype, shape):
    array = np.ones(shape, dtype)
    with (tmp_path / "pipe").open("w+b") as pipe:
        send(pipe, {"do": "run"}, {"a": array, "b": array})
        pipe.seek(0)
        message, arrays = receive(pipe)
    assert message == {"do": "run"}
    for name in "ab":
        assert (arrays[name].dtype, arrays[name].shape) == (array.dtype, shape)
        np.testing.assert_array_equal(arrays[name], array)


def test_a_cut_message_is_none(tmp_path):
    with (tmp_path / "pipe").open("w+b") as pipe:
        send(pipe, {}, {"a": np.ones(9)})
        pipe.truncate(pipe.tell() - 1)
        pipe.seek(0)
        assert receive(pipe) is None
        assert receive(pipe) is None
