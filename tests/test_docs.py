"""The documents are true: their Python runs, their links lead somewhere, their commands and options exist."""

from __future__ import annotations

import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import onnxruntime
import pytest
import torch
from torch import nn

import edge4d
from edge4d.cli import main
from edge4d.cli.app import VERBS
from edge4d.lowering.registry import registered

ROOT = Path(__file__).resolve().parents[1]
README = ROOT / "README.md"
DOCUMENTS = [
    README,
    *(ROOT / name for name in ("CONTRIBUTING.md", "CHANGELOG.md")),
    *sorted((ROOT / "docs").glob("*.md")),
]
NAMES = [str(path.relative_to(ROOT)) for path in DOCUMENTS]

NOT_OURS = {"--index-url"}
"""Options in the documents that belong to other programs."""

REFUSED = {
    "mode": "aten.mode.default",
    "masked_scatter": "aten.masked_scatter.default",
    "logcumsumexp": "aten.logcumsumexp.default",
    "histc": "aten.histc.default",
    "FFT": "aten._fft_r2c.default",
}
"""What the README says has no rule, and the overload that would."""


def fenced(text: str, *languages: str) -> list[str]:
    """Code blocks of these languages."""
    return [code for language, code in re.findall(r"^```(\w*)\n(.*?)^```$", text, re.S | re.M) if language in languages]


def write_script(folder: Path, document: Path) -> Path:
    """All Python blocks of a document as one file, line for line at their places, so that tracebacks fit both."""
    lines, inside = [], False
    for line in document.read_text(encoding="utf-8").splitlines():
        if line.startswith("```"):
            inside = line == "```python"
            line = ""
        lines.append(line if inside else "")
    script = folder / f"{document.stem}_example.py"
    script.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return script


# ---- links --------------------------------------------------------------------------------------------------------


def dead_links(text: str, folder: Path) -> list[str]:
    """Relative links that lead to no file."""
    prose = re.sub(r"^```.*?^```$", "", text, flags=re.S | re.M)
    targets = re.findall(r"\]\(([^)\s]+)\)", prose)
    local = [target.split("#")[0] for target in targets if not re.match(r"[a-z]+:|#", target)]
    return [target for target in local if not (folder / target).exists()]


@pytest.mark.parametrize("name", NAMES)
def test_relative_links_lead_somewhere(name):
    assert dead_links((ROOT / name).read_text(encoding="utf-8"), (ROOT / name).parent) == []


def test_a_dead_link_is_found(tmp_path):
    (tmp_path / "there.md").touch()
    text = "[a](there.md#part) [b](gone.md) [c](https://example.org) [d](#here)\n```text\n[e](code.md)\n```\n"
    assert dead_links(text, tmp_path) == ["gone.md"]


def test_documents_name_no_missing_file():
    """`edge4d/…`, `tests/…` and the like, where a document names a file of the repository."""
    missing = []
    for document in DOCUMENTS:
        for word in re.findall(
            r"`((?:edge4d|exporters|validators|tests|examples)/[\w/.*]+)`", document.read_text("utf-8")
        ):
            if "NAME" not in word and not list(ROOT.glob(word.rstrip("/"))):
                missing.append((document.name, word))
    assert missing == []


# ---- commands -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def options_of():
    """The options of every verb, as its help page has them."""
    found = {}
    for verb in VERBS:
        page = subprocess.run(
            [sys.executable, "-m", "edge4d", verb, "--help"],
            capture_output=True,
            text=True,
            encoding="utf-8",
            check=True,
            env={**os_environment(), "COLUMNS": "200"},
        ).stdout
        rows = [line for line in page.splitlines() if line.startswith("│")]  # the examples above them prove nothing
        found[verb] = {option for row in rows for option in re.findall(r"(?<![\w-])--?[a-z][a-z-]*", row)}
        assert "--help" in found[verb], page
    return found


def os_environment() -> dict[str, str]:
    return {**os.environ, "PYTHONIOENCODING": "utf-8", "NO_COLOR": "1", "TERM": "dumb"}


def wrong_commands(text: str, options_of: dict[str, set[str]]) -> list[str]:
    """`edge4d` commands with an unknown verb or option, and options that no verb has."""
    wrong = []
    code = [*fenced(text, "console", "yaml", "text", "bash"), *re.findall(r"(?<!`)`([^`\n]+)`(?!`)", text)]
    everywhere = set().union(*options_of.values()) | {"--version"}
    for line in "\n".join(code).splitlines():
        called = re.search(r"(?:^|[\s`])edge4d ((?:--)?[a-z]+)(.*)", line)
        given = set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", line)) - NOT_OURS
        if called is None:
            wrong += [f"{option} in {line!r}" for option in sorted(given - everywhere) if option.startswith("--")]
            continue
        verb = called[1]
        if verb.startswith("--"):
            continue
        if verb not in options_of:
            wrong.append(f"verb {verb} in {line!r}")
            continue
        asked = set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", called[2]))
        wrong += [f"{option} in {line!r}" for option in sorted(asked - options_of[verb])]
    return wrong


@pytest.mark.parametrize("name", NAMES)
def test_commands_and_options_exist(name, options_of):
    assert wrong_commands((ROOT / name).read_text(encoding="utf-8"), options_of) == []


def test_wrong_commands_are_found(options_of):
    text = (
        "```console\n$ edge4d exprot m.pt2\n$ edge4d verify m.onnx --opset 18\n$ edge4d export m.pt2 -o m.onnx\n```\n"
        "Use `--trust-pickle`, `edge4d doctor` and `--no-such-thing`.\n"
    )
    found = wrong_commands(text, options_of)
    assert [entry.split(" in ")[0] for entry in found] == ["verb exprot", "--opset", "--no-such-thing"]


def test_make_targets_exist():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))
    code = "\n".join(
        word
        for document in DOCUMENTS
        for text in [document.read_text(encoding="utf-8")]
        for word in [*fenced(text, "console", "yaml"), *re.findall(r"`(make [^`\n]+)`", text)]
    )
    named = set(re.findall(r"(?:^|\$ )make ([a-z-]+)", code, re.M))
    assert {"demo", "test"} <= named <= targets


def shown(command: str) -> list[str]:
    """The lines that the README shows below `$ command`, up to the next command; what is left out or varies is not."""
    (block,) = (code for code in fenced(README.read_text(encoding="utf-8"), "console") if f"$ {command}\n" in code)
    lines = block.split(f"$ {command}\n")[1].split("\n$ ")[0].splitlines()
    return [line for line in lines if "…" not in line and not re.search(r"\de-\d", line)]


@pytest.mark.parametrize("verb", ["export", "plan"])
def test_readme_shows_what_the_commands_print(verb, tmp_path, monkeypatch, capsys):
    """The tour's commands, run; only measured figures may differ."""
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    called = re.findall(r"^\$ edge4d (.*)$", README.read_text(encoding="utf-8"), re.M)
    of_verb = {words.split()[0]: words for words in called if "native_5d" not in words}
    commands = [of_verb[name] for name in (("export", "verify", "parity") if verb == "export" else (verb,))]
    for words in commands:
        assert main(words.split()) == 0
        printed = capsys.readouterr().out.splitlines()
        gone = [line for line in shown(f"edge4d {words}") if line and line not in printed]
        assert not gone, f"README.md: `edge4d {words}` no longer prints {gone}; paste its output anew"


# ---- Python -------------------------------------------------------------------------------------------------------


class StandIn(nn.Module):
    """What the README calls `model`, in small."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv3d(3, 4, 3, padding=1)
        self.head = nn.Linear(4, 5)

    def forward(self, clip: torch.Tensor) -> torch.Tensor:
        return self.head(self.conv(clip).relu().mean((2, 3, 4)))


def test_readme_python_runs(tmp_path, monkeypatch):
    torch.manual_seed(0)
    model, clip = StandIn().eval(), torch.randn(1, 3, 6, 8, 10)
    monkeypatch.chdir(tmp_path)
    after = runpy.run_path(str(write_script(tmp_path, README)), init_globals={"model": model, "clip": clip})
    assert after["report"].parity.ok
    assert after["gate"].ok
    assert after["packed"].shape == (6, 3, 8, 10)
    with torch.no_grad():
        torch.testing.assert_close(torch.from_numpy(after["scores"]), model(clip), rtol=0, atol=1e-5)
    assert [port.name for port in onnxruntime.InferenceSession("model.onnx").get_inputs()] == ["clip"]


def test_parity_python_reads_the_layers(tmp_path, monkeypatch, capsys):
    torch.manual_seed(0)
    monkeypatch.chdir(tmp_path)
    assert edge4d.export(StandIn().eval(), (torch.randn(1, 3, 6, 8, 10),), output="model.onnx", parity=False).ok
    runpy.run_path(str(write_script(tmp_path, ROOT / "docs" / "parity.md")))
    printed = capsys.readouterr().out
    assert re.search(r"^conv is \S+ packed as n?.* -> ", printed, re.M)
    assert re.search(r"^head is output packed as ", printed, re.M)


def test_every_refusal_in_the_readme_still_stands():
    """When one of these gets a rule the README has to say so."""
    text = README.read_text(encoding="utf-8")
    (line,) = re.findall(r"^- No rule yet for: (.*?)\.$", text, re.M)
    assert [name.strip("`") for name in line.split(", ")] == list(REFUSED)
    have = {str(op) for op in registered()}
    assert [name for name, op in REFUSED.items() if op in have] == []


def test_refused_overloads_are_spelt_right():
    for name in REFUSED.values():
        _, packet, overload = name.split(".")
        assert str(getattr(getattr(torch.ops.aten, packet), overload)) == name


# ---- the worked example of docs/writing_rules.md ------------------------------------------------------------------


@pytest.fixture(scope="module")
def rule_script(tmp_path_factory):
    return write_script(tmp_path_factory.mktemp("rules"), ROOT / "docs" / "writing_rules.md")


@pytest.fixture(scope="module")
def rule_example(rule_script):
    """The example's names after it ran; it holds its own comparison with PyTorch."""
    return runpy.run_path(str(rule_script))


def test_worked_example_runs_and_exports(rule_example, tmp_path):
    net, clip = rule_example["net"].float(), rule_example["clip"].float()
    report = rule_example["edge4d"].export(net, args=(clip,), output=tmp_path / "net.onnx")
    assert report.ok, report.to_text()
    assert report.parity is not None


def test_worked_example_declines_what_it_does_not_honour(rule_example):
    assert [(layer.op, layer.becomes) for layer in rule_example["declined"]] == [
        ("docs_example.temporal_shift.default", None)
    ]
    assert rule_example["declined"][0].hint


def test_worked_example_from_the_command_line(rule_script, tmp_path):
    """A rule in the module that `--factory` names is registered before the model is lowered."""
    source = rule_script.read_text(encoding="utf-8") + "\n\ndef build():\n    return Net()\n"
    (tmp_path / "my_nets.py").write_text(source, encoding="utf-8")
    torch.save(nn.ModuleDict({"conv": nn.Conv3d(3, 8, 3, padding=1)}).state_dict(), tmp_path / "net.pt")
    done = subprocess.run(
        [sys.executable, "-m", "edge4d", "plan", "net.pt", "--factory", "my_nets:build", "--input-shape", "1x3x5x6x7"],
        capture_output=True,
        text=True,
        encoding="utf-8",
        cwd=tmp_path,
        env=os_environment(),
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "temporal_shift" in done.stdout
    assert "DECLINED" not in done.stdout
