"""The rank rule on ONNX files and on graphs that runtimes made."""

from __future__ import annotations

import pytest

from edge4d.errors import GateError
from edge4d.exporters.gating import Made, gate_model, gate_values
from tests.onnx_models import artifact, five_axes, save


def test_values_within_the_limit_are_counted():
    assert gate_values("it", [Made("a", 4, "CONV"), Made("b", 0, "CONSTANT")], 4) == 2


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (
            [Made("a", 4, "CONV 'c'"), Made("b", 5, "CONV 'd'")],
            "it: 1 finding at max rank 4\n    'b' of CONV 'd' has 5 axes",
        ),
        ([Made("a", None, "PLUGIN 'p'")], "'a' of PLUGIN 'p' has an unknown number of axes"),
        ([], "it holds no value, so nothing was checked"),
        ([Made(str(i), 6, "CONV") for i in range(9)], "9 findings at max rank 4(\n    .*){5}\n    and 4 more"),
    ],
)
def test_what_breaks_or_escapes_the_limit_is_a_finding(values, said):
    with pytest.raises(GateError, match=said):
        gate_values("it", iter(values), 4)


def test_a_file_is_held_against_the_whole_gate(tmp_path):
    gate_model(save(artifact(), tmp_path / "good.onnx"), 4)
    bad = save(five_axes(), tmp_path / "bad.onnx")
    with pytest.raises(GateError, match=r"bad\.onnx: \d findings at max rank 4\n    E4D003 .*Conv 'conv'"):
        gate_model(bad, 4)
    with pytest.raises(GateError, match=r"^what a runtime made: "):
        gate_model(bad, 4, "what a runtime made")
    gate_model(bad, 5)
