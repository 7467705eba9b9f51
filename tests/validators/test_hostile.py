"""Files made to mislead, to crash or to exhaust: one clear line, or the right verdict, and nothing else."""

from __future__ import annotations

import builtins
import io
import os
import sys

import numpy as np
import onnx
import pytest
from onnx import AttributeProto, ModelProto, TensorProto, helper

from edge4d.cli import main
from edge4d.errors import ValidationError
from edge4d.validators import check_rank
from tests.validators import onnx_models as zoo
from tests.validators.onnx_models import C, X, branch, function, ints, model, node, value

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
