"""`--factory`: what works, and each way it can fail."""

import sys

import pytest
from torch import nn

from edge4d.errors import UsageError
from edge4d.loading.factory import build

SOURCE = """
import torch

class Tiny(torch.nn.Sequential):
    def __init__(self):
        super().__init__(torch.nn.Conv3d(3, 2, 1))

class holder:
    make = Tiny

def build_model():
    import helper_e4d  # found too: the folder stays importable while the factory runs
    return Tiny()

def build_wide(width):
    return Tiny()

def no_module():
    return {"weights": 1}

def raises():
    return 1 / 0

number = 3
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    (tmp_path / "models_e4d.py").write_text(SOURCE)
    (tmp_path / "helper_e4d.py").touch()
    (tmp_path / "needy_e4d.py").write_text("import not_installed_e4d\n")
    (tmp_path / "broken_e4d.py").write_text("def build(:\n")
    monkeypatch.chdir(tmp_path)
    yield
    for name in [name for name in sys.modules if name.endswith("_e4d")]:
        del sys.modules[name]


@pytest.mark.parametrize("name", ["build_model", "Tiny", "holder.make"])
def test_builds_from_the_current_directory(name):
    before = list(sys.path)
    module = build(f"models_e4d:{name}")
    assert isinstance(module, nn.Sequential)
    assert sys.path == before


@pytest.mark.parametrize(
    ("factory", "says", "hint"),
    [
        ("models_e4d", "expected package.module:callable", "my_models.video:build"),
        ("models_e4d.py:build", "there is no module 'models_e4d.py'", ""),
        ("models/e4d:build", "expected package.module:callable", ""),
        ("missing_e4d:build", "there is no module 'missing_e4d' to import", "PYTHONPATH"),
        ("missing_e4d.inner:build", "there is no module 'missing_e4d' to import", "PYTHONPATH"),
        (
            "needy_e4d:build",
            "needs the module 'not_installed_e4d', which is not installed",
            "install not_installed_e4d",
        ),
        ("broken_e4d:build", "importing broken_e4d raised SyntaxError", None),
        ("models_e4d:build_modle", "models_e4d has no attribute 'build_modle'", "did you mean build_model"),
        ("models_e4d:zzz", "has no attribute 'zzz'", "check the name after the colon"),
        ("models_e4d:number", "is a int, not something that can be called", None),
        ("models_e4d:build_wide", "without arguments raised TypeError", "takes no arguments"),
        ("models_e4d:raises", "raised ZeroDivisionError: division by zero", ""),
        ("models_e4d:no_module", "returned a dict, expected a torch.nn.Module", ""),
    ],
)
def test_failures(factory, says, hint):
    before = list(sys.path)
    with pytest.raises(UsageError) as caught:
        build(factory)
    assert caught.value.message.startswith(f"--factory {factory}") or repr(factory) in caught.value.message
    assert says in caught.value.message
    if hint is None:
        assert caught.value.hint is None
    else:
        assert hint in caught.value.hint
    assert sys.path == before
