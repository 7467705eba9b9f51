"""The least-squares fit on clips: never worse layer by layer, never worse at the output, clear about bad clips."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from edge4d import blocks
from edge4d.calibrating import read_clips
from edge4d.errors import UsageError
from edge4d.swapping import swap_with_report


def smooth(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(count, 2, 6, 8, 8, generator=generator)
    return noise.cumsum(-1).cumsum(2) * 0.2


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    layers = []
    for c, s, stride, groups in ((2, 8, 1, 1), (8, 8, 2, 1), (8, 8, 1, 8), (8, 12, 1, 2)):
        layers += [nn.Conv3d(c, s, 3, stride, 1, groups=groups, bias=c == 8), nn.BatchNorm3d(s), nn.ReLU()]
    module = nn.Sequential(*layers, nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(12, 5))
    with torch.no_grad():
        for step in range(10):
            module(smooth(8, step + 10))
    return module.eval()


@pytest.mark.parametrize("name", blocks.names())
def test_calibrated_is_never_worse_on_the_clips(net, name):
    swapped, report = swap_with_report(net, name, calib=smooth(12))
    plain, _ = swap_with_report(net, name)
    assert all(after <= before + 1e-9 for before, after in (row.output_error for row in report.rows))
    clips = smooth(12)
    with torch.no_grad():
        wanted = net(clips)
        calibrated, free = ((model(clips) - wanted).norm() / wanted.norm() for model in (swapped, plain))
    assert calibrated <= free + 1e-6
    assert report.calibration.after <= report.calibration.before
    assert "calibrated on 12 clips" in report.to_text()


@pytest.mark.parametrize("name", ["proposed-add", "r2plus1d"])
def test_calibration_helps_smooth_clips(net, name):
    _, report = swap_with_report(net, name, calib=smooth(12))
    assert report.calibration.kept
    assert report.calibration.after < 0.8 * report.calibration.before


def test_an_exact_block_stays_as_it_is(net):
    swapped, report = swap_with_report(net, "conv3d", calib=smooth(4))
    assert report.calibration.after == 0
    for mine, theirs in zip(swapped.state_dict().values(), net.state_dict().values(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-6)


def test_the_solution_is_the_least_squares_one():
    torch.manual_seed(0)
    conv = nn.Conv3d(2, 4, 3, padding=1).double()
    clips = torch.randn(6, 2, 4, 5, 5, dtype=torch.float64)
    swapped, _ = swap_with_report(conv, "proposed-add", calib=clips)
    residual = (conv(clips) - swapped(clips)).detach()
    (system,) = swapped.systems(clips)
    x = torch.cat([columns[0] for columns in system.columns], 1).detach()
    gradient = x.mT @ residual.movedim(1, -1).reshape(len(x), -1)
    assert gradient.abs().max() < 1e-3 * x.square().sum(0).max()  # the residual is orthogonal to X, up to the ridge
    assert residual.norm() < conv(clips).norm()


def test_files(tmp_path):
    clips = smooth(3).numpy()
    np.savez(tmp_path / "clips.npz", clips=clips)
    folder = tmp_path / "folder"
    folder.mkdir()
    np.save(folder / "a.npy", clips[0])
    np.save(folder / "b.npy", clips[1:])
    assert torch.equal(read_clips(tmp_path / "clips.npz"), torch.from_numpy(clips))
    assert torch.equal(read_clips(folder), torch.from_numpy(clips))


def test_bad_clips(net, tmp_path):
    with pytest.raises(UsageError, match=r"expected clips \(N, C, T, H, W\), got shape \(2, 3\)"):
        read_clips(np.zeros((2, 3)))
    broken = smooth(3)
    broken[1, 0, 0, 0, 0] = torch.nan
    with pytest.raises(UsageError, match="1 of 3 clips hold values that are NaN"):
        swap_with_report(net, "p3d-a", calib=broken)
    with pytest.raises(UsageError, match=r"clips of shape 2x5x6x8x8 do not fit Sequential"):
        swap_with_report(net, "p3d-a", calib=torch.zeros(2, 5, 6, 8, 8))
    with pytest.raises(UsageError, match="no such file"):
        read_clips(tmp_path / "missing.npz")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match=r"no \.npy file"):
        read_clips(tmp_path / "empty")
    np.savez(tmp_path / "two.npz", a=np.zeros(1), b=np.zeros(1))
    with pytest.raises(UsageError, match="expected one array"):
        read_clips(tmp_path / "two.npz")
