"""Model files against each other: which inputs they get, how their outputs are paired, what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from edge4d.checking import check_parity
from edge4d.errors import LoadError, UsageError
from edge4d.validators import Tolerance

pytest.importorskip("onnxruntime", reason="parity runs ONNX files on ONNX Runtime")

WEIGHT = np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4)


class Net(torch.nn.Module):
    """A linear layer with fixed weights and two outputs."""

    def __init__(self, *, scale=1.0):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.from_numpy(WEIGHT * scale))

    def forward(self, x):
        y = x @ self.weight
        return y, y.relu()


def _onnx(path, *, scale=1.0, shape=(2, 3), names=("y", "z"), outputs=2, inputs=("x",)):
    nodes = [
        helper.make_node("MatMul", [inputs[0], "w"], [names[0]]),
        helper.make_node("Relu", [names[0]], [names[1]]),
    ]
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in inputs]
    results = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names[:outputs]]
    weight = numpy_helper.from_array((WEIGHT * scale).astype(np.float32), "w")
    graph = helper.make_graph(nodes, "g", ports, results, [weight])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    return Path(path)


@pytest.fixture
def program(tmp_path):
    path = tmp_path / "net.pt2"
    torch.export.save(torch.export.export(Net().eval(), (torch.zeros(2, 3),)), path)
    return path


def test_a_program_against_onnx(tmp_path, program):
    good, bad = _onnx(tmp_path / "good.onnx"), _onnx(tmp_path / "bad.onnx", scale=1.9)
    reports = check_parity(program, [good, bad])
    assert [report.ok for report in reports.values()] == [True, False]
    assert list(reports) == [good, bad]
    assert reports[good].sets == 2
    assert [row.name for row in reports[good].rows] == ["y", "z"]
    assert any("paired by position" in note for note in reports[good].notes)


def test_onnx_against_onnx_is_paired_by_name(tmp_path):
    a, b = _onnx(tmp_path / "a.onnx"), _onnx(tmp_path / "b.onnx")
    renamed = _onnx(tmp_path / "c.onnx", names=("z", "y"))
    reports = check_parity(a, [b, renamed])
    assert reports[b].ok
    assert not reports[b].notes
    assert not reports[renamed].ok


def test_another_number_of_outputs_fails(tmp_path, program):
    (report,) = check_parity(program, [_onnx(tmp_path / "a.onnx", outputs=1)]).values()
    assert not report.ok
    assert "the reference has 2 outputs, the candidate 1" in report.to_text()


def test_a_state_dict_gets_its_shape_from_the_candidate(tmp_path, monkeypatch):
    weights = tmp_path / "weights.pt"
    torch.save(Net().state_dict(), weights)
    (tmp_path / "parity_nets.py").write_text(f"from {__name__} import Net\ndef build():\n    return Net()\n")
    monkeypatch.syspath_prepend(tmp_path)
    (report,) = check_parity(weights, [_onnx(tmp_path / "a.onnx")], factory="parity_nets:build").values()
    assert report.ok


def test_open_sizes_need_a_shape(tmp_path):
    a, b = (_onnx(tmp_path / name, shape=("n", 3)) for name in ("a.onnx", "b.onnx"))
    with pytest.raises(UsageError, match="leaves sizes open"):
        check_parity(a, [b])
    (report,) = check_parity(a, [b], input_shapes=[(5, 3)]).values()
    assert report.ok
    assert report.rows[0].shape == (5, 4)
    with pytest.raises(UsageError, match="given 2 times"):
        check_parity(a, [b], input_shapes=[(5, 3), (5, 3)])


def test_inputs_from_a_file(tmp_path, program):
    candidate = _onnx(tmp_path / "a.onnx")
    path = tmp_path / "in.npz"
    for arrays in ({"x": np.ones((2, 3), np.float32)}, {"anything": np.ones((2, 3), np.float32)}):
        np.savez(path, **arrays)
        (report,) = check_parity(program, [candidate], inputs=path).values()
        assert report.ok
        assert report.sets == 1
    np.savez(path, a=np.ones(1), b=np.ones(1))
    with pytest.raises(UsageError, match="holds a, b; the model's inputs are x"):
        check_parity(program, [candidate], inputs=path)
    np.save(tmp_path / "in.npy", np.ones(1))
    path.write_bytes(b"PK\x03\x04 no archive")
    np.savez(tmp_path / "objects.npz", x=np.array([None]))
    for wrong in (path, *(tmp_path / name for name in ("in.npy", "none.npz", "objects.npz"))):
        with pytest.raises(UsageError, match="--clips"):
            check_parity(program, [candidate], inputs=wrong)


def test_inputs_of_the_wrong_shape_are_the_users_mistake(tmp_path, program):
    np.savez(tmp_path / "in.npz", x=np.ones((7, 3, 3), np.float32))
    with pytest.raises(UsageError, match=r"net\.pt2 fails on the inputs input0 7x3x3"):
        check_parity(program, [program], inputs=tmp_path / "in.npz")


def test_models_of_another_number_of_inputs(tmp_path, program):
    with pytest.raises(UsageError, match=r"takes 1 input \(input0\), another of the models takes 2"):
        check_parity(program, [_onnx(tmp_path / "a.onnx", inputs=("x", "unused"))])


def test_a_tolerance_is_passed_on(tmp_path, program):
    candidate = _onnx(tmp_path / "a.onnx", scale=1.01)
    assert not check_parity(program, [candidate])[candidate].ok
    assert check_parity(program, [candidate], tolerance=Tolerance(0.1))[candidate].ok


def test_what_is_refused(tmp_path, program):
    with pytest.raises(UsageError, match="at least one CANDIDATE"):
        check_parity(program, [])
    with pytest.raises(LoadError, match="no such file"):
        check_parity(program, [tmp_path / "none.onnx"])
    good = _onnx(tmp_path / "a.onnx")
    with pytest.raises(UsageError, match="holds weights alone"):
        check_parity(good, [good], factory="a:b")
