"""The gate on torch.export programs: every rank proven or reported, and nothing in a file believed or run."""

from __future__ import annotations

import json
import operator

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch._higher_order_ops import scan, while_loop
from torch._higher_order_ops.map import map as map_over

import edge4d
from edge4d.cli import main
from edge4d.errors import UsageError
from edge4d.quiet import quiet
from edge4d.validators import CODES, check_exported, check_rank
from edge4d.validators.profile import load_profile, shipped_profiles
from tests.loading.nets import Evil, edit_archive
from tests.lowering.harness import Fn

CLIP, IMAGE = (1, 2, 6, 6, 6), (1, 2, 6, 6)


def exported(function, *shapes, dynamic=None):
    module = function if isinstance(function, nn.Module) else Fn(function)
    args = tuple(torch.zeros(shape) for shape in shapes)
    return torch.export.export(module.eval(), args, dynamic_shapes=dynamic, strict=False)


def decomposed(program):
    with quiet():
        return program.run_decompositions()


def codes(report):
    return {item.code for item in report.findings}


def messages(report, code):
    return [f"{item.where.to_text()}: {item.message}" for item in report.findings if item.code == code]


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv3d(2, 4, 3)
        self.unused = nn.Parameter(torch.zeros(1, 1, 1, 1, 1))

    def forward(self, x):
        return self.stem(x).relu().mean((2, 3, 4))


# ---- values -------------------------------------------------------------------------------------------------------


def test_a_program_of_rank_4_passes_and_its_counts_are_right():
    report = check_exported(exported(nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3)), IMAGE))
    assert report.ok
    assert report.verdict == "pass"
    assert report.highest_rank == 4
    # Input, convolution, normalisation; two weights and the five of the normalisation.
    assert report.checked == {
        "graphs": 1, "functions": 0, "nodes": 2, "values": 3, "initializers": 7, "attributes": 0,
    }  # fmt: skip
    assert set(report.versions) == {"edge4d", "torch"}


def test_inputs_results_and_weights_used_or_not_are_reported_with_layer_line_and_chain():
    report = check_exported(exported(Net(), CLIP))
    found = {item.where.value: item for item in report.findings if item.code == "E4D001"}
    assert set(found) == {"x", "conv3d", "relu", "unused", "stem.weight"}
    assert "graph input 'x' has 5 axes, [1, 2, 6, 6, 6], expected at most 4" in found["x"].message
    assert "parameter 'unused'" in found["unused"].message
    assert found["stem.weight"].where.layer == "stem"
    place = found["relu"].where
    assert (place.node, place.op, place.shape) == ("relu", "aten.relu.default", (1, 4, 4, 4, 4))
    assert place.line is not None
    assert place.line.startswith("tests/validators/test_program.py:")
    assert found["conv3d"].where.layer == "stem"
    assert [step.value for step in found["relu"].chain] == ["x", "relu"]
    assert [item.where.layer for item in report.findings if item.code == "E4D003"] == ["stem"]


def test_parts_of_results_are_named_as_the_graph_names_them():
    def function(x):
        first, _ = x.split(1, 1)
        return first, x.max(2)

    report = check_exported(exported(function, CLIP), max_rank=4)
    names = {item.where.value for item in report.findings}
    assert names == {"args_0", "getitem", "getitem_1"}
    assert check_exported(exported(function, IMAGE)).ok


@pytest.mark.parametrize("max_rank", [5, 6, None])
def test_other_limits(max_rank):
    assert check_exported(exported(Net(), CLIP), max_rank).ok
    report = check_exported(exported(nn.ReLU(), IMAGE), 3)
    assert codes(report) == {"E4D001"}
    assert "not within 3" in report.findings[0].hint
    with pytest.raises(UsageError):
        check_exported(exported(nn.ReLU(), IMAGE), 0)


def test_dynamic_sizes_and_sizes_that_depend_on_data_have_a_known_rank(tmp_path):
    batch = torch.export.Dim("batch", min=2, max=32)
    report = check_exported(exported(lambda x: x.view(x.shape[0], -1, 1, 2), (4, 6), dynamic=(({0: batch},),)))
    assert report.ok
    assert report.checked["values"] == 2
    half = torch.export.Dim("half", max=16)
    program = exported(
        lambda x: x.view(2, x.shape[1] // 2, 2, 1, 1).permute(0, 2, 1, 3, 4).reshape(2, -1, 2)[:, 1:],
        (2, 8),
        dynamic=(({1: 2 * half},),),
    )
    torch.export.save(program, tmp_path / "derived.pt2")
    found = check_exported(tmp_path / "derived.pt2").findings
    assert [(item.code, len(item.where.shape)) for item in found] == [("E4D001", 5)] * 2
    report = check_exported(exported(lambda x: x.nonzero().view(-1, 1, 2, 1).relu(), (4, 6)))
    assert report.ok, report.to_text()
    program = exported(lambda x: x.nonzero().view(-1, 1, 1, 2, 1), (4, 6))
    torch.export.save(program, tmp_path / "depends.pt2")
    for subject in (program, tmp_path / "depends.pt2"):
        assert codes(check_exported(subject)) == {"E4D001"}


def test_a_chain_begins_at_an_input_where_one_has_the_same_rank_as_the_weight():
    table = torch.zeros(10, 8)
    program = torch.export.export(
        Fn(lambda i: F.embedding(i, table)[None, None]), (torch.zeros(2, 3, dtype=torch.int64),)
    )
    (found,) = [f for f in check_exported(program).findings if f.where.value == "unsqueeze_1"]
    assert [step.value for step in found.chain] == ["args_0", "embedding", "unsqueeze", "unsqueeze_1"]


def test_what_edge4d_makes_of_a_model_passes():
    lowered = edge4d.lower(Net().eval(), (torch.zeros(CLIP),))
    packed = lowered.pack(torch.zeros(CLIP))
    report = check_exported(torch.export.export(lowered.module, tuple(packed), strict=False))
    assert report.ok, report.to_text()


# ---- operators on three spatial axes --------------------------------------------------------------------------------

WEIGHT = torch.zeros(2, 2, 3, 3, 3)
THREE_AXES = {
    "conv3d": (lambda x: F.conv3d(x, WEIGHT), CLIP),
    "conv3d of one clip, all of rank 4": (lambda x: F.conv3d(x, WEIGHT), CLIP[1:]),
    "conv3d same": (lambda x: F.conv3d(x, WEIGHT, padding="same"), CLIP),
    "conv_transpose3d": (lambda x: F.conv_transpose3d(x, WEIGHT), CLIP),
    "convolution": (
        lambda x: torch.convolution(x, WEIGHT, None, [1] * 3, [0] * 3, [1] * 3, False, [0] * 3, 1), CLIP,
    ),
    "max_pool3d": (lambda x: F.max_pool3d(x, 2), CLIP),
    "max_pool3d of one clip": (lambda x: F.max_pool3d(x, 2), CLIP[1:]),
    "max_pool3d with indices": (lambda x: F.max_pool3d(x, 2, return_indices=True), CLIP),
    "max_unpool3d": (lambda x: F.max_unpool3d(x, torch.zeros(CLIP, dtype=torch.int64), 2), CLIP),
    "avg_pool3d": (lambda x: F.avg_pool3d(x, 2), CLIP),
    "adaptive_avg_pool3d": (lambda x: F.adaptive_avg_pool3d(x, 2), CLIP),
    "adaptive_max_pool3d": (lambda x: F.adaptive_max_pool3d(x, 2), CLIP),
    "upsample_trilinear3d": (lambda x: F.interpolate(x, scale_factor=2, mode="trilinear"), CLIP),
    "upsample_nearest3d": (lambda x: F.interpolate(x, scale_factor=2), CLIP),
    "upsample_nearest_exact3d": (lambda x: F.interpolate(x, size=(3, 3, 3), mode="nearest-exact"), CLIP),
    "grid_sampler": (lambda x: F.grid_sample(x, torch.zeros(1, 2, 2, 2, 3), align_corners=False), CLIP),
    "affine_grid_generator": (lambda x: F.affine_grid(x, [1, 1, 2, 2, 2], align_corners=False), (1, 3, 4)),
    "instance_norm": (F.instance_norm, CLIP),
    "group_norm": (lambda x: F.group_norm(x, 2), CLIP),
}  # fmt: skip
FINE = {
    "conv1d": (lambda x: F.conv1d(x, WEIGHT[:, :, 0, 0]), (1, 2, 6)),
    "conv2d": (lambda x: F.conv2d(x, WEIGHT[:, :, 0].clone()), IMAGE),
    "max_pool2d": (lambda x: F.max_pool2d(x, 2), IMAGE),
    "upsample_bilinear2d": (lambda x: F.interpolate(x, scale_factor=2, mode="bilinear"), IMAGE),
    "grid_sampler": (lambda x: F.grid_sample(x, torch.zeros(1, 2, 2, 2), align_corners=False), IMAGE),
    "instance_norm": (F.instance_norm, IMAGE),
    "conversion": (lambda x: x.double().float(), IMAGE),
    "pixel_shuffle": (lambda x: F.pixel_shuffle(x, 2), (1, 4, 6, 6)),
}


@pytest.mark.parametrize("name", THREE_AXES)
def test_operators_on_three_spatial_axes(name):
    function, shape = THREE_AXES[name]
    program = exported(function, shape)
    report = check_exported(program)
    assert len(messages(report, "E4D003")) == 1
    assert "E4D002" not in codes(report)
    assert check_exported(program, 5).ok


@pytest.mark.parametrize(
    "name", ["conv3d same", "conv_transpose3d", "max_pool3d", "adaptive_avg_pool3d", "grid_sampler"]
)
def test_operators_on_three_spatial_axes_after_decomposition(name):
    function, shape = THREE_AXES[name]
    assert len(messages(check_exported(decomposed(exported(function, shape))), "E4D003")) == 1


@pytest.mark.parametrize("name", FINE)
def test_operators_on_two_axes_pass(name):
    function, shape = FINE[name]
    program = exported(function, shape)
    # The weight of rank 5 that a constant was cut from is no part of the program.
    report = check_exported(program)
    assert "E4D003" not in codes(report)
    assert "E4D002" not in codes(report)


def test_batch_norm_works_on_no_axes_though_its_values_have_five():
    report = check_exported(exported(nn.BatchNorm3d(2), CLIP))
    assert codes(report) == {"E4D001"}


# ---- subgraphs ------------------------------------------------------------------------------------------------------


def up(x):
    return x.unsqueeze(0).relu().squeeze(0)


class NoGrad(nn.Module):
    def forward(self, x):
        y = x + 1
        with torch.no_grad():
            y = up(y)
        return y * 2


class Autocast(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 2, 3)

    def forward(self, x):
        with torch.autocast("cpu", torch.bfloat16):
            y = up(self.conv(x))
        return y.float()


def loop(x):
    return while_loop(lambda i, y: i < 3, lambda i, y: (i + 1, up(y)), (torch.zeros((), dtype=torch.int64), x))


SUBGRAPHS = {
    "cond": lambda x: torch.cond(x.sum() > 0, up, lambda y: y.sin(), (x,)),
    "while_loop": loop,
    "scan": lambda x: scan(lambda c, y: (up(c + y), up(c * y)), torch.zeros(2, 6, 6), x),
    "map_impl": lambda x: map_over(lambda y: up(y), x),
    "wrap_with_set_grad_enabled": NoGrad(),
    "wrap_with_autocast": Autocast(),
}


@pytest.mark.parametrize("name", SUBGRAPHS)
def test_values_within_subgraphs_are_seen(name):
    inner = 4 if name in ("scan", "map_impl") else 5  # whose body sees slices
    program = exported(SUBGRAPHS[name], IMAGE)
    report = check_exported(program, inner - 1)
    found = {(item.where.graph, item.where.op) for item in report.findings if item.code == "E4D001"}
    hidden = [graph for graph, op in found if op == "aten.unsqueeze.default"]
    assert hidden
    assert all(f"graph / {name} " in graph for graph in hidden)
    assert codes(report) == {"E4D001"}, report.to_text()
    assert check_exported(program, inner).ok
    chains = [item.chain for item in report.findings if item.where.op == "aten.relu.default"]
    assert chains[0][-1].value == "relu"
    if name not in ("scan", "map_impl"):
        assert chains[0][0].value in ("x", "args_0")


def test_a_higher_order_operator_without_a_rule_is_unknown_and_its_subgraph_is_still_looked_at(monkeypatch):
    from edge4d.validators import program_calls

    program = exported(SUBGRAPHS["cond"], IMAGE)
    monkeypatch.setattr(program_calls, "_RULES", {})
    report = check_exported(program)
    assert "E4D002" in codes(report)
    assert any("cond is a higher-order operator that edge4d has no rule for" in m for m in messages(report, "E4D002"))
    assert any("true_graph_0" in m for m in messages(report, "E4D001"))


def test_branches_that_disagree_are_unknown():
    program = exported(SUBGRAPHS["cond"], IMAGE)
    branch = program.graph_module.false_graph_0
    for node in list(branch.graph.nodes):
        if node.op == "output":
            with branch.graph.inserting_before(node):
                made = branch.graph.call_function(torch.ops.aten.unsqueeze.default, (node.args[0][0], 0))
            node.args = ((made,),)
    report = check_exported(program)
    assert any("its subgraphs do not agree on one rank" in m for m in messages(report, "E4D002"))
    assert any("'unsqueeze' has 5 axes" in m for m in messages(report, "E4D001"))


# ---- what proves nothing --------------------------------------------------------------------------------------------


def lie(program, name, shape):
    for node in program.graph.nodes:
        if node.name == name:
            node.meta["val"] = node.meta["val"].new_empty(shape)
    return program


def test_a_recorded_rank_that_the_operators_contradict_is_told_and_not_believed(tmp_path):
    program = lie(exported(lambda x: x.unsqueeze(0).relu().squeeze(0), IMAGE), "unsqueeze", IMAGE)
    program = lie(program, "relu", IMAGE)
    torch.export.save(program, tmp_path / "lie.pt2")
    for subject in (program, tmp_path / "lie.pt2"):
        report = check_exported(subject)
        assert "records 'unsqueeze' with 4 axes, its operators give 5" in messages(report, "E4D005")[0]
        assert {item.where.value for item in report.findings if item.code == "E4D001"} == {"unsqueeze", "relu"}
        assert not report.ok


def test_a_weight_that_is_recorded_with_another_rank():
    program = lie(exported(Net(), CLIP), "p_stem_weight", (4, 2, 3, 3))
    report = check_exported(program)
    assert "the program records 'p_stem_weight' with 4 axes" in messages(report, "E4D005")[0]
    assert any("'stem.weight' has 5 axes" in m for m in messages(report, "E4D001"))


def test_an_operator_that_cannot_be_run_on_shapes_is_unknown_with_what_the_file_claims():
    program = exported(lambda x: (x.sin() * 2).relu(), IMAGE)
    for node in program.graph.nodes:
        if node.name == "sin":
            node.target = broken_operator
    report = check_exported(program)
    (message,) = messages(report, "E4D002")
    assert "running broken_operator on shapes alone fails (RuntimeError: no shapes here)" in message
    assert "the program records 4 axes, which nothing confirms" in message
    assert report.verdict == "unknown"
    for node in program.graph.nodes:
        if node.name == "sin":
            del node.meta["val"]
    found = messages(check_exported(program), "E4D002")
    assert len(found) == 2
    assert "the rank of 'mul' is unknown, since that of 'sin' is" in found[1]


def test_what_follows_from_an_unknown_value_comes_after_it():
    program = exported(lambda x: (x.sin() * 2).relu(), IMAGE)
    for node in program.graph.nodes:
        if node.op != "output":
            node.meta.pop("val", None)
    found = messages(check_exported(program), "E4D002")
    assert "the rank of graph input 'args_0' is unknown: it has no shape" in found[0]
    assert "since that of 'args_0' is" in found[1]
    assert len(found) == 4


def broken_operator(x):
    raise RuntimeError("no shapes here")


def test_the_axis_that_vmap_hides_is_unknown_until_it_is_shown():
    program = exported(lambda x: torch.vmap(lambda y: y.sin() * 2)(x), (2, *CLIP[1:]))
    report = check_exported(program)
    assert any("torch.vmap hides an axis" in m for m in messages(report, "E4D002"))
    assert check_exported(decomposed(program), 5).ok


def getitem(x, index):
    """Not Python's, though it is called so."""
    return x[None][None]


@pytest.mark.parametrize("target", [operator.getitem, getitem])
def test_what_only_looks_like_a_part_of_a_result_is_a_value_of_its_own(target):
    program = exported(lambda x: x.sin().cos(), IMAGE)
    node = next(node for node in program.graph.nodes if node.name == "cos")
    node.target, node.args = target, (node.args[0], (None, None))
    node.meta["val"] = node.args[0].meta["val"]
    report = check_exported(program)
    assert codes(report) == {"E4D001", "E4D005"}
    assert [item.where.shape for item in report.findings] == [(1, 1, *IMAGE)] * 2


def test_an_input_that_is_an_object_is_unknown():
    program = exported(lambda x: x.sin(), IMAGE)
    next(iter(program.graph.nodes)).meta["val"] = object()
    assert any("it is an object" in message for message in messages(check_exported(program), "E4D002"))


def test_a_broken_graph_and_an_empty_one():
    program = exported(lambda x: x.sin().cos(), IMAGE)
    first, second = [node for node in program.graph.nodes if node.op == "call_function"]
    first.append(second)
    second.append(first)
    report = check_exported(program)
    assert codes(report) == {"E4D006", "E4D004"}
    assert not report.ok
    assert codes(check_exported(exported(lambda: 1))) == {"E4D004"}


# ---- files ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def archive(tmp_path):
    path = tmp_path / "net.pt2"
    torch.export.save(exported(Net(), CLIP), path)
    return path


def test_a_file_gives_the_same_report_as_the_program(archive):
    report, direct = check_exported(archive), check_exported(exported(Net(), CLIP))
    assert report.path == str(archive)
    assert [item.to_dict() for item in report.findings] == [item.to_dict() for item in direct.findings]
    assert report.checked == direct.checked


def test_the_command_on_files_and_folders(tmp_path, archive, capsys):
    torch.export.save(exported(nn.ReLU(), IMAGE), tmp_path / "flat.pt2")
    assert main(["verify", str(tmp_path / "flat.pt2")]) == 0
    assert main(["verify", str(archive)]) == 1
    out = capsys.readouterr().out
    assert "aten.conv3d.default 'conv3d' (stem, " in out
    assert main(["verify", str(tmp_path), "--json"]) == 1
    reports = json.loads(capsys.readouterr().out)["reports"]
    assert [(report["verdict"], bool(report["versions"]["torch"])) for report in reports] == [
        ("pass", True),
        ("fail", True),
    ]
    assert main(["verify", str(archive), "--max-rank", "5"]) == 0
    for form in ("sarif", "junit", "github", "markdown"):
        assert main(["verify", str(archive), "--format", form]) == 1
        assert "E4D003" in capsys.readouterr().out


def test_the_content_tells_what_a_file_is_not_its_name(tmp_path, archive, capsys):
    from tests.validators import onnx_models as zoo

    (tmp_path / "a.onnx").write_bytes(archive.read_bytes())
    (tmp_path / "b.pt2").write_bytes(zoo.plain().SerializeToString())
    assert main(["verify", str(tmp_path / "a.onnx")]) == 1
    assert "aten.conv3d.default" in capsys.readouterr().out
    assert main(["verify", str(tmp_path / "b.pt2")]) == 0


def test_an_operator_that_is_not_registered_is_said_to_be_missing(tmp_path, archive, capsys):
    calls = {"models/model.json": lambda data: json.loads(json.dumps(data).replace("ops.aten.relu.", "ops.mine.relu."))}
    path = edit_archive(archive, tmp_path / "custom.pt2", calls)
    assert main(["verify", str(path)]) == 2
    err = capsys.readouterr().err
    assert "mine.relu" in err
    assert "import of the module that registers" in err


@pytest.mark.parametrize("kind", ["module", "state_dict", "script", "text", "empty", "cut", "folder"])
def test_other_files_are_told_what_they_are_in_one_line(tmp_path, archive, capsys, kind):
    path = tmp_path / f"{kind}.pt2"
    if kind == "module":
        torch.save(nn.ReLU(), path)
    elif kind == "state_dict":
        torch.save(Net().state_dict(), path)
    elif kind == "script":
        with pytest.warns(DeprecationWarning, match="torch.jit.script"):
            torch.jit.script(nn.ReLU()).save(path)
    elif kind == "cut":
        path.write_bytes(archive.read_bytes()[:-100])
    elif kind != "folder":
        path.write_text("" if kind == "empty" else "hello")
    else:
        path.mkdir()
    assert main(["verify", str(path)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert str(path) in err
    assert "Traceback" not in err
    if kind in ("module", "state_dict", "script"):
        assert f"edge4d export {path}" in err


def test_nothing_in_a_file_runs(tmp_path, archive, capsys):
    marker = tmp_path / "marker"
    evil = tmp_path / "evil.pt2"
    torch.save(Evil(marker), evil)
    assert main(["verify", str(evil)]) == 2
    calls = {
        "models/model.json": lambda data: json.loads(json.dumps(data).replace("ops.aten.relu.default", "os.mkdir"))
    }
    edit_archive(archive, evil, calls)
    assert main(["verify", str(evil)]) == 2
    assert not marker.exists()
    err = capsys.readouterr().err
    assert "could run code from the file" in err
    assert f"edge4d export {evil} --trust-pickle" in err


# ---- profiles -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [profile.name for profile in shipped_profiles()])
def test_no_limit_of_a_device_passes_in_silence(name):
    profile = load_profile(name)
    report = check_exported(exported(nn.Conv2d(2, 2, 3), IMAGE), None, profile=profile)
    told = [item for item in report.findings if item.code == "E4D102"]
    onnx_only = [
        bound
        for bound in profile.bounds
        if bound.kind in ("forbidden", "kernel", "dilated-kernel", "stride", "opset") or bound.operators
    ]
    assert len(told) == len({bound.states for bound in onnx_only})
    assert all(item.source and "edge4d export" in item.hint for item in told)
    assert report.verdict == ("unknown" if onnx_only else "pass")
    bad = check_exported(exported(Net(), CLIP), None, profile=profile)
    if profile.max_rank == 4:
        assert any(item.code == "E4D001" and item.source for item in bad.findings)


def test_limits_that_concern_any_graph_are_held_against_it(tmp_path):
    path = tmp_path / "mine.toml"
    limit = 'states = "so it is"\nsource = "own"\nversions = "1"\nread = 2026-01-02\nconfidence = "own"\n'
    path.write_text(
        'format = 1\nname = "mine"\ntitle = "My NPU"\ntoolchain = "1.0"\n'
        f'[[bound]]\nkind = "static"\n{limit}[[bound]]\nkind = "size"\nmax = 8\n{limit}'
        f'[[bound]]\nkind = "batch"\nmax = 1\n{limit}'
    )
    profile = load_profile(str(path))
    assert check_exported(exported(nn.ReLU(), IMAGE), profile=profile).verdict == "pass"
    assert codes(check_exported(exported(nn.ReLU(), (1, 2, 9, 6)), profile=profile)) == {"E4D101"}
    batch = torch.export.Dim("batch", min=2, max=32)
    report = check_exported(exported(nn.ReLU(), (2, 2, 6, 6), dynamic=({0: batch},)), profile=profile)
    assert {"E4D101", "E4D102"} == codes(report)
    assert any("has dynamic sizes" in m for m in messages(report, "E4D101"))


# ---- agreement ------------------------------------------------------------------------------------------------------


def test_every_code_that_is_used_is_known():
    assert {"E4D001", "E4D002", "E4D003", "E4D004", "E4D005", "E4D006", "E4D101", "E4D102"} <= set(CODES)


@pytest.mark.parametrize("module", [Net(), nn.Sequential(nn.Conv3d(2, 2, 3), nn.BatchNorm3d(2), nn.MaxPool3d(2))])
def test_the_verdict_is_that_of_the_onnx_which_torch_makes(module, tmp_path):
    pytest.importorskip("onnxscript")
    program = exported(module, CLIP)
    with quiet():
        torch.onnx.export(program, f=tmp_path / "m.onnx", verbose=False)
    of_onnx, of_program = check_rank(tmp_path / "m.onnx"), check_exported(program)
    assert (of_onnx.verdict, of_onnx.highest_rank) == (of_program.verdict, of_program.highest_rank) == ("fail", 5)
    assert {"E4D001", "E4D003"} <= codes(of_onnx) & codes(of_program)
