"""Hugging Face folders: the numbers of the network that was saved, and nothing fetched or run."""

import json
import logging
import pathlib
import shutil
import sys

import pytest
import torch

import edge4d
from edge4d.checking import check_parity
from edge4d.errors import LoadError, RuntimeUnavailable, UsageError
from edge4d.loading import load_model, resolve_inputs
from edge4d.loading.huggingface import shape_in
from tests.zoo.models import _declare_torchvision_operators

SMALL = {
    "image_size": 32, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32,
    "num_labels": 3,
}  # fmt: skip
NETWORKS = {
    "Timesformer": {"num_frames": 2, "patch_size": 16},
    "VideoMAE": {"num_frames": 4, "patch_size": 16},
    "Vivit": {"num_frames": 4, "tubelet_size": [2, 16, 16]},
}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Each network, and the folder it was saved to; Vivit's in several files."""
    _declare_torchvision_operators()
    import transformers

    logging.disable(logging.WARNING)
    transformers.utils.logging.disable_progress_bar()
    torch.manual_seed(0)
    found = {}
    for name, own in NETWORKS.items():
        config = getattr(transformers, f"{name}Config")(**SMALL, **own)
        network = getattr(transformers, f"{name}ForVideoClassification")(config).eval()
        folder = tmp_path_factory.mktemp("hub") / name
        network.save_pretrained(folder, **({"max_shard_size": "10KB"} if name == "Vivit" else {}))
        found[name] = network, folder
    transformers.utils.logging.enable_progress_bar()
    logging.disable(logging.NOTSET)
    return found


@pytest.fixture
def folder(saved, tmp_path):
    """A copy that a test may spoil."""
    return shutil.copytree(saved["Vivit"][1], tmp_path / "net")


def change(folder, file="config.json", **values):
    read = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps({k: v for k, v in (read | values).items() if v is not None}))


@pytest.mark.parametrize("name", NETWORKS)
def test_same_numbers(saved, name):
    network, folder = saved[name]
    loaded = load_model(folder)
    assert loaded.kind == "huggingface"
    assert not loaded.module.training
    args, said = resolve_inputs(loaded, ())
    frames = NETWORKS[name]["num_frames"]
    assert args[0].shape == (1, frames, 3, 32, 32)
    assert said == f"from config.json: 1x{frames}x3x32x32 (N T C H W)"
    with torch.no_grad():
        torch.testing.assert_close(loaded.module(*args).logits, network(*args).logits, rtol=0, atol=1e-6)
    assert loaded.source.name == name
    assert load_model(folder).source == loaded.source


def test_the_whole_line(saved):
    folder = saved["Timesformer"][1]
    report = edge4d.export(folder, simplify=False)
    assert report.ok
    assert report.path == folder.with_name("Timesformer.onnx")
    assert [port.name for port in report.outputs] == ["logits"]
    recipe = json.loads(report.path.with_name("Timesformer.onnx.json").read_text())
    assert [source["name"] for source in recipe["sources"]] == ["config.json", "model.safetensors"]


def refused(folder, says, trust=False, kind=LoadError):
    with pytest.raises(kind) as caught:
        load_model(folder, trust_pickle=trust)
    assert says in caught.value.message
    assert caught.value.hint
    return caught.value.hint


def test_classes_that_are_not_of_transformers(folder):
    change(folder, architectures=["VivitForVideoClassifcation"])
    assert refused(folder, "is no network of transformers") == "did you mean VivitForVideoClassification?"
    change(folder, architectures=["OwnNet"], auto_map={"AutoModel": "modeling_own.OwnNet"})
    (folder / "modeling_own.py").write_text("raise SystemExit('ran')")
    refused(folder, "it comes with code of its own (auto_map), which is never run")
    for name in ("os", "__doc__", "a.b", "PretrainedConfig", "AutoModel"):
        change(folder, architectures=[name])
        refused(folder, f"{name} is no network of transformers")
    change(folder, architectures=["VideoMAEForVideoClassification"], auto_map=None)
    refused(folder, "config.json is of a 'vivit', but names VideoMAEForVideoClassification")
    change(folder, architectures=None)
    refused(folder, "names no class of its network")
    (folder / "config.json").write_text("[1]")
    refused(folder, "config.json: cannot be read")


def test_folders_of_another_kind(folder):
    change(folder, quantization_config={"quant_method": "bitsandbytes"})
    refused(folder, "a quantized network")
    change(folder, quantization_config=None, use_pretrained_backbone=True)
    refused(folder, "its backbone would be fetched")
    (folder / "adapter_config.json").write_text("{}")
    refused(folder, "a PEFT adapter")


def test_weights_that_do_not_fit(folder):
    change(folder, num_hidden_layers=2)
    refused(folder, "do not fit VivitForVideoClassification\n  missing from the files: vivit.")


def test_weights_that_are_missing(folder):
    (folder / "model-00002-of-00002.safetensors").write_bytes(b"version https://git-lfs.github.com/spec/v1")
    refused(folder, "a Git LFS pointer")
    (folder / "model-00002-of-00002.safetensors").unlink()
    refused(folder, "the file model-00002-of-00002.safetensors is missing")
    (folder / "model.safetensors.index.json").write_text("{}")
    refused(folder, "names no files of weights")
    (folder / "model.safetensors.index.json").unlink()
    refused(folder, "has a config.json but no weights")


@pytest.mark.parametrize("place", ["../outside.safetensors", "/etc/hostname", "sub/x.safetensors", ".."])
def test_no_path_leads_out(folder, place):
    change(folder, "model.safetensors.index.json", weight_map={"a": place})
    refused(folder, f"{place!r}, outside the folder")


def test_no_link_leads_out(folder, tmp_path):
    shard = folder / "model-00002-of-00002.safetensors"
    shutil.move(shard, tmp_path / "elsewhere.safetensors")
    pathlib.Path(shard).symlink_to(tmp_path / "elsewhere.safetensors")
    refused(folder, "is a link that leads out of the folder")


def test_links_within_the_cache_of_the_hub(saved, tmp_path):
    network, folder = saved["VideoMAE"]
    blobs, snapshot = tmp_path / "models--a--b" / "blobs", tmp_path / "models--a--b" / "snapshots" / "1234"
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for file in folder.glob("*.*"):
        shutil.copy(file, blobs / file.name)
        pathlib.Path(snapshot / file.name).symlink_to(f"../../blobs/{file.name}")
    want = dict(network.named_parameters())
    assert all(torch.equal(value, want[name]) for name, value in load_model(snapshot).module.named_parameters())


def test_pickles_need_trust(saved, tmp_path):
    network, original = saved["VideoMAE"]
    folder = tmp_path / "net"
    folder.mkdir()
    shutil.copy(original / "config.json", folder)
    torch.save(network.state_dict(), folder / "pytorch_model.bin")
    assert "--trust-pickle" in refused(folder, "its weights are pickles (pytorch_model.bin)")
    loaded = load_model(folder, trust_pickle=True)
    want = network.state_dict()
    assert all(torch.equal(value, want[name]) for name, value in loaded.module.state_dict().items())


def test_without_transformers(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    hint = refused(folder, "needs transformers, not installed here", kind=RuntimeUnavailable)
    assert hint == "pip install transformers"


def test_shapes():
    assert shape_in({"image_size": [64, 32], "num_frames": 8, "num_channels": 1}) == (1, 8, 1, 64, 32)
    assert shape_in({"crop_size": 256, "frames_per_clip": 64}) == (1, 64, 3, 256, 256)
    assert shape_in({"image_size": 224}) == (1, 3, 224, 224)
    for unknown in ({}, {"num_frames": 8}, {"image_size": "big"}, {"image_size": 32, "num_frames": True}):
        assert shape_in(unknown) is None


def test_a_shape_that_is_not_told(folder):
    loaded = load_model(folder)
    loaded.told = None
    with pytest.raises(UsageError, match="does not tell the shape") as caught:
        resolve_inputs(loaded, ())
    assert "frames before channels" in caught.value.hint
    args, said = resolve_inputs(loaded, [(1, 4, 3, 32, 32)])
    assert args[0].shape == (1, 4, 3, 32, 32)
    assert said == "from --input-shape"
    with pytest.raises(UsageError, match="rejects the input pixel_values: 1x4x3x16x16"):
        resolve_inputs(loaded, [(1, 4, 3, 16, 16)])


def test_a_factory_is_of_no_use(folder):
    with pytest.raises(UsageError, match="a Hugging Face folder, which holds the network itself"):
        load_model(folder, factory="torchvision:r3d_18")


GRID = [[2, 4, 6]]
"""Patches of one clip: two steps in time, four rows, six columns."""


@pytest.fixture(scope="module")
def language_model(tmp_path_factory):
    """A Qwen2-VL with one layer of each kind, and its folder."""
    _declare_torchvision_operators()
    import transformers

    logging.disable(logging.WARNING)
    transformers.utils.logging.disable_progress_bar()
    torch.manual_seed(0)
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1}
    rope = {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 1e4}
    config = transformers.Qwen2VLConfig(
        text_config={
            "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "vocab_size": 64,
            "rope_parameters": rope, "eos_token_id": None, "bos_token_id": None, "pad_token_id": None, **heads,
        },
        vision_config={
            "depth": 1, "embed_dim": 32, "hidden_size": 32, "num_heads": 2, "mlp_ratio": 2, "patch_size": 4,
        },
    )  # fmt: skip
    network = transformers.Qwen2VLForConditionalGeneration(config).eval()
    folder = tmp_path_factory.mktemp("hub") / "Qwen2-VL"
    network.save_pretrained(folder)
    transformers.utils.logging.enable_progress_bar()
    logging.disable(logging.NOTSET)
    return network, folder


def test_the_vision_tower_of_a_language_model(language_model, tmp_path):
    network, folder = language_model
    options = {"submodule": "model.visual", "fix": {"grid_thw": GRID}, "input_shapes": [(48, 96)]}
    report = edge4d.export(folder, output=tmp_path / "t.onnx", simplify=False, **options)
    assert report.ok
    assert [layer.becomes for layer in report.layers if "conv3d" in layer.op] == ["patchify"]
    rows = torch.randn(48, 96)
    with torch.no_grad():
        expected = network.model.visual(rows, grid_thw=torch.tensor(GRID)).pooler_output
    with edge4d.open(tmp_path / "t.onnx") as opened:
        found = torch.from_numpy(opened(rows.numpy())["pooler_output"])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    (compared,) = check_parity(folder, [tmp_path / "t.onnx"], **options).values()
    assert compared.ok


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "--submodule PATH, it seems to be model.visual"),
        ({"submodule": "visual"}, "there is model.visual"),
        ({"submodule": "model.visual", "input_shapes": [(48, 96)]}, "--fix 'NAME="),
        ({"submodule": "model.visual", "fix": {"grid_thw": GRID}, "input_shapes": [(24, 96)]}, "rejects the input"),
    ],
)
def test_a_language_model_leads_to_its_tower(language_model, tmp_path, options, said):
    with pytest.raises(UsageError) as caught:
        edge4d.export(language_model[1], output=tmp_path / "t.onnx", **options)
    assert said in str(caught.value)


def test_a_library_that_cannot_be_imported(saved, monkeypatch):
    import transformers

    usual = type(transformers).__getattr__

    def broken(self, name):
        if name != "VivitForVideoClassification":
            return usual(self, name)
        try:
            raise RuntimeError("operator torchvision::nms does not exist")
        except RuntimeError as error:
            raise ModuleNotFoundError(f"Could not import module {name!r}") from error

    monkeypatch.delattr(transformers, "VivitForVideoClassification", raising=False)
    monkeypatch.setattr(type(transformers), "__getattr__", broken)
    with pytest.raises(
        RuntimeUnavailable, match="cannot import VivitForVideoClassification here: RuntimeError: operator"
    ):
        load_model(saved["Vivit"][1])
