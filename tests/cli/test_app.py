"""The command line as a whole: laziness, help, and how each kind of failure ends."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
import types

import pytest

from edge4d.cli import main
from edge4d.cli.app import VERBS
from edge4d.errors import InternalError, LoweringError, ParityError, RuntimeUnavailable, UsageError

COMMAND = [sys.executable, "-m", "edge4d"]
HEAVY = ("torch", "onnx", "onnxruntime", "onnxsim", "numpy", "einops")


def run(*args, **options):
    return subprocess.run([*COMMAND, *args], capture_output=True, text=True, timeout=60, check=False, **options)


def stub(monkeypatch, action):
    """Let `edge4d doctor` do something else."""

    def command() -> int | None:
        """Do something."""
        return action()

    command.__annotations__ = {}
    module = types.ModuleType("edge4d.cli.doctor")
    module.command = command
    monkeypatch.setitem(sys.modules, "edge4d.cli.doctor", module)


def raiser(error):
    def action():
        raise error

    return action


# ---- help and laziness ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("args", [["--help"], ["--version"], ["exprot"], ["build", "--help"], ["bench", "--help"]])
def test_nothing_heavy_is_imported_for_help(args):
    code = (
        "import sys; from edge4d.cli import main; main(sys.argv[1:]); "
        f"print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)"
    )
    result = subprocess.run([sys.executable, "-c", code, *args], capture_output=True, text=True, check=True)
    assert result.stderr.splitlines()[-1] == "[]"


@pytest.mark.parametrize("args", [[], ["--help"], ["-h"]])
def test_help_lists_every_verb_and_the_exit_codes(args, capsys):
    assert main(args) == 0
    out = capsys.readouterr().out
    for verb, line in VERBS.items():
        assert verb in out
        assert line.split()[0] in out
    assert "Exit codes" in out


@pytest.mark.parametrize("verb", VERBS)
def test_the_help_of_every_verb_has_examples(verb, capsys):
    assert main([verb, "--help"]) == 0
    out = capsys.readouterr().out
    assert "Examples:" in out
    assert f"  edge4d {verb}" in out


def test_the_version_goes_to_stdout(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("edge4d 0.")


# ---- usage ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["exprot"], "Did you mean 'export'"),
        (["--versoin"], "--version"),
        (["bench", "m.onnx", "--ruonds", "3"], "--rounds"),
        (["build"], "Missing argument"),
        (["build", "m.onnx"], "Missing option"),
        (["bench", "m.onnx", "--rounds", "0"], "--rounds"),
        (["bench", "m.onnx", "--rounds", "x"], "--rounds"),
    ],
)
def test_a_wrong_command_line_is_answered_with_what_is_near(args, said, capsys):
    assert main(args) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert said in captured.err
    assert "--help`" in captured.err
    assert "Traceback" not in captured.err


def test_a_wrong_command_line_with_json_is_json(capsys):
    assert main(["bench", "--json"]) == 2
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["type"] == "UsageError"
    assert error["exit_code"] == 2
    assert error["hint"] == "see `edge4d bench --help`"


# ---- how it ends ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("result", "code"), [(None, 0), (0, 0), (1, 1)])
def test_a_verbs_result_is_the_exit_code(monkeypatch, result, code):
    stub(monkeypatch, lambda: result)
    assert main(["doctor"]) == code


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (UsageError("it [is] wrong", hint="do [this]"), 2),
        (LoweringError("cannot", hint="do [this]"), 1),
        (ParityError("differs", hint="do [this]"), 1),
        (RuntimeUnavailable("missing", hint="do [this]"), 3),
    ],
)
def test_a_users_error_has_its_code_and_no_traceback(monkeypatch, capsys, error, code):
    stub(monkeypatch, raiser(error))
    assert main(["doctor"]) == code
    captured = capsys.readouterr()
    assert captured.err == f"error: {error.message}\n  hint: do [this]\n"
    assert captured.out == ""


def test_an_error_with_json_is_json_as_well(monkeypatch, capsys):
    def command(as_json=False):
        raise UsageError("it is wrong", hint="mend it")

    import typer

    command.__annotations__ = {"as_json": bool}
    command.__defaults__ = (typer.Option(False, "--json"),)
    module = types.ModuleType("edge4d.cli.doctor")
    module.command = command
    monkeypatch.setitem(sys.modules, "edge4d.cli.doctor", module)
    assert main(["doctor", "--json"]) == 2
    captured = capsys.readouterr()
    assert json.loads(captured.out) == {
        "error": {"type": "UsageError", "message": "it is wrong", "hint": "mend it", "exit_code": 2}
    }
    assert "error: it is wrong" in captured.err


@pytest.mark.parametrize("error", [InternalError("broken"), KeyError("broken"), OSError("broken"), EOFError("broken")])
def test_a_bug_shows_its_traceback_and_asks_for_a_report(monkeypatch, capsys, error):
    stub(monkeypatch, raiser(error))
    assert main(["doctor"]) == 70
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert "this is a bug in edge4d" in err
    assert "please report it" in err


@pytest.mark.parametrize("verb", ["export", "verify", "build", "parity", "bench"])
def test_a_name_that_is_too_long_is_no_bug(verb, capsys, tmp_path):
    model = str(tmp_path / ("n" * 300)) + ".onnx"
    more = {"build": ["--runtime", "onnxruntime"], "parity": [model], "export": ["-o", str(tmp_path / "o.onnx")]}
    assert main([verb, model, *more.get(verb, [])]) == 2
    error = capsys.readouterr().err
    assert "too long" in error
    assert "Traceback" not in error
    assert max(map(len, error.splitlines())) < 350
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_may_not_be_read_is_no_bug(monkeypatch, capsys):
    stub(monkeypatch, raiser(PermissionError(errno.EACCES, "Permission denied", "/their/model.onnx")))
    assert main(["doctor"]) == 2
    assert capsys.readouterr().err.startswith("error: /their/model.onnx: permission denied\n")


def test_an_error_of_the_system_that_names_no_file_is_one(monkeypatch, capsys):
    stub(monkeypatch, raiser(PermissionError(errno.EACCES, "Permission denied")))
    assert main(["doctor"]) == 70
    assert "Traceback" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "said"), [("", "names no file"), ("/", "names no file"), ("o", "is not named .onnx")]
)
def test_an_output_must_be_named(given, said, capsys):
    assert main(["export", "model.pt2", "-o", given]) == 2
    assert said in capsys.readouterr().err


def test_a_folder_is_not_built(capsys, tmp_path):
    assert main(["build", str(tmp_path), "--runtime", "onnxruntime"]) == 2
    assert "is a folder, expected an ONNX file" in capsys.readouterr().err


def test_out_of_memory_is_not_called_a_bug(monkeypatch, capsys):
    stub(monkeypatch, raiser(MemoryError()))
    assert main(["doctor"]) == 2
    assert "out of memory" in capsys.readouterr().err


def test_an_interruption_is_quiet(monkeypatch, capsys):
    stub(monkeypatch, raiser(KeyboardInterrupt()))
    assert main(["doctor"]) == 130
    assert capsys.readouterr().err == "error: interrupted; nothing was left half-written\n"


def test_an_interruption_while_the_verb_is_imported_is_told_too(monkeypatch, capsys):
    def interrupted(verb):
        raise KeyboardInterrupt

    monkeypatch.setattr("edge4d.cli.app._load", interrupted)
    assert main(["doctor"]) == 130
    assert "error: interrupted; nothing was left half-written" in capsys.readouterr().err


def test_an_interruption_before_anything_is_loaded_is_quiet(monkeypatch, capsys):
    class Loading(types.ModuleType):
        @property
        def run(self):
            raise KeyboardInterrupt

    monkeypatch.setitem(sys.modules, "edge4d.cli.app", Loading("edge4d.cli.app"))
    assert main(["doctor"]) == 130
    assert capsys.readouterr().err == "error: interrupted; nothing was left half-written\n"


def test_sigterm_cleans_up(monkeypatch, capsys, tmp_path):
    from edge4d.files import staged

    def action():
        with staged(tmp_path / "a") as (a,):
            a.write_bytes(b"half")
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(10)

    stub(monkeypatch, action)
    before = signal.getsignal(signal.SIGTERM)
    assert main(["doctor"]) == 143
    assert signal.getsignal(signal.SIGTERM) is before  # whoever calls main() in a program keeps their own
    assert "terminated" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("args", [["doctor"], ["doctor", "--json"], ["--help"]])
def test_a_closed_pipe_is_quiet(args):
    read, write = os.pipe()
    os.close(read)
    result = subprocess.run([*COMMAND, *args], stdout=write, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    os.close(write)
    assert result.returncode == 141
    assert result.stderr == ""


@pytest.mark.skipif(not os.path.lexists("/dev/full"), reason="this system has no /dev/full")
def test_results_on_a_full_disk_are_not_lost_silently():
    with open("/dev/full", "w") as full:  # noqa: PTH123 - a device
        result = subprocess.run([*COMMAND, "doctor"], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert result.returncode == 2
    assert "cannot write the result to standard output: No space left" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_terminal_without_unicode():
    result = run("--help", env=os.environ | {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0", "LC_ALL": "C"})
    assert result.returncode == 0, result.stderr


# ---- completion -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("exp", ["export"]),
        ("export model.pt2 --block prop", ["proposed-cat", "proposed-add"]),
        ("plan model.pt2 --block ex", ["exact"]),
        ("export model.pt2 --block layer4.*=p3d", ["layer4.*=p3d-a", "layer4.*=p3d-b", "layer4.*=p3d-c"]),
        ("blocks --model eco-lite --block rank", ["rank-1"]),
        ("blocks --model eco", ["eco-lite", "eco-lite-small"]),
        ("plan model.pt2 --block proposed-add --alignment p", ["paper"]),
    ],
)
def test_the_shell_completes(words, offered):
    line = f"edge4d {words}"
    asked = {"_EDGE4D_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(line.count(" "))}
    result = run(env={**os.environ, **asked})
    assert (result.returncode, result.stdout.split()) == (0, offered), result.stderr


def test_completion_can_be_shown():
    result = run("--show-completion", "bash", env={**os.environ, "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"})
    assert result.returncode == 0, result.stderr
    assert "_EDGE4D_COMPLETE" in result.stdout
