"""`--dynamic batch`: one graph for every batch, with PyTorch's numbers at each; what fixes its batch is refused."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from torch import nn

import edge4d
from edge4d.cli import main
from edge4d.errors import ExportError, UsageError
from edge4d.export_parity import rebatched
from edge4d.ports import Port
from edge4d.validators.rank import check_rank
from tests.zoo.exposed import run_with_all_values


class Net(nn.Module):
    """Convolutions of several kinds, a pool, a norm, a softmax over clips' channels, a head."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv3d(3, 8, (3, 5, 5), stride=(1, 2, 2), padding=(1, 2, 2))
        self.norm = nn.BatchNorm3d(8)
        self.wide = nn.Conv3d(8, 8, 3, padding=1, groups=2)
        self.depth = nn.Conv3d(8, 8, (3, 1, 1), padding=(1, 0, 0), groups=8)
        self.down = nn.Conv3d(8, 12, 3, stride=2, padding=1)
        self.up = nn.ConvTranspose3d(12, 4, 2, stride=2)
        self.group = nn.GroupNorm(2, 4)
        self.head = nn.Linear(4, 5)

    def forward(self, clip):
        x = self.norm(self.stem(clip)).relu()
        x = self.depth(self.wide(x)) + x
        x = nn.functional.max_pool3d(x, (1, 2, 2))
        x = self.group(self.up(self.down(x)))
        attention = x.flatten(2).transpose(1, 2).softmax(-1)
        return self.head(attention.mean(1)), x


class TwoInputs(nn.Module):
    def __init__(self):
        super().__init__()
        self.slow, self.fast = nn.Conv3d(1, 4, 3, padding=1), nn.Conv3d(1, 4, 3, padding=1, stride=(2, 1, 1))

    def forward(self, slow, fast):
        return torch.cat([self.slow(slow), self.fast(fast)], 1).mean((2, 3, 4))


def exported(net, args, folder, **settings):
    torch.manual_seed(0)
    return edge4d.export(net.eval(), args, output=folder / "net.onnx", dynamic="batch", **settings)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    torch.manual_seed(1)
    net = Net().eval()
    return net, exported(net, (torch.randn(1, 3, 8, 16, 20),), tmp_path_factory.mktemp("open"))


@pytest.mark.parametrize("batch", [1, 2, 7])
def test_one_graph_serves_every_batch(made, batch):
    net, report = made
    assert report.ok, report.to_text()
    clip = torch.randn(batch, 3, 8, 16, 20, generator=torch.Generator().manual_seed(batch))
    with torch.no_grad():
        expected = net(clip)
    with edge4d.open(report.path) as opened:
        got = opened(clip.numpy())
        packed = opened.pack(clip.numpy())
    for wanted, found in zip(expected, got.values(), strict=True):
        assert found.shape == wanted.shape
        span = float(wanted.max() - wanted.min())
        np.testing.assert_allclose(found, wanted.numpy(), atol=1e-5 * span)
    values = run_with_all_values(onnx.load(report.path), packed)
    assert max(array.ndim for array in values.values()) <= 4


def test_the_description_says_what_is_open(made):
    _, report = made
    assert report.inputs[0].shape == (-1, 3, 8, 16, 20)
    assert report.inputs[0].physical == (-1, 3, 16, 20)
    assert "clip         Nx3x8x16x20 -> Nx3x16x20" in report.to_text()
    model = onnx.load(report.path)
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    assert metadata["edge4d.shape.clip"] == "Nx3x8x16x20"
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "8*N"
    assert check_rank(report.path).ok
    onnx.checker.check_model(model, full_check=True)


def test_a_clip_of_another_length_is_refused(made):
    with edge4d.open(made[1].path) as opened, pytest.raises(edge4d.errors.PackingError, match=r"expected \?x3x8x16x20"):
        opened(np.zeros((2, 3, 9, 16, 20), np.float32))


def test_two_inputs_share_the_batch(tmp_path):
    report = exported(TwoInputs(), (torch.randn(1, 1, 4, 6, 6), torch.randn(1, 1, 8, 6, 6)), tmp_path)
    assert report.ok, report.to_text()
    assert [port.shape[0] for port in (*report.inputs, *report.outputs)] == [-1, -1, -1]


def test_an_archive_of_an_open_batch(tmp_path):
    dynamic = {"clip": {0: torch.export.Dim("batch", min=1, max=64)}}
    program = torch.export.export(Net().eval(), (torch.randn(2, 3, 8, 16, 20),), dynamic_shapes=dynamic)
    report = edge4d.export(program, (torch.randn(2, 3, 8, 16, 20),), output=tmp_path / "a.onnx", dynamic="batch")
    assert report.ok, report.to_text()


def test_volumes_are_sampled_in_each_clip(tmp_path):
    """A gather in rows of all clips begins at each clip's own: a table that grows and counts with the batch."""

    class Warp(nn.Module):
        def __init__(self):
            super().__init__()
            self.flow = nn.Conv3d(2, 3, 3, padding=1)

        def forward(self, clip):
            theta = torch.eye(3, 4).expand(clip.shape[0], 3, 4)
            places = nn.functional.affine_grid(theta, list(clip.shape), align_corners=False)
            places = places + 0.3 * self.flow(clip).tanh().permute(0, 2, 3, 4, 1)
            return nn.functional.grid_sample(clip, places, align_corners=False, padding_mode="border")

    torch.manual_seed(0)
    net = Warp().eval()
    report = exported(net, (torch.randn(1, 2, 3, 5, 6),), tmp_path)
    assert report.ok
    with edge4d.open(report.path) as opened:
        for batch in (1, 4):
            clip = torch.randn(batch, 2, 3, 5, 6)
            with torch.no_grad():
                want = net(clip)
            (got,) = opened(clip.numpy()).values()
            np.testing.assert_allclose(got, want, atol=1e-5)


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_a_script_is_traced_anew_for_each_batch(tmp_path):
    """Its trace holds sizes, of which the batch is one; the file itself takes any."""

    class Shuffle(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv3d(4, 4, 3, padding=1)

        def forward(self, x):
            n, c, *rest = x.shape
            return self.conv(x.view(n, 2, c // 2, *rest).transpose(1, 2).reshape(x.shape))

    torch.manual_seed(0)
    net, path = Shuffle().eval(), tmp_path / "net.pt"
    torch.jit.trace(net, torch.randn(2, 4, 3, 5, 6)).save(path)
    report = edge4d.export(path, input_shapes=[(2, 4, 3, 5, 6)], output=tmp_path / "net.onnx", dynamic="batch")
    assert report.ok
    assert report.parity is not None
    with edge4d.open(report.path) as opened:
        for batch in (1, 4):
            clip = torch.randn(batch, 4, 3, 5, 6)
            with torch.no_grad():
                want = net(clip)
            (got,) = opened(clip.numpy()).values()
            np.testing.assert_allclose(got, want, atol=1e-5)


def test_an_archive_of_one_batch_is_refused(tmp_path):
    args = (torch.randn(2, 3, 8, 16, 20),)
    program = torch.export.export(Net().eval(), args)
    with pytest.raises(UsageError, match="archive is of one batch"):
        edge4d.export(program, args, output=tmp_path / "a.onnx", dynamic="batch")


class Tokens(nn.Module):
    """A class token before each clip's tokens, which PyTorch's own code expands over the batch."""

    def __init__(self, width):
        super().__init__()
        self.patch = nn.Conv3d(3, width, 4, 4)
        self.token = nn.Parameter(torch.randn(1, 1, width))
        self.places = nn.Parameter(torch.randn(1, 9, width))

    def forward(self, clip):
        x = self.patch(clip).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1) + self.places
        return nn.functional.scaled_dot_product_attention(x, x, x)[:, 0]


@pytest.mark.parametrize("width", [8, 300])
def test_a_class_token_is_kept_once(width, tmp_path):
    """As a constant within the file and, 1,200 bytes long, as a weight beside it."""
    torch.manual_seed(0)
    net = Tokens(width).eval()
    report = exported(net, (torch.randn(1, 3, 8, 8, 8),), tmp_path)
    assert report.ok, report.to_text()
    clip = torch.randn(7, 3, 8, 8, 8)
    with edge4d.open(report.path) as opened, torch.no_grad():
        got = next(iter(opened(clip.numpy()).values()))
        np.testing.assert_allclose(got, net(clip).numpy(), atol=1e-5 * float(np.ptp(got)))
    graph = onnx.load(report.path).graph
    (tile,) = (node for node in graph.node if node.op_type == "Tile")
    assert [list(i.dims) for i in graph.initializer if i.name == tile.input[0]] == [[1, 1, width]]


class Table(nn.Module):
    """Adds another table of numbers at each batch."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv3d(1, 2, 3)

    def forward(self, clip):
        return self.conv(clip).mean((2, 3, 4)) + torch.arange(clip.shape[0]).sin()[:, None]


class Square(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv3d(1, 2, 3)

    def forward(self, clip):
        rows = self.conv(clip).mean((2, 3, 4))
        return (rows[:, None] * rows[None]).reshape(-1, 2).repeat(clip.shape[0], 1)


class Branch(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv3d(1, 2, 3)

    def forward(self, clip):
        rows = self.conv(clip).mean((2, 3, 4))
        return rows.exp() if clip.shape[0] > 4 else rows


class Pairs(nn.Module):
    def forward(self, clip):
        return clip[:, None] - clip[None]


@pytest.mark.parametrize(
    ("net", "said"),
    [
        (Table, "the batch cannot be left open: a "),
        (Branch, "the batch cannot be left open"),
        (Pairs, r"more than one axis of output 'output' depends on it \(its shape is NxNx1x4x6x6\)"),
    ],
)
def test_what_depends_on_the_batch_is_refused(net, said, tmp_path):
    with pytest.raises(ExportError, match=said):
        exported(net(), (torch.randn(1, 1, 4, 6, 6),), tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_size_that_grows_with_the_square_is_refused_or_right(tmp_path):
    with pytest.raises(ExportError, match="the batch cannot be left open"):
        exported(Square(), (torch.randn(1, 1, 4, 6, 6),), tmp_path)


NARROW = {
    "fp16": {"precision": "fp16", "keep_fp32": ["down", "Softmax"]},
    "fp16 ports": {"precision": "fp16", "fp16_io": True},
    "int8": {"precision": "int8", "keep_fp32": ["head"]},
    "int8 of bytes": {"precision": "int8", "normalize": "0.5,0.25", "input_layout": "nhwc"},
    "fp16 of bytes": {"precision": "fp16", "normalize": "0.5,0.25", "input_layout": "nhwc"},
}


@pytest.mark.parametrize("settings", NARROW.values(), ids=NARROW)
def test_narrow_types(settings, tmp_path):
    """Within the type's limits of PyTorch at several batches, and a clip's numbers do not hang on its neighbours."""
    bytes_in = "normalize" in settings
    generator = np.random.default_rng(3)
    shape = (9, 4, 8, 12, 3) if bytes_in else (9, 3, 4, 8, 12)
    clips = generator.integers(0, 256, shape, np.uint8) if bytes_in else generator.standard_normal(shape, np.float32)
    calib = {"calib": clips} if settings["precision"] == "int8" else {}
    torch.manual_seed(1)
    net = Net().eval()
    report = exported(net, (torch.randn(1, 3, 4, 8, 12),), tmp_path, **settings, **calib)
    assert report.ok, report.to_text()
    assert report.gate.ok
    types = {tensor.data_type for tensor in onnx.load(report.path).graph.initializer}
    wanted = onnx.TensorProto.INT8 if settings["precision"] == "int8" else onnx.TensorProto.FLOAT16
    assert wanted in types
    floats = (clips.transpose(0, 4, 1, 2, 3) / 255 - 0.5) / 0.25 if bytes_in else clips
    with torch.no_grad():
        expected = [one.numpy() for one in net(torch.from_numpy(floats.astype(np.float32)))]
    given = clips.astype(np.float16) if settings.get("fp16_io") else clips
    with edge4d.open(report.path) as opened:
        whole = list(opened(given).values())
        for start, stop in ((0, 1), (1, 3), (3, 9)):
            for found, part in zip(whole, opened(given[start:stop]).values(), strict=True):
                np.testing.assert_allclose(part, found[start:stop], rtol=0, atol=2e-3 * np.ptp(found))
    share = 0.06 if settings["precision"] == "int8" else 0.005
    for found, reference in zip(whole, expected, strict=True):
        assert np.abs(found - reference).max() <= share * np.ptp(reference)


def test_int8_is_checked_at_several_batches(tmp_path):
    ports = (Port("a", (-1, 2), (-1, 2), "float32"), Port("b", (3,), (3,), "float32"))
    stack = np.arange(20.0).reshape(10, 2)
    runs = [{"a": stack[i : i + 2], "b": np.ones(3)} for i in range(0, 10, 2)]
    found = rebatched(runs, ports)
    assert [len(run["a"]) for run in found] == [1, 4, 3, 1]
    np.testing.assert_array_equal(np.concatenate([run["a"] for run in found]), stack[:9])
    assert all(run["b"] is runs[0]["b"] for run in found)
    assert rebatched([], ports) == []


@pytest.mark.parametrize(
    ("settings", "said"),
    [({"dynamic": "time"}, "only the batch can be left open"), ({"precision": "int8"}, "int8 needs clips")],
)
def test_wrong_settings(settings, said, tmp_path):
    with pytest.raises(UsageError, match=said):
        edge4d.export(
            Net(), (torch.randn(1, 3, 8, 16, 20),), output=tmp_path / "a.onnx", **{"dynamic": "batch", **settings}
        )


def test_from_the_command_line(tmp_path, capsys):
    torch.save(TwoInputs().state_dict(), tmp_path / "net.pt")
    words = f"export {tmp_path}/net.pt --factory {__name__}:TwoInputs --dynamic batch"
    words += " --input-shape 1x1x4x6x6 --input-shape 1x1x8x6x6"
    assert main(words.split()) == 0
    assert "Nx1x4x6x6 -> Nx1x6x6" in capsys.readouterr().out
