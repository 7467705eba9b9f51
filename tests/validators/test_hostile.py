"""Files made to mislead, to crash or to exhaust: one clear line, or the right verdict, and nothing else."""

from __future__ import annotations

import builtins
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import AttributeProto, ModelProto, TensorProto, helper

from edge4d.cli import main
from edge4d.errors import ValidationError
from edge4d.validators import check_rank
from tests.validators import onnx_models as zoo
from tests.validators.onnx_models import C, X, branch, floats, function, ints, model, node, value

I64 = TensorProto.INT64


def refused(path, capsys):
    """The one line that the command says about a file that it cannot read."""
    assert main(["verify", str(path)]) == 2
    _, err = capsys.readouterr()
    assert "Traceback" not in err
    first, *rest = err.strip().splitlines()
    assert all(line.startswith("  hint:") for line in rest)
    return first


def one_line(data):
    """Whether the answer is a verdict, or a refusal in one line."""
    try:
        said = check_rank(data).verdict
    except ValidationError as error:
        said = error.message
    return "\n" not in said


def _other_messages():
    port = helper.make_tensor_value_info("x", 1, [1, 2])
    yield "tensor", helper.make_tensor("t", 1, [2], [1.0, 2.0])
    yield "graph", zoo.plain().graph
    yield "node", zoo.conv2d().graph.node[0]
    yield "function", function("F", "a", "d", [node("Relu", "a", "d")])
    yield "port", port
    yield "type", port.type
    yield "attribute", helper.make_attribute("a", [1, 2, 3])
    yield "operator set", helper.make_opsetid("", 18)
    yield "sequence", onnx.SequenceProto(name="q", elem_type=1)


@pytest.mark.parametrize(("name", "proto"), list(_other_messages()), ids=lambda x: x if isinstance(x, str) else "")
def test_other_messages_of_onnx(tmp_path, capsys, name, proto):
    path = tmp_path / f"{name}.onnx"
    path.write_bytes(proto.SerializeToString())
    assert "not an ONNX model" in refused(path, capsys)


@pytest.mark.parametrize("seed", range(20))
def test_random_bytes(tmp_path, capsys, seed):
    rng = np.random.default_rng(seed)
    path = tmp_path / "m.onnx"
    path.write_bytes(rng.bytes(int(rng.integers(1, 5000))))
    assert str(path) in refused(path, capsys)


@pytest.mark.parametrize("make", [zoo.conv2d, zoo.rank_5_in_if, zoo.rank_5_in_function])
def test_every_truncation(tmp_path, make):
    """Cut anywhere, a file is refused or gets a verdict; a cut of a bad model never passes (see `test_rank`)."""
    data = make().SerializeToString()
    for end in range(len(data)):
        assert one_line(data[:end])


@pytest.mark.parametrize("make", [zoo.conv2d, zoo.rank_5_in_if])
def test_every_byte_changed(make):
    data = bytearray(make().SerializeToString())
    for i in range(len(data)):
        changed = bytes(data[:i]) + bytes([data[i] ^ 0xFF]) + bytes(data[i + 1 :])
        assert one_line(changed)


# ---- places on the disk -------------------------------------------------------------------------------------------


def test_folders_links_and_devices(tmp_path, capsys):
    loop = tmp_path / "loop.onnx"
    loop.symlink_to(loop)
    assert "cannot be read" in refused(loop, capsys)
    gone = tmp_path / "gone.onnx"
    gone.symlink_to(tmp_path / "nothing")
    assert "no such file" in refused(gone, capsys)
    empty = tmp_path / "folder.onnx"
    empty.mkdir()
    assert "nothing to check" in refused(empty, capsys)
    assert "not a regular file" in refused("/dev/zero", capsys)
    pipe = tmp_path / "pipe.onnx"
    os.mkfifo(pipe)
    assert "not a regular file" in refused(pipe, capsys)


def test_a_link_to_a_model_is_a_model(tmp_path):
    onnx.save(zoo.plain(), tmp_path / "m.onnx")
    link = tmp_path / "link.onnx"
    link.symlink_to(tmp_path / "m.onnx")
    assert check_rank(link).ok


def test_a_file_above_two_gigabytes_is_not_read(tmp_path, capsys):
    path = tmp_path / "m.onnx"
    with path.open("wb") as stream:
        stream.truncate(5 * 2**30)
    assert "at most 2147483647" in refused(path, capsys)


def _external(location, rank=4, **more):
    tensor = TensorProto(name="w", dims=[4] * rank, data_type=1, data_location=TensorProto.EXTERNAL)
    for key, text in {"location": location, **more}.items():
        tensor.external_data.add(key=key, value=str(text))
    return tensor


@pytest.mark.parametrize(
    ("location", "more"),
    [
        ("missing.bin", {}),
        ("/etc/passwd", {}),
        ("../../../../etc/passwd", {}),
        ("link.bin", {}),
        ("folder", {}),
        ("pipe", {}),  # whoever opens it waits for ever
        ("", {}),
        ("a\0b", {}),
        ("w.bin", {"offset": -1, "length": 2**62}),
        ("w.bin", {"offset": "many", "length": "more"}),
        ("http://example.org/w.bin", {}),
    ],
)
@pytest.mark.parametrize("rank", [4, 5])
def test_external_data_of_any_kind_changes_no_verdict(tmp_path, monkeypatch, location, more, rank):
    """Ranks stand in the file itself, so nothing else is opened, be it there or not."""
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link.bin").symlink_to("/etc/passwd")
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "m.onnx"
    path.write_bytes(model(node("Relu", "x", "y"), weights=[_external(location, rank, **more)]).SerializeToString())
    opened = []

    def watched(original):
        def call(file, *args, **kwargs):
            opened.extend([] if isinstance(file, int) else [str(file)])
            return original(file, *args, **kwargs)

        return call

    monkeypatch.setattr(builtins, "open", watched(builtins.open))
    monkeypatch.setattr(io, "open", watched(io.open))
    report = check_rank(path)
    assert report.ok == (rank == 4)
    assert {name for name in opened if not name.startswith(("/proc", sys.prefix))} <= {str(path)}


@pytest.mark.parametrize("op", ["ConstantOfShape", "Constant"])
def test_external_data_in_an_attribute_is_not_read_either(tmp_path, monkeypatch, op):
    os.mkfifo(tmp_path / "pipe")  # whoever opens it waits for ever
    monkeypatch.chdir(tmp_path)
    tensor = TensorProto(name="v", dims=[1], data_type=I64, data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="pipe")
    nodes = (node(op, "two" if op == "ConstantOfShape" else "", "s", value=tensor), node("Reshape", "x s", "y"))
    report = check_rank(model(*nodes, weights=[ints("two", 2)], outputs=[("y", None)]))
    assert report.ok
    assert report.highest_rank == 4


# ---- graphs -------------------------------------------------------------------------------------------------------


def nested(depth):
    """An If in an If in an If…"""
    proto = ModelProto(ir_version=10)
    proto.opset_import.add(version=18)
    graph = proto.graph
    for i in range(depth):
        gate = graph.node.add(op_type="If", input=["c"], output=[f"o{i}"])
        graph.output.add(name=f"o{i}")
        graph = gate.attribute.add(name="then_branch", type=AttributeProto.GRAPH).g
    graph.node.add(op_type="Relu", input=["x"], output=["y"])
    return proto


def test_a_thousand_graphs_within_each_other(tmp_path, capsys):
    path = tmp_path / "m.onnx"
    path.write_bytes(nested(1000).SerializeToString())
    assert "too deep within each other" in refused(path, capsys)
    with pytest.raises(ValidationError, match="more than 32 deep"):
        check_rank(nested(1000))
    assert check_rank(nested(32)).verdict == "fail"


def test_functions_a_thousand_deep():
    bodies = [function("F0", "a", "d", [node("Relu", "a", "d")])]
    bodies += [function(f"F{i}", "a", "d", [node(f"F{i - 1}", "a", "d", domain="my")]) for i in range(1, 1000)]
    with pytest.raises(ValidationError, match="more than 100 deep"):
        check_rank(model(node("F999", "x", "y", domain="my"), functions=bodies))


def test_functions_of_mixed_operator_sets_within_graphs_are_refused_before_python_gives_up():
    """Each level is one call that ONNX does not inline, from within a branch of a branch."""
    bodies = [function("F0", "c a", "d", [node("Relu", "a", "d")])]
    for i in range(1, 100):
        inner = [node(f"F{i - 1}", "c a", f"r{i}", domain="my")]
        for level in range(9):
            then, other = branch("t", inner[-1].output[0], *inner), branch("e", "e", node("Neg", "a", "e"))
            inner = [node("If", "c", f"r{i}_{level}", then_branch=then, else_branch=other)]
        inner[-1].output[0] = "d"
        bodies.append(function(f"F{i}", "c a", "d", inner, opset=17 + i % 2))
    with pytest.raises(ValidationError, match="too deep within each other"):
        check_rank(model(node("F99", "c x", "y", domain="my"), inputs=[X, C], functions=bodies))


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
    "external weight of 2**60": lambda: model(node("Relu", "x", "y"), weights=[_external("w.bin") for _ in range(1)]),
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


@pytest.mark.parametrize("make", UNPROVEN.values(), ids=UNPROVEN.keys())
def test_values_of_a_billion_axes_do_not_pass(make):
    report = check_rank(make())
    assert report.verdict in ("fail", "unknown")
    assert len(report.to_text(limit=None)) < 100_000


def test_a_shape_that_doubles_forty_times_is_a_list_all_the_same():
    """ONNX's data propagation would write down 2**42 numbers; the rank is 1 without them."""
    nodes = [node("Concat", f"v{i} v{i}", f"v{i + 1}", axis=0) for i in range(40)]
    report = check_rank(model(node("Shape", "x", "v0"), *nodes, outputs=[("v40", None, I64)]))
    assert report.highest_rank == 4
    assert not {f.code for f in report.findings} - {"E4D002"}


@pytest.mark.newest  # older ones end
def test_what_onnx_does_not_end_is_ended(monkeypatch):
    monkeypatch.setattr("edge4d.validators.contained.TIME_LIMIT_S", 1.0)
    report = check_rank(model(node("Einsum", "x", "y", equation="..." * 2000)))
    assert {f.code for f in report.findings} == {"E4D002"}
    assert "it takes more than 1 s" in report.findings[0].message
    assert check_rank(zoo.plain()).ok  # the next file gets a process of its own


def test_a_process_that_dies_is_an_answer(monkeypatch):
    from edge4d.validators import contained

    check_rank(zoo.plain())
    monkeypatch.setattr(contained, "_START", "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    contained._stop()
    report = check_rank(zoo.conv2d())
    assert report.verdict in ("pass", "unknown")  # the rules of rank may suffice
    with pytest.raises(contained.CouldNotInfer, match="died of SIGSEGV") as caught:
        contained.infer_shapes(zoo.plain())
    assert caught.value.fatal
    monkeypatch.undo()
    assert contained.infer_shapes(zoo.plain()).graph.node[0].op_type == "Relu"


def test_a_cycle_ends():
    proto = model(node("Add", "x b", "a"), node("Relu", "a", "b"), node("Relu", "b", "y"))
    assert "E4D006" in {f.code for f in check_rank(proto).findings}


def test_a_branch_that_needs_its_own_result():
    then, other = branch("t", "t", node("Relu", "y", "t")), branch("e", "e", node("Neg", "x", "e"))
    proto = model(node("If", "c", "y", then_branch=then, else_branch=other), inputs=[X, C])
    assert "E4D006" in {f.code for f in check_rank(proto).findings}


def test_a_weight_of_very_many_axes_is_one_line():
    report = check_rank(model(node("Relu", "x", "y"), weights=[TensorProto(name="w", dims=[1] * 10**5, data_type=1)]))
    assert "initializer 'w' has 100000 axes" in report.to_text(limit=None)
    assert len(report.to_text(limit=None)) < 1000


def test_an_attribute_that_is_there_twice():
    """One of the two would go unchecked, and it may be the one that a runtime takes."""
    proto = zoo.rank_5_in_if()
    gate = proto.graph.node[0]
    harmless = branch("t", "t", node("Relu", "x", "t"))
    gate.attribute.append(helper.make_attribute("then_branch", harmless))
    with pytest.raises(ValidationError, match="two attributes of 'gate' have the same name"):
        check_rank(proto)
    del gate.attribute[-1]
    gate.attribute[0].graphs.append(harmless)
    with pytest.raises(ValidationError, match="an attribute of 'gate' has two values"):
        check_rank(proto)


def test_names_do_not_break_the_line_or_the_terminal():
    evil = "a\n::error::\x1b[31m\u202e"
    proto = model(node("Foo", "x", evil, domain=evil, name=evil), node(evil, evil, "y"))
    text = check_rank(proto).to_text(limit=None)
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert not any(line.startswith("::error") for line in text.splitlines())


def test_sequences_of_sequences_a_thousand_deep():
    kind = onnx.TypeProto()
    inner = kind
    for _ in range(1000):
        inner = inner.sequence_type.elem_type
    inner.tensor_type.elem_type = 1
    proto = zoo.plain()
    proto.graph.input.add(name="q").type.sequence_type.elem_type.CopyFrom(kind)
    assert check_rank(proto).verdict == "unknown"


def test_many_branches_see_many_names():
    """The names around a branch are looked up, not copied for each of them."""
    nodes = []
    for i in range(1500):
        then, other = branch("t", f"t{i}", node("Relu", f"v{i}", f"t{i}")), branch("e", f"e{i}")
        other.node.append(node("Neg", f"v{i}", f"e{i}"))
        nodes.append(node("If", "c", f"v{i + 1}", then_branch=then, else_branch=other))
    assert check_rank(model(*nodes, inputs=[("v0", [1, 4]), C], outputs=[("v1500", None)])).ok


def test_many_values_that_nothing_tells():
    nodes = [node("Foo", "x", f"v{i}", domain="vendor") for i in range(3000)]
    info = [value(f"v{i}", [1, 4, 8, 8]) for i in range(3000)]
    assert len(check_rank(model(*nodes, outputs=[("v0", None)], info=info)).findings) == 3000


# ---- memory -------------------------------------------------------------------------------------------------------

_MEASURED = """
import json, sys
from pathlib import Path
from edge4d.errors import ValidationError
from edge4d.validators import check_rank
try:
    said = check_rank(sys.argv[1]).verdict
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
def test_a_small_file_takes_little_memory(tmp_path, floor, name):
    path = tmp_path / "m.onnx"
    path.write_bytes(UNPROVEN[name]().SerializeToString())
    verdict, peak = _measured(path)
    assert verdict in ("fail", "unknown")
    assert peak < floor + 200
