"""The wheel installs one import name, and all of it."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = {"edge4d": "edge4d", "exporters": "edge4d/exporters", "validators": "edge4d/validators"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    # from a copy: setuptools leaves build/ and *.egg-info behind
    source = folder / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE", *FOLDERS):
        subprocess.run(["cp", "-r", ROOT / name, source], check=True)
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "-o", str(folder), str(source)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = folder.glob("*.whl")
    return built


def test_it_installs_one_import_name(wheel):
    names = {name.split("/")[0] for name in zipfile.ZipFile(wheel).namelist()}
    assert {name for name in names if not name.endswith(".dist-info")} == {"edge4d"}


def test_it_holds_every_module_and_the_type_marker(wheel):
    inside = set(zipfile.ZipFile(wheel).namelist())
    expected = {
        f"{home}/{path.relative_to(ROOT / folder)}"
        for folder, home in FOLDERS.items()
        for path in (ROOT / folder).rglob("*.py")
    }
    assert expected <= inside
    assert "edge4d/py.typed" in inside
    profiles = {f"edge4d/validators/profiles/{path.name}" for path in (ROOT / "validators" / "profiles").glob("*.toml")}
    assert len(profiles) >= 10
    assert profiles <= inside
