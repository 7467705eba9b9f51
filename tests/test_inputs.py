"""Graphs that take frames as a camera gives them, through the whole line: export, open, parity, bench, eval, int8."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
import torch
from torch import nn

import edge4d
from edge4d.checking import check_parity
from edge4d.cli import main
from edge4d.clips import Pixels, load_clips
from edge4d.dry_run import plan_report
from edge4d.errors import UsageError, ValidationError
from edge4d.evaluating import evaluate
from edge4d.intake import Intake, Normalize
from edge4d.intake_options import Asked
from edge4d.ports import Port
from edge4d.validators.fps_paths import bench_paths
from tests.lowering.harness import randomise

MEAN, STD = (0.43, 0.39, 0.37), (0.22, 0.25, 0.21)
TEXT = "mean=0.43,0.39,0.37 std=0.22,0.25,0.21"


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv3d(3, 8, 3, padding=1), nn.BatchNorm3d(8), nn.ReLU())
        self.head = nn.Linear(8, 4)

    def forward(self, clip):
        return self.head(self.stem(clip).mean((2, 3, 4)))


def frames(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def by_hand(model: nn.Module, given: np.ndarray) -> np.ndarray:
    """The usual way in PyTorch: bytes (N T H W C) to floats, scaled, normalised, channels first."""
    clip = torch.from_numpy(given).float() / 255
    clip = (clip - torch.tensor(MEAN)) / torch.tensor(STD)
    with torch.no_grad():
        return model(clip.permute(0, 4, 1, 2, 3)).numpy()


@pytest.fixture(scope="module")
def net():
    return randomise(Net()).float().eval()


@pytest.fixture(scope="module")
def archive(net, tmp_path_factory):
    path = tmp_path_factory.mktemp("archive") / "net.pt2"
    torch.export.save(torch.export.export(net, (torch.randn(1, 3, 4, 10, 8),)), path)
    return path


@pytest.fixture(scope="module")
def report(archive, tmp_path_factory):
    path = tmp_path_factory.mktemp("inputs") / "net.onnx"
    return edge4d.export(archive, output=path, normalize=TEXT, input_layout="nhwc")


def test_the_artifact_takes_bytes_and_says_how(report, net):
    assert report.ok
    metadata = {entry.key: entry.value for entry in onnx.load(report.path).metadata_props}
    assert metadata["edge4d.shape.clip"] == "1x4x10x8x3"
    assert metadata["edge4d.packing.clip"] == "n t h w c -> (n t) h w c"
    assert metadata["edge4d.layout.clip"] == "nhwc"
    assert metadata["edge4d.normalize.clip"] == f"{TEXT} scale=255"
    given = frames(1, 4, 10, 8, 3)
    with edge4d.open(report.path) as opened:
        assert opened.inputs == report.inputs
        np.testing.assert_allclose(opened(given)["output"], by_hand(net, given), rtol=1e-5, atol=1e-5)
        with pytest.raises(edge4d.errors.PackingError, match="got dtype float32, the graph takes uint8"):
            opened(given.astype(np.float32))
    assert report.operators["Sub"] == 1
    assert "Mul" not in report.operators
    assert f"(nhwc, uint8 frames normalised by {TEXT} scale=255)" in report.to_text()
    assert json.loads(json.dumps(report.to_dict()))["inputs"][0]["intake"]["layout"] == "nhwc"
    recipe = json.loads(report.path.with_name("net.onnx.json").read_text())
    assert recipe["options"]["normalize"] == [f"{TEXT} scale=255"]
    assert recipe["options"]["input_layout"] == ["nhwc"]
    assert Port.from_dict(report.inputs[0].to_dict()) == report.inputs[0]


def test_parity_gives_both_sides_the_same_frames_layers_and_stages_too(report, archive):
    found = check_parity(archive, [report.path], layers=True, stages=True)
    assert all(one.ok for one in found.values())
    assert len(found) == 3
    assert set(found[report.path].layers.values) >= {"stem.1", "head"}


def test_parity_sees_a_wrong_mean(report, archive, tmp_path):
    model = onnx.load(report.path)
    entry = next(entry for entry in model.metadata_props if entry.key == "edge4d.normalize.clip")
    entry.value = entry.value.replace("0.43", "0.44")
    onnx.save(model, tmp_path / "lying.onnx")
    (found,) = check_parity(archive, [tmp_path / "lying.onnx"]).values()
    assert not found.ok


def test_files_that_take_frames_and_files_that_do_not_are_comparable(report, archive, tmp_path):
    plain = edge4d.export(archive, output=tmp_path / "plain.onnx").path
    turned = edge4d.export(archive, output=tmp_path / "turned.onnx", input_layout="nhwc").path
    upright = edge4d.export(archive, output=tmp_path / "upright.onnx", normalize=TEXT).path
    found = check_parity(plain, [turned, upright, report.path])
    assert all(one.ok for one in found.values())
    assert all(one.ok for one in check_parity(archive, [turned, plain]).values())
    with pytest.raises(UsageError, match="in another form"):
        check_parity(archive, [plain, report.path], layers=True)
    measured = bench_paths([archive, plain, report.path], rounds=1, warmup=0)
    assert measured.ok
    assert [one.incomparable for one in measured.candidates] == [None] * 3
    assert [one.details["shapes"] for one in measured.candidates] == [[[1, 3, 4, 10, 8]]] * 3


def test_clips_of_a_file_are_such_as_the_graph_takes(report, archive, tmp_path):
    np.savez(tmp_path / "clips.npz", clip=frames(3, 4, 10, 8, 3))
    (found,) = check_parity(archive, [report.path], inputs=tmp_path / "clips.npz").values()
    assert found.ok
    assert found.sets == 3
    np.savez(tmp_path / "floats.npz", clip=np.zeros((1, 4, 10, 8, 3), np.float32))
    with pytest.raises(UsageError, match="float32, expected uint8"):
        check_parity(archive, [report.path], inputs=tmp_path / "floats.npz")


def test_eval_reads_pixels_and_normalises_once(report, archive, tmp_path, net):
    given = frames(12, 4, 10, 8, 3)
    labels = np.array([by_hand(net, clip[None]).argmax() for clip in given])
    np.savez(tmp_path / "data.npz", clips=np.ascontiguousarray(given.transpose(0, 4, 1, 2, 3)), labels=labels)
    found = evaluate([archive, report.path], data=tmp_path / "data.npz")
    assert [score.top1 for score in found.scores] == [1.0, 1.0]
    with pytest.raises(UsageError, match=r"--mean: one of the models takes frames"):
        evaluate([archive, report.path], data=tmp_path / "data.npz", video={"mean": (0.45,)})
    np.savez(tmp_path / "normal.npz", clips=np.full((2, 3, 4, 10, 8), -1.5, np.float32), labels=labels[:2])
    with pytest.raises(UsageError, match="takes frames"):
        evaluate([archive, report.path], data=tmp_path / "normal.npz")


def test_an_open_batch(net, tmp_path):
    report = edge4d.export(
        net,
        (torch.randn(1, 3, 4, 10, 8),),
        output=tmp_path / "open.onnx",
        dynamic="batch",
        normalize=TEXT,
        input_layout="nhwc",
    )
    assert report.ok
    with edge4d.open(report.path) as opened:
        assert opened.inputs[0].shape == (-1, 4, 10, 8, 3)
        for batch in (1, 6):
            given = frames(batch, 4, 10, 8, 3, seed=batch)
            np.testing.assert_allclose(opened(given)["output"], by_hand(net, given), rtol=1e-5, atol=1e-5)


def test_plan_takes_them_as_export_does(report, archive, net):
    planned = plan_report(archive, normalize=TEXT, input_layout="nhwc")
    assert planned.layers == report.layers
    padded = plan_report(archive, normalize=TEXT, input_layout="nhwc", precision="fp16")
    assert padded.ok
    with pytest.raises(UsageError, match="has 3 channels, mean and std are for 2"):
        plan_report(archive, normalize="mean=0.4,0.3 std=0.2")
    with pytest.raises(UsageError, match=r"--input-layout other:…: the model has no such input"):
        plan_report(net, (torch.randn(1, 3, 4, 10, 8),), input_layout="other:nhwc")


def test_plan_from_the_command_line(archive, capsys):
    assert main(["plan", str(archive), "--normalize", TEXT, "--input-layout", "nhwc", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["ok"]
    assert main(["plan", str(archive), "--input-layout", "nhcw"]) == 2
    assert "did you mean nhwc?" in capsys.readouterr().err


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_narrow_types(net, tmp_path, precision):
    calib = {"calib": frames(8, 4, 10, 8, 3)} if precision == "int8" else {}
    report = edge4d.export(
        net,
        (torch.randn(1, 3, 4, 10, 8),),
        output=tmp_path / "narrow.onnx",
        precision=precision,
        normalize=TEXT,
        input_layout="nhwc",
        **calib,
    )
    assert report.ok
    assert report.inputs[0].dtype == "uint8"
    given = frames(1, 4, 10, 8, 3, seed=5)
    with edge4d.open(report.path) as opened:
        expected = by_hand(net, given)
        assert np.abs(opened(given)["output"] - expected).max() < 0.05 * np.ptp(expected)


def test_calibration_takes_the_frames_of_the_graph(net, tmp_path):
    def export(calib, **options):
        clip = torch.randn(1, 3, 4, 10, 8)
        options = {"normalize": TEXT, "input_layout": "nhwc", "precision": "int8"} | options
        return edge4d.export(net, (clip,), output=tmp_path / "int8.onnx", calib=calib, **options)

    with pytest.raises(UsageError, match="normalises by itself and takes uint8"):
        export(np.zeros((8, 4, 10, 8, 3), np.float32))
    with pytest.raises(UsageError, match=r"4x10x8x3 \(T H W C\)"):
        export(frames(8, 3, 4, 10, 8))
    with pytest.raises(UsageError, match="--calib-mean"):
        export(frames(8, 4, 10, 8, 3), calib_mean=(0.45,))


def test_pictures_become_the_very_bytes_that_they_hold(tmp_path):
    from PIL import Image

    given = frames(4, 10, 8, 3)
    for i, picture in enumerate(given):
        Image.fromarray(picture).save(tmp_path / f"{i}.png")
    intake = Intake("nhwc", Normalize(MEAN, STD))
    found = load_clips(tmp_path, (1, 3, 4, 10, 8), intake=intake)
    assert found.clips.dtype == np.uint8
    assert (found.clips == given).all()
    turned = load_clips(tmp_path, (1, 3, 4, 10, 8), Pixels((0.4,), (0.2,)), Intake("nhwc"))
    np.testing.assert_allclose(turned.clips[0], (given / 255 - 0.4) / 0.2, rtol=1e-4, atol=1e-5)


def test_a_block_is_fitted_on_what_the_model_takes(tmp_path):
    model = randomise(nn.Sequential(nn.Conv3d(3, 4, 3, padding=1), nn.Conv3d(4, 4, 3, padding=1))).float().eval()
    clip = torch.randn(1, 3, 4, 10, 8)
    given = frames(4, 4, 10, 8, 3)
    options = {"block": "proposed-add", "normalize": TEXT, "input_layout": "nhwc"}
    report = edge4d.export(model, (clip,), output=tmp_path / "a.onnx", calib=given, **options)
    own = (given.transpose(0, 4, 1, 2, 3) / 255 - np.reshape(MEAN, (3, 1, 1, 1))) / np.reshape(STD, (3, 1, 1, 1))
    plain = edge4d.export(model, (clip,), output=tmp_path / "b.onnx", calib=own.astype("f4"), block="proposed-add")
    assert report.swap.calibration.before == pytest.approx(plain.swap.calibration.before, rel=1e-4)
    assert report.ok


class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.left, self.right = nn.Conv3d(3, 4, 3), nn.Conv3d(3, 4, 3, padding=1)

    def forward(self, slow, fast, mask):
        return self.left(slow).mean((2, 3, 4)) + self.right(fast).mean((2, 3, 4)) * mask


def test_one_of_several_inputs(tmp_path):
    model = randomise(Two()).float().eval()
    args = (torch.randn(1, 3, 3, 6, 6), torch.randn(1, 3, 6, 6, 6), torch.ones(1, 4))
    report = edge4d.export(
        model, args, output=tmp_path / "two.onnx", normalize=f"fast:{TEXT}", input_layout={"fast": "nhwc"}
    )
    assert report.ok
    assert [port.dtype for port in report.inputs] == ["float32", "uint8", "float32"]
    assert [port.shape for port in report.inputs] == [(1, 3, 3, 6, 6), (1, 6, 6, 6, 3), (1, 4)]
    with pytest.raises(UsageError, match="the input 'mask' is 1x4, expected clips"):
        edge4d.export(model, args, output=tmp_path / "no.onnx", normalize=TEXT)
    with pytest.raises(UsageError, match="no such input, it has slow, fast, mask") as raised:
        edge4d.export(model, args, output=tmp_path / "no.onnx", input_layout="fats:nhwc")
    assert raised.value.hint == "did you mean fast?"
    with pytest.raises(UsageError, match="given twice for the input 'slow'"):
        edge4d.export(model, args, output=tmp_path / "no.onnx", normalize=[f"slow:{TEXT}", f"slow:{TEXT}"])
    assert not (tmp_path / "no.onnx").exists()


class Bytes(nn.Module):
    def forward(self, clip):
        return clip.float().mean((2, 3, 4))


def test_a_model_of_bytes_is_turned_but_not_normalised(tmp_path):
    args = (torch.zeros(1, 3, 4, 5, 6, dtype=torch.uint8),)
    with pytest.raises(UsageError, match="not of floating point"):
        edge4d.export(Bytes(), args, output=tmp_path / "b.onnx", normalize=TEXT)
    report = edge4d.export(Bytes(), args, output=tmp_path / "b.onnx", input_layout="nhwc")
    assert report.ok
    given = frames(1, 4, 5, 6, 3)
    with edge4d.open(report.path) as opened:
        np.testing.assert_allclose(opened(given)["output"], given.mean((1, 2, 3)), rtol=1e-5)


# ---- spelling -----------------------------------------------------------------------------------------------------


def test_the_spellings_of_normalize():
    expected = Normalize(MEAN, STD, 255.0)
    assert Normalize.of(f"{TEXT} scale=255") == Normalize.of(TEXT) == Normalize.of(TEXT.replace(" ", ";")) == expected
    assert Normalize.of({"mean": MEAN, "std": np.array(STD)}) == expected
    assert Normalize.of("0.45,0.225") == Normalize.of("mean=0.45 std=0.225") == Normalize((0.45,), (0.225,))
    assert Normalize.of("0.45,0.225,1") == Normalize((0.45,), (0.225,), 1.0)
    assert Normalize.of("std=58.4 mean=114.8 scale=1").scale == 1
    odd = Normalize((1 / 3, 1e-7), (0.1 + 0.2,), 256.0)
    assert Normalize.of(odd.text) == odd
    assert Asked.of(["slow:0.45,0.225", f"fast:{TEXT}"]).to_dict() == {
        "normalize": ["slow:mean=0.45 std=0.225 scale=255", f"fast:{TEXT} scale=255"]
    }
    assert not Asked.of()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("mean=0.45 std=0", "std holds 0, expected numbers above 0"),
        ("mean=0.45 std=0.2,-1,0.2", "std holds -1"),
        ("mean=0.45 std=0.2 scale=0", "scale holds 0"),
        ("mean=nan std=1", "mean is"),
        ("mean=inf std=1", "mean is"),
        ("mean=0.4,0.4 std=0.2,0.2,0.2", "2 means for 3 deviations"),
        ("mean=0.4 scale=1,2", "2 scales, expected one"),
        ("mean=0.4 sdt=0.2", "cannot read 'sdt=0.2'"),
        ("mean=0.4 mean=0.2", "cannot read 'mean=0.2'"),
        ("mean=0.4 0.2", "cannot read '0.2'"),
        ("mean=a std=1", "cannot read 'a' as numbers"),
        ("0.45", "1 numbers, expected 2 or 3"),
        ("0.43,0.39,0.37", "reads as mean 0.43, std 0.39, scale 0.37"),
        ("", "cannot read"),
        ({"mean": 0.4, "sd": 1}, "sd"),
        ({"mean": "a"}, "could not convert"),
        ({"mean": None}, "not iterable"),
    ],
)
def test_what_cannot_be_a_normalisation(given, said):
    with pytest.raises(UsageError, match=said):
        Normalize.of(given)


def test_an_unknown_layout_and_channels_that_do_not_fit(net, tmp_path):
    clip = torch.randn(1, 3, 4, 10, 8)
    with pytest.raises(UsageError, match="--input-layout nwhc: expected nchw or nhwc") as raised:
        edge4d.export(net, (clip,), output=tmp_path / "no.onnx", input_layout="nwhc")
    assert raised.value.hint == "did you mean nhwc?"
    with pytest.raises(UsageError, match="'clip' has 3 channels, mean and std are for 2"):
        edge4d.export(net, (clip,), output=tmp_path / "no.onnx", normalize="mean=1,2 std=1")


# ---- what a file says -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("edge4d.normalize.clip", "mean=0.4 std=0"),
        ("edge4d.normalize.clip", "mean=0.4,0.4 std=1"),
        ("edge4d.normalize.clip", "mean=" + "0.4," * 500),
        ("edge4d.layout.clip", "chwn"),
        ("edge4d.layout.clip", "nchw\0"),
        ("edge4d.packing.clip", "n c t h w -> (n c) t h w"),
    ],
)
def test_a_description_that_lies_is_refused(report, tmp_path, key, value):
    model = onnx.load(report.path)
    next(entry for entry in model.metadata_props if entry.key == key).value = value
    onnx.save(model, tmp_path / "lying.onnx")
    with pytest.raises(ValidationError, match="in the file's metadata"):
        edge4d.open(tmp_path / "lying.onnx")


def test_normalisation_of_floats_is_refused(tmp_path, archive):
    path = edge4d.export(archive, output=tmp_path / "plain.onnx").path
    model = onnx.load(path)
    model.metadata_props.add(key="edge4d.normalize.clip", value="mean=0.4 std=1")
    onnx.save(model, path)
    with pytest.raises(ValidationError, match="does not fit 'clip', float32 of 3 channels"):
        edge4d.open(path)


def test_an_intake_turns_there_and_back():
    intake = Intake("nhwc", Normalize(MEAN, STD))
    assert intake.own_shape(intake.shape((1, 3, 4, 5, 6))) == (1, 3, 4, 5, 6)
    array = np.arange(2 * 3 * 4).reshape(2, 3, 4, 1)
    assert (intake.own(intake.arranged(array)) == array).all()
    assert Intake.from_dict(json.loads(json.dumps(intake.to_dict()))) == intake
