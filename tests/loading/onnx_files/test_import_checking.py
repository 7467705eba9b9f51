"""A file that ONNX Runtime cannot run is said not to be checked; a fault of the import itself is no such note."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import edge4d.artifact
from edge4d.errors import PackingError, ValidationError
from edge4d.exporters.native import write_native
from edge4d.import_checking import check_import
from edge4d.subject import Subject


@pytest.fixture
def subject(tmp_path):
    path = tmp_path / "native.onnx"
    write_native(nn.Conv3d(2, 3, 3).eval(), (torch.randn(1, 2, 4, 5, 5),), path)
    return Subject.of(path)


def raising(error):
    def fails(*_, **__):
        raise error

    return fails


def test_a_file_that_runs_gets_no_note(subject):
    before = list(subject.notes)
    check_import(subject)
    assert subject.notes == before


def test_a_file_that_onnxruntime_refuses_is_said_not_to_be_checked(subject, monkeypatch):
    monkeypatch.setattr(edge4d.artifact, "open", raising(ValidationError("no kernel for it")))
    check_import(subject)
    assert any("was not checked" in note and "no kernel for it" in note for note in subject.notes)


def test_a_fault_of_the_import_is_not_hidden(subject, monkeypatch):
    monkeypatch.setattr(edge4d.artifact, "open", raising(PackingError("another shape")))
    with pytest.raises(PackingError, match="another shape"):
        check_import(subject)
