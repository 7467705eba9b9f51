"""The GitHub Action and the pre-commit hook: their steps run as the scripts that they are."""

from __future__ import annotations

import os
import re
import runpy
import shlex
import subprocess
import sys
import warnings
from pathlib import Path

import onnx
import pytest
import torch
import yaml

from edge4d.cli import main
from tests.validators import onnx_models as zoo

ROOT = Path(__file__).resolve().parents[1]
ACTION = yaml.safe_load((ROOT / "action.yml").read_text("utf-8"))
INSTALL, VERIFY = ACTION["runs"]["steps"]


@pytest.fixture
def runner(tmp_path):
    """A folder as a job has it, in which `edge4d` is this one."""
    bin_folder = tmp_path / "temp" / "edge4d" / "bin"
    bin_folder.mkdir(parents=True)
    program = bin_folder / "edge4d"
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m edge4d "$@"\n')
    program.chmod(0o755)
    work = tmp_path / "work space"
    work.mkdir()
    for name, make in (("good", zoo.plain), ("bad", zoo.conv3d)):
        (work / name).mkdir()
        onnx.save(make(), work / name / "m 1.onnx")
    return work


def run_verify(work: Path, **inputs: str) -> tuple[int, str, dict[str, str], str]:
    """Exit code, stdout, the step's outputs and the job's summary."""
    out, summary = work.parent / "output", work.parent / "summary"
    out.write_text("")
    given = {name.replace("_", "-"): text for name, text in inputs.items()}
    assert set(given) <= set(ACTION["inputs"])
    values = {name: str(given.get(name, entry.get("default", ""))) for name, entry in ACTION["inputs"].items()}
    env = {}
    for name, text in VERIFY["env"].items():
        (key,) = re.fullmatch(r"\$\{\{ (.*) \}\}", text).groups()
        env[name] = str(work.parent / "temp") if key == "runner.temp" else values[key.removeprefix("inputs.")]
    env = {**os.environ, **env, "GITHUB_OUTPUT": str(out), "GITHUB_STEP_SUMMARY": str(summary)}
    env["PYTHONPATH"] = str(ROOT)
    done = subprocess.run(
        ["bash", "-e", "-o", "pipefail", "-c", VERIFY["run"]], cwd=work, env=env, capture_output=True, text=True
    )
    pairs = dict(line.split("=", 1) for line in out.read_text().splitlines())
    return done.returncode, done.stdout + done.stderr, pairs, summary.read_text("utf-8") if summary.exists() else ""


def test_a_good_model_passes_and_a_bad_one_does_not(runner):
    code, _, outputs, summary = run_verify(runner, models="good\n")
    assert (code, outputs) == (0, {"exit-code": "0"})
    assert "edge4d verify: pass" in summary
    code, said, outputs, summary = run_verify(runner, models="good\nbad/m 1.onnx")
    assert (code, outputs) == (1, {"exit-code": "1"})
    assert "::error file=bad/m 1.onnx,title=E4D003 three-axis-operator::" in said
    assert summary.count("edge4d verify: ") == 2


def test_options_of_the_action(runner):
    assert run_verify(runner, models="bad", max_rank="5")[0] == 0
    assert run_verify(runner, models="bad", ignore="E4D001\nE4D003")[0] == 0
    assert run_verify(runner, models="bad", fail_on="never")[0] == 0
    assert run_verify(runner, models="none.onnx")[0] == 2
    code, _, outputs, _ = run_verify(runner, models="bad", sarif="out.sarif")
    assert (code, outputs["sarif"]) == (1, "out.sarif")
    assert '"2.1.0"' in (runner / "out.sarif").read_text()


@pytest.mark.parametrize("evil", ["$(touch gone)", "`touch gone`", '"; touch gone; "', "--output=gone", "-o\ngone"])
def test_inputs_are_never_run(runner, evil):
    code, *_ = run_verify(runner, models=evil)
    assert code == 2
    assert not (runner / "gone").exists()


def test_no_input_stands_within_a_script():
    for step in (INSTALL, VERIFY):
        assert "${{" not in step["run"]
        assert step["shell"] == "bash"
    assert "uses:" not in (ROOT / "action.yml").read_text("utf-8")


@pytest.mark.parametrize(("pytorch", "installs"), [("true", 1), ("false", 2)])
def test_the_install_step(tmp_path, pytorch, installs):
    """Run with a stand-in for Python that writes down what it is called with."""
    log, fake = tmp_path / "log", tmp_path / "python3"
    fake.write_text(
        f'#!/bin/bash\necho "$@" >> {log}\nif [ "$2" = venv ]; then mkdir -p "$3/bin"; cp "$0" "$3/bin/python"; fi\n'
    )
    fake.chmod(0o755)
    env = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "ACTION_PATH": str(ROOT), "TEMP": str(tmp_path)}
    subprocess.run(["bash", "-c", INSTALL["run"]], env={**env, "PYTORCH": pytorch}, check=True)
    lines = log.read_text().splitlines()
    assert lines[0] == f"-m venv {tmp_path}/edge4d"
    assert len(lines) == 1 + installs
    assert all(f"--constraint {ROOT}/constraints.txt" in line for line in lines[1:])
    assert ("--no-deps" in lines[-1]) == (pytorch == "false")


def test_the_gate_needs_no_pytorch(runner):
    """The action installs none, unless asked."""
    blocked = (
        "import sys\nfor n in ('torch', 'onnxruntime', 'onnxsim', 'onnxscript', 'onnx_ir'): sys.modules[n] = None\n"
    )
    code = f"{blocked}from edge4d.cli import main\nsys.exit(main(['verify', 'good', '--format', 'sarif']))"
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    assert subprocess.run([sys.executable, "-c", code], cwd=runner, env=env, stdout=subprocess.DEVNULL).returncode == 0


def test_the_pre_commit_hook(runner):
    (hook,) = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text("utf-8"))
    assert re.search(hook["files"], "a/b.onnx")
    assert re.search(hook["files"], "a/b.pt2")
    assert not re.search(hook["files"], "a/b.pt")
    command = [sys.executable, "-m", *hook["entry"].split()]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    good = subprocess.run([*command, "good/m 1.onnx"], cwd=runner, env=env, capture_output=True, text=True)
    assert (good.returncode, good.stdout) == (0, "")
    bad = subprocess.run(
        [*command, "good/m 1.onnx", "bad/m 1.onnx"], cwd=runner, env=env, capture_output=True, text=True
    )
    assert bad.returncode == 1
    assert "E4D003" in bad.stdout


# ---- the README's workflow ------------------------------------------------------------------------------------------


def readme_steps() -> list[str]:
    """The scripts of the workflow in the README, without the one that installs edge4d."""
    (text,) = re.findall(r"^```yaml\n(on: .*?)^```$", (ROOT / "README.md").read_text(encoding="utf-8"), re.S | re.M)
    (job,) = yaml.safe_load(text)["jobs"].values()
    scripts = [step["run"] for step in job["steps"] if "run" in step]
    assert scripts[0].startswith("pip install edge4d-")
    return scripts[1:]


def run_steps(work: Path) -> tuple[int, str]:
    """As a runner does: one script after the other, up to the first that fails."""
    bin_folder = work.parent / "temp" / "edge4d" / "bin"
    env = {**os.environ, "PATH": f"{bin_folder}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
    env["GITHUB_STEP_SUMMARY"] = str(work.parent / "summary")
    said = ""
    for script in readme_steps():
        done = subprocess.run(["bash", "-e", "-c", script], cwd=work, env=env, capture_output=True, text=True)
        said += done.stdout + done.stderr
        if done.returncode:
            return done.returncode, said
    return 0, said


def test_the_workflow_of_the_readme_blocks_a_5d_model_and_passes_its_export(runner, monkeypatch):
    (runner / "net.py").write_text(
        "import torch\n\n\nclass Net(torch.nn.Module):\n    def __init__(self):\n        super().__init__()\n"
        "        self.stem = torch.nn.Conv3d(3, 4, 3)\n\n    def forward(self, clip):\n"
        "        return self.stem(clip).relu().mean((2, 3, 4))\n\n\n"
        "if __name__ == '__main__':\n    program = torch.export.export(Net().eval(), (torch.zeros(1, 3, 4, 8, 8),))\n"
        "    torch.export.save(program, 'net.pt2')\n"
        "    torch.onnx.export(program, f='deploy/net.onnx', verbose=False)\n"
    )
    (runner / "deploy").mkdir()
    monkeypatch.chdir(runner)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        runpy.run_path(str(runner / "net.py"), run_name="__main__")
    code, said = run_steps(runner)
    assert code == 1
    assert "::error file=net.py,line=10,title=E4D003 three-axis-operator::deploy/net.onnx: Conv" in said
    assert "(stem, net.py:10)" in said
    assert main(["export", "net.pt2", "-o", "deploy/net.onnx", "--force"]) == 0
    assert run_steps(runner) == (0, "")
    (runner / "deploy" / "net.pt2").write_bytes((runner / "net.pt2").read_bytes())
    code, said = run_steps(runner)
    assert code == 1
    assert "::error file=net.py,line=10,title=E4D003 three-axis-operator::deploy/net.pt2: aten.conv3d.default" in said


def test_without_pytorch_a_program_is_not_passed_over(runner):
    """Exit code 3 and one line; what a pickle is can be said all the same."""
    program = torch.export.export(torch.nn.ReLU(), (torch.zeros(1, 2),))
    torch.export.save(program, runner / "net.pt2")
    torch.save({"a": 1}, runner / "weights.pt")
    code = (
        "import sys\nsys.modules['torch'] = None\nfrom edge4d.cli import main\nsys.exit(main(['verify', sys.argv[1]]))"
    )
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    for name, expected, says in (("net.pt2", 3, "needs PyTorch"), ("weights.pt", 2, "a file of torch.save")):
        done = subprocess.run([sys.executable, "-c", code, name], cwd=runner, env=env, capture_output=True, text=True)
        assert done.returncode == expected, done.stderr
        assert says in done.stderr
        assert "Traceback" not in done.stderr
