"""The least-squares fit on clips: never worse layer by layer, never worse at the output, clear about bad clips."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import edge4d
from edge4d import blocks, calibrating
from edge4d.calibrating import read_clips
from edge4d.errors import UsageError
from edge4d.swapping import swap_with_report
from tests.blocks.test_structures import clip, layers, seeded


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


@pytest.mark.parametrize("step", ["_fit", "_settle"])
def test_a_step_that_makes_the_output_worse_is_taken_back(net, step, monkeypatch):
    real = getattr(calibrating, step)

    def spoilt(original, was, swapped, module, batches):
        found = real(original, was, swapped, module, batches)
        for tensor in module.parameters() if step == "_fit" else (module.running_mean,):
            tensor.add_(3)
        return found

    monkeypatch.setattr(calibrating, step, spoilt)
    swapped, report = swap_with_report(net, "proposed-add", calib=smooth(8))
    plain, _ = swap_with_report(net, "proposed-add")
    assert report.calibration.kept == (step != "_fit")
    assert report.calibration.after <= report.calibration.before
    if step == "_fit":
        assert all(before == after for before, after in (row.output_error for row in report.rows))
        assert "; the data-free fit was kept" in report.to_text()
        assert all(torch.equal(a, b) for a, b in zip(swapped.parameters(), plain.parameters(), strict=True))
    else:
        assert not report.calibration.norms
        assert all(torch.equal(a, b) for a, b in zip(swapped.buffers(), plain.buffers(), strict=True))


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
    assert torch.equal(read_clips(folder / "b.npy"), torch.from_numpy(clips[1:]))
    np.save(tmp_path / "bytes.npy", (clips > 0).astype(">i2"))
    assert torch.equal(read_clips(tmp_path / "bytes.npy"), torch.from_numpy(clips > 0).float())


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
    np.save(tmp_path / "empty" / "a.npy", np.zeros((2, 4, 6, 6)))
    np.save(tmp_path / "empty" / "b.npy", np.zeros((2, 4, 6, 7)))
    with pytest.raises(UsageError, match=r"a\.npy holds clips of 2x4x6x6, b\.npy of 2x4x6x7"):
        read_clips(tmp_path / "empty")
    np.save(tmp_path / "objects.npy", np.array([{}]), allow_pickle=True)
    with pytest.raises(UsageError, match="cannot be read"):
        read_clips(tmp_path / "objects.npy")
    with pytest.raises(UsageError, match="expected real numbers"):
        read_clips(np.zeros((1, 2, 3, 4, 5), "complex64"))
    with pytest.raises(UsageError, match="expected an array of numbers"):
        read_clips(np.array(["a"]))
    with pytest.raises(UsageError, match=r"2x2x6x9x9 are not what the network is meant for: its input is 1x2x6x8x8"):
        swap_with_report(net, "p3d-a", args=(smooth(1),), calib=torch.zeros(2, 2, 6, 9, 9))


class Two(nn.Module):
    """Takes two clips, and has more to its state than tensors."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv3d(2, 4, 3)

    def forward(self, x, y=None):
        if y is None and len(x) > 5:
            raise ValueError("two clips, please")
        return self.conv(x)

    def get_extra_state(self):
        return {"anything": 1}

    def set_extra_state(self, state):
        raise AssertionError("state is not put back through a state_dict")


def test_networks_that_will_not_take_the_clips():
    with pytest.raises(UsageError, match=r"clips of shape 3x9x6x8x8 do not fit Two"):
        swap_with_report(Two(), "p3d-a", calib=torch.zeros(3, 9, 6, 8, 8))

    class Needs(Two):
        def forward(self, x, y):
            return self.conv(x + y)

    with pytest.raises(UsageError, match=r"do not fit Needs: .*missing 1 required[\s\S]*its one argument"):
        swap_with_report(Needs(), "p3d-a", calib=smooth(3))
    assert swap_with_report(Two(), "p3d-a", calib=smooth(3))[1].calibration.clips == 3


def test_too_few_clips_are_said_to_be():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv3d(2, 8, 3, padding=1), nn.ReLU(), nn.Conv3d(8, 8, 3, 4))
    _, report = swap_with_report(net, "proposed-add", calib=smooth(2))
    assert [row.scarce for row in report.rows] == [False, True]  # 2·1·2·2 places for 8·(9 + 3) + 1 taps
    assert "too few clips to fit 2: other clips will come out worse" in report.to_text()
    assert not any(row.scarce for row in swap_with_report(net, "proposed-add", calib=smooth(25))[1].rows)


def test_outputs_that_are_not_finite():
    net = nn.Sequential(nn.Conv3d(2, 4, 3), nn.BatchNorm3d(4)).eval()
    net[1].running_mean[0] = torch.nan
    with pytest.raises(UsageError, match="Sequential gives NaN or infinite outputs on the calibration clips"):
        swap_with_report(net, "p3d-a", calib=smooth(2))


@settings(max_examples=10, deadline=None, derandomize=True)
@given(conv=layers(), name=st.sampled_from(blocks.names()))
def test_any_layer_calibrated_is_never_worse(conv, name):
    conv = seeded(conv)
    clips = clip(3, 4, 7, 8, 7)
    swapped, report = swap_with_report(conv, name, "*", calib=clips)
    plain, _ = swap_with_report(conv, name, "*")
    with torch.no_grad():
        wanted = conv(clips)
        after, before = ((block(clips) - wanted).norm() / wanted.norm() for block in (swapped, plain))
    assert after <= before + 1e-9
    assert report.rows[0].output_error == pytest.approx((float(before), float(after)), abs=1e-6)


def test_the_distance_is_measured_on_the_clips_too(net, tmp_path):
    clips = smooth(12)
    report = edge4d.export(net, (clips[:1],), output=tmp_path / "net.onnx", block="proposed-add", calib=clips)
    noise, distance = report.swap.distance
    assert (noise.clips, noise.inputs) == (8, "random inputs")
    assert (distance.clips, distance.inputs) == (12, "calibration clips, which it was fitted on")
    assert distance.relative_error == pytest.approx(report.swap.calibration.after, rel=1e-3)
    assert distance.top1 is not None
    assert "(12 calibration clips, which it was fitted on)" in report.to_text()
