"""Fixtures that several tests of the benchmark share."""

from __future__ import annotations

import pytest

from tests.onnx_models import artifact, save


@pytest.fixture
def model(tmp_path):
    """The file of an artifact: rank 4 inside, its logical shapes beside it."""
    return save(artifact(), tmp_path / "m.onnx")


@pytest.fixture
def no_pauses(monkeypatch):
    """Nothing waits for a machine to settle: such a test is not about how steady times are."""
    from edge4d.validators import fps_paths

    monkeypatch.setattr(fps_paths, "_SETTLE_S", 0)
