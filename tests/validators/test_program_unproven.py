"""Values within subgraphs of a torch.export program, and what proves nothing about a rank."""

from __future__ import annotations

import operator

import pytest
import torch
from torch import nn
from torch._higher_order_ops import scan, while_loop
from torch._higher_order_ops.map import map as map_over

from edge4d.validators import check_exported
from tests.validators.programs import CLIP, IMAGE, Net, codes, decomposed, exported, messages

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
