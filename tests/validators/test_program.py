"""The gate on torch.export programs: every rank proven or reported."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import edge4d
from edge4d.errors import UsageError
from edge4d.quiet import quiet
from edge4d.validators import CODES, check_exported, check_rank
from edge4d.validators.profile import load_profile, shipped_profiles
from tests.lowering.harness import Fn
from tests.validators.programs import CLIP, IMAGE, Net, codes, decomposed, exported, messages

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
    assert place.line.startswith("tests/validators/programs.py:")
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
