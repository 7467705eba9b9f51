"""What every registered exporter must keep to, installed or not."""

from __future__ import annotations

import numpy as np
import pytest

from edge4d import exporters
from edge4d.artifact import Opened
from edge4d.errors import RuntimeUnavailable, UsageError, ValidationError
from edge4d.exporters.protocol import Availability, Exporter, require
from tests.onnx_models import CLIP, artifact, expected, save


@pytest.fixture(params=exporters.names())
def exporter(request):
    return exporters.get(request.param)


def test_it_keeps_to_the_protocol(exporter):
    assert isinstance(exporter, Exporter)
    assert exporters.get(exporter.name).name == exporter.name
    assert all(suffix.startswith(".") for suffix in exporter.suffixes)


def test_its_probe_says_yes_or_what_to_install(exporter):
    found = exporter.probe()
    assert found.version if found.ok else found.why_not and found.install


def test_it_builds_what_computes_the_same(exporter, tmp_path):
    if not exporter.probe().ok:
        pytest.skip(f"{exporter.name}: {exporter.probe().why_not}")
    model = save(artifact(), tmp_path / "m.onnx")
    result = exporter.build(model, tmp_path / f"engine{exporter.suffixes[0]}")
    clip = np.random.default_rng(0).standard_normal(CLIP.shape).astype(np.float32)
    with Opened(result.path, exporter.open(result.path)) as engine:
        np.testing.assert_allclose(engine(clip)["result"], expected(clip), rtol=1e-6)
    assert all(file.is_file() for file in result.files)
    assert result.size_bytes > 0
    assert result.to_dict()["runtime"] == exporter.name


def test_a_missing_file_is_named(exporter, tmp_path):
    if not exporter.probe().ok:
        pytest.skip(f"{exporter.name}: {exporter.probe().why_not}")
    with pytest.raises(ValidationError, match=r"absent\.onnx: no such file"):
        exporter.open(tmp_path / "absent.onnx")
    with pytest.raises(ValidationError, match=r"absent\.onnx: no such file"):
        exporter.build(tmp_path / "absent.onnx", tmp_path / f"out{exporter.suffixes[0]}")


class Absent:
    """A runtime that is not there."""

    name = "absent"
    suffixes = (".absent",)

    def probe(self):
        return Availability(ok=False, why_not="it is not installed", install="pip install absent")


def test_require_gives_the_exact_install_command():
    with pytest.raises(RuntimeUnavailable, match="'absent' cannot be used here: it is not installed") as caught:
        require(Absent())
    assert caught.value.hint == "install it with: pip install absent"
    assert caught.value.exit_code == 3


@pytest.mark.parametrize(
    ("name", "hint"), [("onnxruntme", "did you mean 'onnxruntime'?"), ("ORT", "`edge4d doctor` lists the runtimes")]
)
def test_an_unknown_runtime_is_answered_with_the_known_ones(name, hint):
    with pytest.raises(UsageError, match="expected one of: onnxruntime") as caught:
        exporters.get(name)
    assert caught.value.hint == hint


def test_the_suffix_tells_the_runtime():
    assert exporters.for_path("a/b.ONNX").name == "onnxruntime"
    with pytest.raises(UsageError, match=r"expected one of the suffixes: \.onnx"):
        exporters.for_path("model")
