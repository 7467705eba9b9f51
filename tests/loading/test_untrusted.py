"""Nothing in a file runs without the user's word; each hostile file is first proved hostile by trusting it."""

import contextlib
import io
import json
import os
import pickle
import zipfile

import pytest
import torch
from torch import nn

from edge4d.errors import LoadError
from edge4d.loading import load_model
from edge4d.loading.program_scan import Suspicion, scan_program
from tests.loading.nets import Evil, clip, edit_archive, evil_pickle, make_net, save_program


@pytest.fixture
def marker(tmp_path):
    return tmp_path / "marker"


def evil_file(marker, **options):
    buffer = io.BytesIO()
    torch.save(Evil(marker), buffer, **options)
    return buffer.getvalue()


def refused(path, marker, says=""):
    """Load without trust: a LoadError that explains, and no marker."""
    with pytest.raises(LoadError) as caught:
        load_model(path)
    assert not marker.exists(), "code of the file ran"
    assert "--trust-pickle" in caught.value.hint
    assert "whose author you trust" in caught.value.hint
    assert says in caught.value.message
    return caught.value


def hostile(path, marker):
    """Prove that the file does run code when trusted (what it leads to afterwards does not matter)."""
    with contextlib.suppress(Exception):
        loaded = load_model(path, trust_pickle=True)
        loaded.program.module()(clip())
    assert marker.exists(), "this archive is harmless, so refusing it proves nothing"


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("checkpoint", [True, False])
def test_pickles(tmp_path, marker, zipped, checkpoint):
    path = tmp_path / "model.pt"
    content = {"epoch": 1, "state_dict": make_net().state_dict(), "note": Evil(marker)} if checkpoint else Evil(marker)
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    error = refused(path, marker, "unpickling that runs code from the file, so it was not done")
    assert f"{os.mkdir.__module__}.mkdir" in error.message
    hostile(path, marker)


def test_pickled_module_names_its_class(tmp_path, marker):
    torch.save(make_net(), tmp_path / "model.pt")
    error = refused(tmp_path / "model.pt", marker, "it names tests.loading.nets.Net")
    assert "model.state_dict()" in error.hint


def test_plain_pickle(tmp_path, marker):
    path = tmp_path / "model.pkl"
    path.write_bytes(evil_pickle(marker))
    with pytest.raises(LoadError):
        load_model(path)
    assert not marker.exists()


def pickled_weight(entry):
    def change(table):
        first = next(iter(table["config"].values()))
        first.update(entry)

    return change


def pt2_places(marker):
    evil, bare = evil_file(marker), evil_pickle(marker)
    opaque = {
        "config": {"thing": {"path_name": "opaque_obj_0", "is_param": False, "use_pickle": True, "tensor_meta": None}}
    }
    weights, constants = "data/weights/model_weights_config.json", "data/constants/model_constants_config.json"
    return {
        "a weight": {weights: pickled_weight({"use_pickle": True}), "data/weights/weight_0": evil},
        "a weight, truthy": {weights: pickled_weight({"use_pickle": 1}), "data/weights/weight_0": evil},
        "all weights": {"data/weights/model.pt": evil},
        "a constant": {constants: pickled_weight({"use_pickle": True}), "data/constants/tensor_0": evil},
        "all constants": {"data/constants/model.pt": evil},
        "an opaque object": {constants: lambda _: opaque, "data/constants/opaque_obj_0": bare},
        "example inputs": {"data/sample_inputs/model.pt": evil},
        "example inputs, old layout": {
            "data/sample_inputs/model.pt": evil_file(marker, _use_new_zipfile_serialization=False)
        },
    }


class Constant(nn.Module):
    """With a tensor constant, so that the archive has a member for one."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv3d(3, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x) * torch.tensor([2.0, 3.0]).view(1, 2, 1, 1, 1)


@pytest.mark.parametrize("place", pt2_places(None))
def test_pickles_in_an_export_archive(tmp_path, marker, place):
    good = save_program(tmp_path / "good.pt2", make_net(Constant))
    assert load_model(good).kind == "exported-program"
    bad = edit_archive(good, tmp_path / "bad.pt2", pt2_places(marker)[place])
    error = refused(bad, marker)
    assert "data/" in error.message
    hostile(bad, marker)


def code_places(marker):
    call = f"__import__('os').mkdir({str(marker)!r})"

    def operator(program):
        node = program["graph_module"]["graph"]["nodes"][0]
        node["target"] = "torch.os.mkdir"
        node["inputs"] = [{"name": "", "arg": {"as_string": str(marker)}, "kind": 1}]

    def expression(program):
        sizes = program["graph_module"]["graph"]["tensor_values"]["x"]["sizes"]
        sizes[0] = {"as_expr": {"expr_str": call, "hint": {"as_int": 2}}}

    def hidden_expression(program):
        # Under the one key whose content is otherwise free text: an input of that name.
        expression(program)
        return json.loads(json.dumps(program).replace('"x"', '"metadata"'))

    def guard(program):
        program["guards_code"] = [f"{call} is None"]

    def tree(program):
        signature = program["graph_module"]["module_call_graph"][0]["signature"]
        signature["out_spec"] = (
            '[1, {"type": "builtins.dict", "context": "{\\"__enum__\\": true, \\"fqn\\": \\"evil_e4d:E\\", '
            '\\"name\\": \\"A\\"}", "children_spec": [{"type": null, "context": null, "children_spec": []}]}]'
        )

    def argument(program):
        signature = program["graph_module"]["module_call_graph"][0]["signature"]
        signature["forward_arg_names"] = [f"x={call}"]

    def node_name(program):
        graph = program["graph_module"]["graph"]
        graph["inputs"][-1]["as_tensor"]["name"] = f"x={call}"

    def constant(program):
        program["graph_module"]["signature"]["input_specs"][0] = {
            "constant_input": {"name": "x", "value": {"as_string": f"' == {call} == '"}}
        }

    def tool(program):
        program["graph_module"]["graph"]["nodes"][0]["target"] = "torch.ops.higher_order.call_torchbind"

    return {
        "an operator": (operator, "calls 'torch.os.mkdir', which is no operator"),
        "a size expression": (expression, "an unusual size expression"),
        "a hidden size expression": (hidden_expression, "an unusual size expression"),
        "a guard": (guard, "an unusual guard"),
        "a tree spec": (tree, "a tree spec that names code"),
        "an argument name": (argument, "an unusual name"),
        "a node name": (node_name, "an unusual name"),
        "a constant": (constant, "an unusual text argument"),
        "a higher-order operator": (tool, "calls 'torch.ops.higher_order.call_torchbind'"),
    }


@pytest.mark.parametrize("place", code_places(None))
def test_code_in_the_json_of_an_export_archive(tmp_path, marker, place):
    change, says = code_places(marker)[place]
    bad = edit_archive(save_program(tmp_path / "good.pt2"), tmp_path / "bad.pt2", {"models/model.json": change})
    refused(bad, marker, says)


# The others stop at a later check of today's torch; they are refused all the same.
@pytest.mark.parametrize("place", ["a size expression", "a hidden size expression", "a guard", "a tree spec"])
def test_the_json_is_hostile_indeed(tmp_path, marker, place, monkeypatch):
    (tmp_path / "evil_e4d.py").write_text(f"import os\nos.mkdir({str(marker)!r})\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    change, _ = code_places(marker)[place]
    bad = edit_archive(save_program(tmp_path / "good.pt2"), tmp_path / "bad.pt2", {"models/model.json": change})
    hostile(bad, marker)


@pytest.mark.parametrize(
    "target",
    [
        "torch.ops.aten.from_file.default",
        "torch.ops.aten.save.default",
        "torch.ops.debugprims.load_tensor.default",
        "torch.ops.load_library.__func__.__code__",
        "torch.ops.aten.relu.default.__call__",
        "torch.load",
        "#executorch:x",
        "_operator.methodcaller",
    ],
)
def test_operators_that_reach_outside(tmp_path, marker, target):
    def change(program):
        program["graph_module"]["graph"]["nodes"][0]["target"] = target

    bad = edit_archive(save_program(tmp_path / "good.pt2"), tmp_path / "bad.pt2", {"models/model.json": change})
    refused(bad, marker, "calls ")


def test_compiled_code_in_an_export_archive(tmp_path, marker):
    good = save_program(tmp_path / "good.pt2")
    bad = edit_archive(good, tmp_path / "bad.pt2", {"data/aotinductor/model/model.so": b"\x7fELF"})
    refused(bad, marker, "holds compiled machine code")


class Writes(nn.Module):
    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        torch.save(x, self.path)
        return x


class Maps(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + torch.from_file("/nowhere", False, 4).sum()


def test_torchscript_that_uses_files(tmp_path, marker):
    path = tmp_path / "model.pt"
    torch.jit.script(Writes(str(marker))).save(path)
    refused(path, marker, "uses 'save', which can reach files")
    load_model(path, trust_pickle=True).module(torch.ones(1))
    assert marker.exists()
    torch.jit.script(Maps()).save(path)
    with pytest.raises(LoadError, match="uses 'from_file'"):
        load_model(path)


class RunsOnLoad(nn.Module):
    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path
        self.training = False

    @torch.jit.export
    def __getstate__(self) -> tuple[str, bool]:
        return self.path, self.training

    @torch.jit.export
    def __setstate__(self, state: tuple[str, bool]) -> None:
        torch.save(torch.ones(1), state[0])
        self.path = state[0]
        self.training = state[1]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


def test_torchscript_that_uses_files_while_loading(tmp_path, marker):
    path = tmp_path / "model.pt"
    torch.jit.script(RunsOnLoad(str(marker))).save(path)
    refused(path, marker, "uses 'save'")
    hostile(path, marker)


@pytest.mark.parametrize(
    "spelling", ["torch . \\\n save(x", "torch.# note\n    save  (x", "(x).save(x", "ops.aten.save(x"]
)
def test_spellings_of_a_file_operator(tmp_path, marker, spelling):
    path, other = tmp_path / "model.pt", tmp_path / "other.pt"
    torch.jit.script(Writes(str(marker))).save(path)
    with zipfile.ZipFile(path) as archive:
        (name,) = [
            n.partition("/")[2] for n in archive.namelist() if n.endswith("nets.py") or n.endswith("test_untrusted.py")
        ]
        code = archive.read(f"{archive.namelist()[0].partition('/')[0]}/{name}")
    assert b"torch.save(x" in code
    edit_archive(path, other, {name: code.replace(b"torch.save(x", spelling.encode())})
    refused(other, marker, "uses 'save'")


def test_torchscript_constants_are_not_read_by_python(tmp_path, marker):
    path, other = tmp_path / "model.pt", tmp_path / "other.pt"
    torch.jit.script(make_net()).save(path)
    for member in ("constants.pkl", "data.pkl"):
        edit_archive(path, other, {member: evil_pickle(marker)})
        with pytest.raises(LoadError, match="a TorchScript archive that cannot be read"):
            load_model(other)
        with pytest.raises(LoadError):
            load_model(other, trust_pickle=True)
        assert not marker.exists()


def test_a_pickle_dressed_as_something_else(tmp_path, marker):
    """What the zip's table says and what torch reads must not differ: the reader that scans is the one that loads."""
    path = tmp_path / "model.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("m/archive_format", "pt2")
        archive.writestr("m/archive_version", "0")
        archive.writestr("m/data.pkl", evil_pickle(marker))
        archive.writestr("m/data/weights/evil.pt", evil_pickle(marker))
    with pytest.raises(LoadError):
        load_model(path)
    assert not marker.exists()


# torch's own: decomposing copies its tree specs, whose class it deprecates.
@pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")
def test_ordinary_archives_need_no_trust(tmp_path):
    """The scan is default-deny; these are the ordinary things that it must let pass."""

    class Busy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.heads = nn.ModuleDict({"a-b": nn.Conv3d(3, 4, (1, 3, 3), padding="same", padding_mode="circular")})
            self.linear = nn.Linear(4, 5)
            self.attention = nn.MultiheadAttention(5, 1, batch_first=True)

        def forward(self, x: torch.Tensor, mode: str = "mean") -> tuple[torch.Tensor, ...]:
            y = nn.functional.interpolate(self.heads["a-b"](x), scale_factor=2.0, mode="trilinear")
            y = torch.einsum("bcthw,bcthw->btc", y, y).to(torch.float32)
            z = self.linear(y)
            w, _ = self.attention(z, z, z)
            return w.argmax(-1), w[:, : x.shape[2] - 1], torch.linspace(0, 1, 3), w * (x.shape[0] + 1.5)

    batch = torch.export.Dim("batch", min=2, max=16)
    program = torch.export.export(
        Busy().eval(), (clip(),), dynamic_shapes={"x": {0: batch, 2: torch.export.Dim("t", min=3, max=99)}}
    )
    torch.export.save(program, str(tmp_path / "m.pt2"))
    loaded = load_model(tmp_path / "m.pt2")
    torch.testing.assert_close(loaded.module(clip()), program.module()(clip()))
    torch.export.save(program.run_decompositions(), str(tmp_path / "d.pt2"))
    assert load_model(tmp_path / "d.pt2").program is not None


def test_refusal_is_the_same_for_python_pickle_protocols(tmp_path, marker):
    for protocol in (2, 3, 4, 5):
        path = tmp_path / f"p{protocol}.pt"
        torch.save(Evil(marker), path, pickle_protocol=protocol)
        refused(path, marker)
    assert pickle.HIGHEST_PROTOCOL >= 5


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("range_constraints", {"__import__('os').mkdir('gone')": {}}, "size expression"),
        ("range_constraints", {"2*s39": {"max_val": "x' or 1"}}, "an unusual"),
        ("guards_code", ["max(__import__('os').mkdir('gone'), 1)"], "guard"),
        ("as_string", "Runtime assertion failed for expression u0 >= 0 on node 'ge'; import os'", "text argument"),
        ("as_string", "Runtime assertion failed for expression ' + 1 on node 'ge'", "text argument"),
    ],
)
def test_what_looks_like_a_derived_size_or_an_assertion(key, value, says):
    with pytest.raises(Suspicion, match=says):
        scan_program({key: value}, "models/model.json")


def test_derived_sizes_and_assertions_that_torch_writes_pass():
    scan_program({"range_constraints": {"2*s39": {"min_val": 4}}}, "models/model.json")
    scan_program({"guards_code": ["2*max(1, L['x'].size()[2] // 2) == L['x'].size()[2]"]}, "models/model.json")
    text = "Runtime assertion failed for expression u0 >= 0 on node 'ge'"
    scan_program({"as_string": text}, "models/model.json")
