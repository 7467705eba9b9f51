"""The laws of the packing algebra, with numpy and `einops.rearrange` as oracles."""

from __future__ import annotations

import itertools
import math

import einops
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from edge4d.errors import PackingError
from edge4d.packing import MAX_RANK, Packing, common_pieces, frames_order
from edge4d.patterns import frames_pattern, parse_pattern
from edge4d.repacking import plan_repack


def in_memory(array: np.ndarray, packing: Packing) -> np.ndarray:
    """The physical array that a packing says carries a logical one."""
    atoms = array.reshape(packing.sizes) if packing.sizes else array.reshape(())
    return atoms.transpose(packing.memory).reshape(packing.physical_shape)


def numbered(shape) -> np.ndarray:
    return np.arange(math.prod(shape)).reshape(shape)


def apply(array: np.ndarray, steps) -> np.ndarray:
    for step in steps:
        assert len(step.shape) <= MAX_RANK, "an intermediate above rank 4 is as illegal as a final one"
        array = array.reshape(step.shape).transpose(step.perm)
    return array


shapes = st.lists(st.sampled_from([1, 1, 2, 3, 4, 5, 6, 7, 12]), min_size=1, max_size=6).map(tuple)


@st.composite
def packings(draw):
    shape = draw(shapes)
    return Packing.of(shape, draw(st.permutations(range(len(shape))))).coalesce()


@st.composite
def factorisations(draw, number):
    result = []
    while number > 1:
        factor = draw(st.sampled_from([d for d in range(2, number + 1) if number % d == 0]))
        result.append(factor)
        number //= factor
    for _ in range(draw(st.integers(0, 2))):
        result.insert(draw(st.integers(0, len(result))), 1)
    return tuple(result) or (1,)


@given(packings())
def test_a_packing_describes_its_shapes(packing):
    array = numbered(packing.shape)
    assert in_memory(array, packing).shape == packing.physical_shape
    assert math.prod(packing.physical_shape) == math.prod(packing.shape)
    assert len(packing.physical) <= MAX_RANK


@given(packings())
def test_coalescing_is_idempotent_and_keeps_the_map(packing):
    merged = packing.coalesce()
    assert merged.coalesce() == merged
    array = numbered(packing.shape)
    assert (in_memory(array, merged) == in_memory(array, packing)).all()


@given(packings(), st.data())
def test_permute_moves_no_data(packing, data):
    dims = data.draw(st.permutations(range(len(packing.shape))))
    array = numbered(packing.shape)
    after = packing.permute(dims)
    assert after.shape == array.transpose(dims).shape
    assert (in_memory(array.transpose(dims), after).ravel() == in_memory(array, packing).ravel()).all()
    inverse = sorted(range(len(dims)), key=lambda i: dims[i])
    assert after.permute(inverse) == packing.coalesce()


@given(packings(), st.data())
def test_reshape_moves_no_data_or_says_what_must_be_adjacent(packing, data):
    shape = data.draw(factorisations(math.prod(packing.shape)))
    array = numbered(packing.shape)
    needs = packing.reshape_needs(shape)
    if needs:
        with pytest.raises(PackingError):
            packing.reshape(shape)
        order = [a for run in needs for a in run] + [a for a in packing.memory if all(a not in run for run in needs)]
        packing = packing.reorder((tuple(order),))
        assert packing.reshape_needs(shape) == ()
    after = packing.reshape(shape)
    assert after.shape == shape
    assert (in_memory(array.reshape(shape), after).ravel() == in_memory(array, packing).ravel()).all()


@given(packings(), st.data())
def test_an_isolated_axis_is_alone_and_at_most_two_repacks_away(packing, data):
    axis = data.draw(st.integers(0, len(packing.shape) - 1))
    groups, dim = packing.isolate(axis)
    isolated = packing.reorder(groups)
    assert isolated.physical[dim] == packing.logical[axis]
    assert isolated.physical_shape[dim] == packing.shape[axis]
    if packing.is_run(packing.logical[axis]):
        assert isolated.memory == packing.memory
    resized = isolated.resize(axis, dim, 9)
    assert resized.shape == tuple(9 if a == axis else s for a, s in enumerate(packing.shape))
    assert resized.physical_shape[dim] == 9


@given(packings(), st.data())
def test_dropped_axes_have_size_one_and_keep_their_place(packing, data):
    axes = data.draw(st.sets(st.integers(0, len(packing.shape) - 1)))
    dropped = packing.drop(axes)
    assert dropped.shape == tuple(1 if a in axes else s for a, s in enumerate(packing.shape))
    assert len(dropped.physical) == len(packing.physical)


@given(st.lists(st.sampled_from([1, 2, 3, 5, 7]), min_size=5, max_size=5), st.permutations(range(5)))
def test_every_order_of_five_atoms_needs_at_most_two_transposes(sizes, order):
    steps = plan_repack(sizes, range(5), order)
    assert len(steps) <= 2
    array = numbered(sizes)
    assert (apply(array, steps).ravel() == array.transpose(order).ravel()).all()


def test_of_all_orders_of_five_atoms_66_need_one_and_53_two():
    counts = [len(plan_repack((2, 3, 4, 5, 6), range(5), order)) for order in itertools.permutations(range(5))]
    assert [counts.count(n) for n in range(4)] == [1, 66, 53, 0]


@given(st.integers(6, 10), st.randoms(use_true_random=False))
def test_more_atoms_stay_within_rank_four_too(count, random):
    order = list(range(count))
    random.shuffle(order)
    array = numbered((2,) * count)
    assert (
        apply(array, plan_repack((2,) * count, range(count), order)).ravel() == array.transpose(order).ravel()
    ).all()


@given(st.permutations(range(5)), st.permutations(range(5)))
def test_a_repack_there_and_back_is_the_identity(first, second):
    sizes = (2, 3, 2, 5, 3)
    array = numbered([sizes[a] for a in first])
    there = apply(array, plan_repack(sizes, first, second))
    back = apply(there, plan_repack(sizes, second, first))
    assert (back.ravel() == array.ravel()).all()


def test_orders_of_different_atoms_are_refused():
    with pytest.raises(PackingError, match="not of the same atoms"):
        plan_repack((2, 3), (0, 1), (0, 0))


PATTERNS = [
    "n c t h w -> (n t) c h w",
    "n c t h w -> n c t (h w)",
    "n c t h w -> (w h) t (c n)",
    "n c t h w -> (n c t h w)",
    "n c t h w -> h w c (t n)",
]


@given(st.sampled_from(PATTERNS), st.lists(st.sampled_from([1, 2, 3, 5]), min_size=5, max_size=5))
def test_a_pattern_means_what_einops_means(pattern, shape):
    array = numbered(shape)
    packing = parse_pattern(pattern, shape)
    expected = einops.rearrange(array, pattern)
    assert packing.physical_shape == expected.shape
    assert (in_memory(array, packing) == expected).all()


@given(st.integers(1, 8), st.data())
def test_the_frames_pattern_is_the_frames_packing(rank, data):
    shape = data.draw(st.lists(st.sampled_from([1, 2, 3]), min_size=rank, max_size=rank))
    packing, pattern = Packing.frames(shape), frames_pattern(rank)
    array = numbered(shape)
    expected = array if pattern is None else einops.rearrange(array, pattern)
    assert in_memory(array, packing).shape == expected.shape
    assert (in_memory(array, packing) == expected).all()
    assert sorted(frames_order(rank)) == list(range(rank))
    if pattern is not None:
        assert parse_pattern(pattern, shape) == packing


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        ("n c t h w", "exactly one '->'"),
        ("n c -> c n -> n c", "exactly one '->'"),
        ("n c t h w -> n c t h w", "5 physical axes"),
        ("n c t h w -> (n t c h w", "without ')'"),
        ("n c t h w -> n t) c h w", "without '('"),
        ("n c t h w -> ((n t) c) h w", "nested"),
        ("n c t h w -> (n t) c h", "every name"),
        ("n c t h w -> (n t) c h x", "every name"),
        ("n c t h 3 -> (n t) c h 3", "plain names"),
        ("n c h w -> n c h w", "4 names for the 5 axes"),
    ],
)
def test_a_wrong_pattern_is_quoted_with_the_reason(pattern, reason):
    with pytest.raises(PackingError) as caught:
        parse_pattern(pattern, (1, 2, 3, 4, 5))
    assert reason in str(caught.value)
    assert pattern in str(caught.value)


@given(st.data())
def test_common_pieces_refine_both(data):
    number = data.draw(st.sampled_from([24, 36, 60, 72]))
    a, b = ([s for s in data.draw(factorisations(number)) if s != 1] for _ in range(2))
    pieces = common_pieces(a, b)
    assume(pieces is not None)
    for sizes in (a, b):
        assert set(itertools.accumulate(sizes, lambda x, y: x * y)) <= set(
            itertools.accumulate(pieces, lambda x, y: x * y)
        )


def test_sizes_without_a_common_refinement():
    assert common_pieces((6, 4), (8, 3)) is None
    assert common_pieces((4, 6), (2, 12)) == (2, 2, 6)


def test_what_is_no_packing_is_refused():
    with pytest.raises(PackingError, match="empty axis"):
        Packing.of((2, 0, 3))
    with pytest.raises(PackingError, match="not a permutation"):
        Packing.of((2, 3), (0, 0))
    with pytest.raises(PackingError, match="at most 4"):
        Packing((2, 2, 2, 2, 2), ((0, 1, 2, 3, 4),), ((0,), (1,), (2,), (3,), (4,)))
    with pytest.raises(PackingError, match="another number of elements"):
        Packing.of((2, 3)).reshape((5,))
