"""Names that torch does not promise: where they are used, and what is said when one is gone."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import nn

import edge4d
from edge4d import torch_private
from edge4d.errors import RuntimeUnavailable

ROOT = Path(__file__).parent.parent
SETTLED = ("torch._ops", "torch._subclasses", "torch.utils._pytree")
"""Private by name, needed by everybody who works on captured graphs."""

NAMES = (
    (torch_private.outside_of_modes, "torch.utils._python_dispatch", "_disable_current_modes"),
    (torch_private.archive_reader, "torch._C", "PyTorchFileReader"),
    (torch_private.archive_loader, "torch.export.pt2_archive._package", "load_pt2"),
    (torch_private.plain_calls, "torch._C", "DisableTorchFunction"),
    (torch_private.tied_call, "torch._higher_order_ops.effects", "with_effects"),
)


@pytest.mark.parametrize(("function", "module", "name"), NAMES, ids=[name for *_, name in NAMES])
def test_a_torch_without_a_name_is_named_with_the_version_that_has_it(monkeypatch, function, module, name):
    assert function() is not None
    monkeypatch.delattr(f"{module}.{name}")
    with pytest.raises(RuntimeUnavailable) as caught:
        function()
    assert f"torch {torch.__version__} has no" in caught.value.message
    assert name in caught.value.message
    assert f"torch=={torch_private.TESTED}" in caught.value.hint


def test_a_torch_without_the_effects_module_still_captures_what_has_no_effect(monkeypatch):
    name, import_module = "torch._higher_order_ops.effects", importlib.import_module
    monkeypatch.setattr(  # torch itself needs its own
        importlib,
        "import_module",
        lambda asked, package=None: ModuleType(name) if asked == name else import_module(asked, package),
    )
    assert edge4d.lower(nn.Conv3d(1, 1, 3), (torch.zeros(1, 1, 4, 4, 4),)).outputs
    with pytest.raises(RuntimeUnavailable, match="with_effects"):
        edge4d.lower(Inverse(), (torch.eye(3).reshape(1, 1, 3, 3),))


class Inverse(nn.Module):
    def forward(self, x):
        return torch.linalg.inv(x)


def test_the_version_that_is_named_is_the_one_that_tests_run_with():
    assert re.search(rf"^torch=={re.escape(torch_private.TESTED)}\.", (ROOT / "constraints.txt").read_text(), re.M)


def private_imports(text: str) -> list[str]:
    """Modules below torch with a private part in their names that a source imports from."""
    found = re.findall(r"^\s*(?:from|import) (torch(?:\.\w+)*\._\w[\w.]*|torch\._\w[\w.]*)", text, re.M)
    found += re.findall(r"\b(torch\._C\.\w+)", text)
    return [name for name in found if not name.startswith(SETTLED)]


def test_other_private_modules_of_torch_are_imported_here_alone():
    assert private_imports("from torch._higher_order_ops.effects import x\n    with torch._C.DisableTorchFunction():")
    for folder in ("edge4d", "exporters", "validators"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            if path.name != "torch_private.py":
                assert not private_imports(path.read_text()), path
