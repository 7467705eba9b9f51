"""The corpus: every verdict as expected, and every rank held against a run in ONNX Runtime."""

from __future__ import annotations

import onnx
import pytest

from edge4d.validators import check_rank
from edge4d.validators.facts import Facts
from edge4d.validators.inference import infer
from edge4d.validators.inventory import Site, take_inventory
from tests.validators.corpus import CASES, Case
from tests.validators.execution import observe

ALL = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())

_NEVER_RUN = {"rank_5_in_a_branch_that_is_never_taken"}  # the only ones whose rank no run shows


def test_there_are_enough_of_both_kinds():
    good = [case for case in CASES.values() if case.passes]
    assert len(good) >= 60
    assert len(CASES) - len(good) >= 60


@ALL
def test_the_verdict(case: Case):
    report = check_rank(case.make())
    assert {f.code for f in report.findings} == case.codes, report.to_text(limit=None)
    assert report.ok == case.passes


@pytest.mark.newest
@ALL
def test_the_ranks_of_a_run(case: Case):
    """What is reported is what happens, and what happens is reported."""
    proto = case.make()
    if case.refused is not None:
        with pytest.raises(Exception, match=f"(?s){case.refused}"):
            observe(proto, case.feeds)
        return
    seen = observe(proto, case.feeds)
    assert seen
    compare(proto, seen)
    highest = max(*(max(ranks) for ranks in seen.values()), *tensor_ranks(proto), 0)
    assert (highest > 4) == ("E4D001" in case.codes and case.name not in _NEVER_RUN)


def tensor_ranks(message):
    """Of every tensor that a file holds, wherever it stands."""
    if isinstance(message, (onnx.TensorProto, onnx.SparseTensorProto)):
        yield len(message.dims)
    for field, value in message.ListFields():
        if field.type == field.TYPE_MESSAGE:
            for inner in value if field.is_repeated else [value]:
                yield from tensor_ranks(inner)


def compare(proto, seen):
    """Every rank of a run against what the gate knows."""
    facts = known(proto)
    for key, ranks in seen.items():  # a loop of no rounds collects nothing, which has fewer axes
        assert key not in facts or None in facts[key] or max(ranks) in facts[key], (key, ranks, facts[key])
    report = check_rank(proto)
    found = {(f.where.graph, f.where.value) for f in report.findings if f.code in ("E4D001", "E4D002")}
    over = {key for key, ranks in seen.items() if max(ranks) > 4}
    assert {key for key in over if key in facts} <= found
    assert not over or found
    # A finding about a value that the run shows is no false alarm: some run has it at that rank.
    for finding in report.findings:
        key = (finding.where.graph, finding.where.value)
        if finding.code == "E4D001" and key in seen:
            assert len(finding.where.shape) in seen[key]


def known(proto):
    """(path of the graph, name) of every value: the ranks that the gate gives it, None for unknown."""
    inventory = take_inventory(proto, "model")
    ranks = {}
    for home, name, met, _ in Facts(inventory, infer(inventory)).values:
        scope = home.scope if isinstance(home, Site) else home
        ranks[scope.path, name] = {value.rank for value in met}
    return ranks


def test_a_wrong_rank_would_be_noticed():
    proto = CASES["rank_5_in_if_2_deep"].make()
    seen = observe(proto)
    compare(proto, seen)
    inner = next(key for key, ranks in seen.items() if ranks == {5})
    for key, rank in ((("graph", "r2"), 3), (inner, 4), (("graph", "r2"), 5)):
        with pytest.raises(AssertionError):
            compare(proto, {**seen, key: {rank}})


def test_a_hidden_rank_would_be_noticed():
    """A run that shows rank 5 in a place that the gate does not name fails when the gate says nothing at all."""
    proto = CASES["plain"].make()
    with pytest.raises(AssertionError):
        compare(proto, {("graph", "inlined"): {5}})
