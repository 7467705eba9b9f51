"""Sizes beyond reason: a rank all the same, or a finding; and never more memory than a small multiple of the file."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import AttributeProto, TensorProto

from edge4d.errors import ValidationError
from edge4d.validators import check_rank
from tests.validators import onnx_models as zoo
from tests.validators.onnx_models import X, floats, ints, model, node, value

I64 = TensorProto.INT64

HUGE = {
    "input of 2**60": lambda: model(node("Relu", "x", "y"), inputs=[("x", [2**60] * 4)], outputs=[("y", None)]),
    "negative sizes": lambda: model(
        node("Relu", "x", "y"), inputs=[("x", [-1, -(2**63), 0, 4])], outputs=[("y", None)]
    ),
    "flatten that overflows": lambda: model(
        node("Flatten", "x", "y"), inputs=[("x", [2**62] * 4)], outputs=[("y", None)]
    ),
    "tile that overflows": lambda: model(
        node("Tile", "x r", "y"), weights=[ints("r", *[2**62] * 4)], outputs=[("y", None)]
    ),
    "external weight of 2**60": lambda: model(
        node("Relu", "x", "y"), weights=[TensorProto(name="w", dims=[2**60] * 4, data_type=1, data_location=1)]
    ),
    "division by zero": lambda: model(
        node("Shape", "x", "s"), node("Div", "s z", "d"), node("Mod", "s z", "m"), node("Reshape", "x d", "y"),
        weights=[ints("z", 0, 0, 0, 0)], outputs=[("y", None)],
    ),
    "least integer by minus one": lambda: model(
        node("Div", "q z", "d"), node("Mod", "q z", "m"), node("Reshape", "x d", "y"),
        weights=[ints("q", *[-(2**63)] * 4), ints("z", *[-1] * 4)], outputs=[("y", None)],
    ),
    "strides and groups of zero": lambda: model(
        node("Conv", "x w", "y", group=0, strides=[0, 0]), weights=[floats("w", 4, 4, 3, 3)]
    ),
    "pool of stride zero": lambda: model(node("MaxPool", "x", "y", kernel_shape=[2, 2], strides=[0, 0])),
    "blocks of zero": lambda: model(node("DepthToSpace", "x", "y", blocksize=0)),
    "split into none": lambda: model(node("Split", "x", "y", num_outputs=0, axis=0)),
    "range of step zero": lambda: model(
        node("Range", "a b a", "r"), node("Relu", "x", "y"), weights=[_scalar("a", 0), _scalar("b", 9)]
    ),
}  # fmt: skip


def _scalar(name, number):
    return onnx.numpy_helper.from_array(np.array(number, np.int64), name)


@pytest.mark.parametrize("make", HUGE.values(), ids=HUGE.keys())
def test_sizes_beyond_reason_have_a_rank_all_the_same(make):
    report = check_rank(make())
    assert report.ok, report.to_text()


UNPROVEN = {
    "reshape to 2**60 axes": lambda: _to_length("Reshape", 2**60),
    "reshape to 2**20 axes": lambda: _to_length("Reshape", 2**20),
    "expand to 2**60 axes": lambda: _to_length("Expand", 2**60),
    "constant of 2**60 axes": lambda: model(
        node("ConstantOfShape", "s", "y"), inputs=[("s", [2**60], I64)], outputs=[("y", None)]
    ),
    "reshape to a range of 2**30": lambda: model(
        node("Range", "a b a1", "r"), node("Reshape", "x r", "y"), outputs=[("y", None)],
        weights=[_scalar("a", 0), _scalar("b", 2**30), _scalar("a1", 1)],
    ),
    "axes that double thirty times": lambda: model(
        *[node("Gather", f"v{i} v{i}", f"v{i + 1}") for i in range(30)],
        inputs=[("v0", [2, 2, 2], I64)], outputs=[("v30", None, I64)],
    ),
}  # fmt: skip


def _to_length(op, length):
    return model(node(op, "x s", "y"), inputs=[X, ("s", [length], I64)], outputs=[("y", None)])


def test_a_shape_that_doubles_forty_times_is_a_list_all_the_same():
    """ONNX's data propagation would write down 2**42 numbers; the rank is 1 without them."""
    nodes = [node("Concat", f"v{i} v{i}", f"v{i + 1}", axis=0) for i in range(40)]
    report = check_rank(model(node("Shape", "x", "v0"), *nodes, outputs=[("v40", None, I64)]))
    assert report.highest_rank == 4
    assert not {f.code for f in report.findings} - {"E4D002"}


def test_a_weight_of_very_many_axes_is_one_line():
    report = check_rank(model(node("Relu", "x", "y"), weights=[TensorProto(name="w", dims=[1] * 10**5, data_type=1)]))
    assert "initializer 'w' has 100000 axes" in report.to_text(limit=None)
    assert len(report.to_text(limit=None)) < 1000


_MEASURED = """
import json, sys
from pathlib import Path
from edge4d.errors import ValidationError
from edge4d.validators import check_rank
try:
    report = check_rank(sys.argv[1])
    said = report.verdict
    assert len(json.dumps(report.to_dict())) < 5_000_000
    assert len(report.to_text(limit=None)) < 5_000_000
except ValidationError as error:
    said = error.message
status = Path("/proc/self/status").read_text()
peak = next(line for line in status.splitlines() if line.startswith("VmHWM"))
print(json.dumps([said, int(peak.split()[1]) / 1024]))
"""


def _measured(path):
    """Verdict or message, and the greatest memory of the process in MiB."""
    if not Path("/proc/self/status").exists():
        pytest.skip("the system does not tell what a process takes")
    done = subprocess.run([sys.executable, "-c", _MEASURED, str(path)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def floor(tmp_path_factory):
    path = tmp_path_factory.mktemp("floor") / "m.onnx"
    onnx.save(zoo.plain(), path)
    return _measured(path)[1]


def test_external_weights_take_no_memory(tmp_path, floor):
    """Four gigabytes beside the model, of which not a byte is read."""
    weight = TensorProto(name="w", dims=[4, 4, 2**13, 2**13], data_type=1, data_location=TensorProto.EXTERNAL)
    weight.external_data.add(key="location", value="w.bin")
    with (tmp_path / "w.bin").open("wb") as stream:
        stream.truncate(4 * 2**30)
    path = tmp_path / "m.onnx"
    path.write_bytes(model(node("Conv", "x w", "y"), weights=[weight], outputs=[("y", None)]).SerializeToString())
    verdict, peak = _measured(path)
    assert verdict == "pass"
    assert peak < floor + 10


def test_weights_in_the_file_take_a_constant_factor(tmp_path, floor):
    path = tmp_path / "m.onnx"
    weight = TensorProto(name="w", dims=[4, 4, 1024, 1024], data_type=1, raw_data=bytes(64 * 2**20))
    path.write_bytes(model(node("Relu", "x", "y"), weights=[weight]).SerializeToString())
    verdict, peak = _measured(path)
    assert verdict == "pass"
    assert peak < floor + 3 * 64


@pytest.mark.parametrize("name", UNPROVEN)
def test_values_of_a_billion_axes_do_not_pass_and_take_little_memory(tmp_path, floor, name):
    path = tmp_path / "m.onnx"
    path.write_bytes(UNPROVEN[name]().SerializeToString())
    verdict, peak = _measured(path)
    assert verdict in ("fail", "unknown")
    assert peak < floor + 200


# ---- a few bytes that ask for what many bytes ask for ---------------------------------------------------------------


def _named(where):
    """One name of 200,000 characters, at a node with 1,000 results, 1,000 graphs or a graph of 1,000 nodes."""
    proto, many = zoo.plain(), range(1000)
    vendor = proto.graph.node.add(op_type="Foo", domain="vendor", input=["x"], output=["q"])
    if where == "graphs":
        kept = vendor.attribute.add(name="bodies", type=AttributeProto.GRAPHS)
        for _ in many:
            kept.graphs.add()
    elif where == "nodes":
        graph = vendor.attribute.add(name="body", type=AttributeProto.GRAPH).g
        for i in many:
            graph.node.add(op_type="Foo", domain="vendor", input=["x"], output=[f"v{i}"])
    else:
        vendor.output.extend(f"v{i}" for i in many)
    if where == "layer":
        vendor.metadata_props.add(key="edge4d.layer", value="n" * 200_000)
    elif where == "operator":
        vendor.op_type = "n" * 200_000
    elif where == "input":
        proto.graph.input.append(value("n" * 200_000))
        vendor.input[0] = "n" * 200_000
    else:
        vendor.name = "n" * 200_000
    return proto


@pytest.mark.parametrize("where", ["graphs", "nodes", "results", "operator", "input"])
def test_a_name_that_would_stand_in_every_finding_is_refused(where):
    with pytest.raises(ValidationError, match="a name of 200000 characters, expected at most 2000; refused"):
        check_rank(_named(where))


def test_a_long_name_is_no_reason_to_refuse():
    proto = zoo.hidden_rank_5()
    proto.graph.node[0].name = "n" * 2000
    assert check_rank(proto).verdict == "fail"


def test_a_path_of_long_names_is_shortened():
    """Each graph within the others is called after all of them."""
    proto = zoo.plain()
    graph = proto.graph
    for _ in range(30):
        vendor = graph.node.add(op_type="F" * 1000, domain="vendor", name="n" * 1000, input=["x"], output=["q"])
        graph = vendor.attribute.add(name="a" * 1000, type=AttributeProto.GRAPH).g
    graph.node.add(op_type="Foo", domain="vendor", name="last", input=["x"], output=["q"])
    deepest = check_rank(proto).findings[-1].where.graph
    assert len(deepest) < 2100
    assert deepest.startswith("graph / ")


def _long_size():
    """A size with a name of 200,000 characters, which every value has."""
    nodes = [node("Relu", f"v{i}", f"v{i + 1}") for i in range(1000)]
    return model(*nodes, inputs=[("v0", ["n" * 200_000, 4])], outputs=[("v1000", None)])


def _many_axes(axes, nodes):
    """A value of very many axes, and very many of its kind."""
    chain = [node("Relu", f"v{i}", f"v{i + 1}") for i in range(nodes)]
    return model(*chain, inputs=[("v0", [1] * axes)], outputs=[(f"v{nodes}", None)])


def _more_axes():
    """64 axes more at every node."""
    chain = [node("Unsqueeze", f"v{i} axes", f"v{i + 1}") for i in range(600)]
    return model(*chain, inputs=[("v0", [1])], outputs=[("v600", None)], weights=[ints("axes", *range(64))])


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: _named("layer"), "unknown"),
        (_long_size, "pass"),
        (lambda: _many_axes(50_000, 200), "fail"),
        pytest.param(_more_axes, "unknown", marks=pytest.mark.slow),
    ],
    ids=["layer", "size", "axes", "more axes"],
)
def test_a_small_file_takes_little_memory(tmp_path, floor, make, expected):
    path = tmp_path / "m.onnx"
    path.write_bytes(make().SerializeToString())
    verdict, peak = _measured(path)
    assert verdict == expected
    assert peak < floor + 200
