"""Fast filter algorithms: exact against the plain sum, and as small as promised."""

from __future__ import annotations

import pytest
import torch

from edge4d.lowering.conv.cook_toom import POINTS, fast_filter

SIZES = [(m, r) for m in range(1, 9) for r in range(1, 9) if m + r - 2 <= len(POINTS)]


@pytest.mark.parametrize(("results", "taps"), SIZES)
def test_it_equals_the_plain_sum(results, taps):
    a, g, b = fast_filter(results, taps)
    generator = torch.Generator().manual_seed(results * 10 + taps)
    data, kernel = (torch.randn(n, dtype=torch.float64, generator=generator) for n in (results + taps - 1, taps))
    plain = torch.stack([(kernel * data[i : i + taps]).sum() for i in range(results)])
    torch.testing.assert_close(a @ ((g @ kernel) * (b @ data)), plain, rtol=1e-9, atol=1e-9)
    assert len(g) == results + taps - 1


@pytest.mark.parametrize(("results", "taps"), [(2, 3), (3, 3), (4, 3), (2, 2), (2, 5)])
def test_the_product_of_point_one_enters_every_result_once(results, taps):
    assert fast_filter(results, taps)[0][:, 1].tolist() == [1.0] * results  # the bias is added there


def test_lavin_and_gray():
    a, g, b = fast_filter(2, 3)
    assert a.tolist() == [[1, 1, 1, 0], [0, 1, -1, 1]]
    assert g.tolist() == [[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]]
    assert b.tolist() == [[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, -1, 0, 1]]


@pytest.mark.parametrize(("results", "taps"), [(0, 3), (3, 0), (6, 4)])
def test_what_has_no_algorithm_here_is_refused(results, taps):
    with pytest.raises(ValueError, match="needs"):
        fast_filter(results, taps)
