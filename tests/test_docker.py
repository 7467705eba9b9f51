"""The images' recipes, without building them: pins, what gets in, what is copied. `make docker-test` builds them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "docker"
FILES = ("Dockerfile", "rknn.Dockerfile", "tensorrt.Dockerfile")


def text(name):
    return (FOLDER / name).read_text(encoding="utf-8")


def pins(path):
    lines = path.read_text(encoding="utf-8").splitlines()
    return dict(line.split("==") for line in lines if "==" in line and not line.startswith("#"))


def commands(name, word):
    joined = text(name).replace("\\\n", " ")
    return [line.split(maxsplit=1)[1] for line in joined.splitlines() if line.startswith(f"{word} ")]


def sources(name):
    """Paths that a Dockerfile copies from the repository."""
    copies = [line.split() for line in commands(name, "COPY") if not line.startswith("--from=")]
    return [word for words in copies for word in words[:-1]]


def let_in(ignore):
    """Patterns that an ignore file which begins by leaving out everything lets in again."""
    rules = [line for line in ignore.splitlines() if line and not line.startswith("#")]
    assert rules[0] == "*", "it must begin by leaving out everything"
    return [rule[1:] for rule in rules if rule.startswith("!")]


@pytest.mark.parametrize("name", FILES)
def test_what_is_copied_exists_and_is_let_in(name):
    allowed = let_in((ROOT / ".dockerignore").read_text(encoding="utf-8"))
    for source in sources(name):
        assert (ROOT / source).exists(), source
        assert source in allowed, source


def test_nothing_else_is_let_in():
    allowed = let_in((ROOT / ".dockerignore").read_text(encoding="utf-8"))
    assert set(allowed) == {source for name in FILES for source in sources(name)}
    assert not any(entry.startswith(".") or "*" in entry for entry in allowed)


def test_an_ignore_file_that_lets_all_in_is_found():
    with pytest.raises(AssertionError, match="leaving out everything"):
        let_in(".git\n.env\n")


@pytest.mark.parametrize("name", FILES)
def test_every_install_is_pinned(name):
    joined = " ".join(commands(name, "RUN"))
    installs = re.findall(r"pip install ([^&]*)", joined)
    assert installs
    assert all(re.search(r"-c \S*constraints\.txt", install) for install in installs)


@pytest.mark.parametrize("name", FILES)
def test_the_last_user_is_not_root(name):
    assert commands(name, "USER")[-1] == "10001"


def test_the_toolkits_pins_are_complete_and_those_that_edge4d_names():
    pinned = pins(FOLDER / "rknn-constraints.txt")
    install = " ".join(commands("rknn.Dockerfile", "RUN"))
    for name in pinned:
        assert re.search(rf"\s{re.escape(name)}(\s|$)", install), name
    from edge4d.exporters.rknn import Rknn

    assert f"rknn-toolkit2=={pinned['rknn-toolkit2']}" in Rknn("no-such-program").probe().install
    assert int(pinned["setuptools"].partition(".")[0]) < 81  # has pkg_resources
    assert pinned["torch"] == pins(ROOT / "constraints.txt")["torch"]


def test_the_images_take_extras_that_exist():
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    asked = {
        extra for name in FILES for found in re.findall(r"'\.\[([\w,-]+)\]'", text(name)) for extra in found.split(",")
    }
    assert asked
    assert all(re.search(rf"^{extra} = \[", project, re.MULTILINE) for extra in asked)


def test_compose_names_the_dockerfiles():
    services = yaml.safe_load(text("compose.yaml"))["services"]
    assert sorted(service["build"]["dockerfile"] for service in services.values()) == sorted(
        f"docker/{n}" for n in FILES
    )
