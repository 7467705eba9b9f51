"""Every kind of file gives the same numbers as the network that was saved."""

import hashlib
import importlib
import json
import subprocess
import sys
import zipfile

import pytest
import torch
from torch import nn

from edge4d.errors import LoadError, UsageError
from edge4d.loading import Source, load_model
from tests.loading.nets import Net, clip, make_net, save_program

FACTORY = "tests.loading.nets:build"


@pytest.fixture(scope="module")
def want():
    with torch.no_grad():
        return make_net()(clip())


def same(loaded, want):
    with torch.no_grad():
        got = loaded.module(clip())
    torch.testing.assert_close(got, want, rtol=0, atol=1e-6)


def save_safetensors(path, state):
    header, data = {"__metadata__": {"format": "pt"}}, b""
    names = {torch.float32: "F32", torch.int64: "I64", torch.bfloat16: "BF16"}
    for name, tensor in state.items():
        raw = tensor.contiguous().flatten().view(torch.uint8) if tensor.numel() else torch.empty(0, dtype=torch.uint8)
        raw = bytes(raw.tolist())
        header[name] = {
            "dtype": names[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [len(data), len(data) + len(raw)],
        }
        data += raw
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


def test_exported_program(tmp_path, want):
    path = save_program(tmp_path / "model.bin")
    loaded = load_model(path)
    assert loaded.kind == "exported-program"
    same(loaded, want)
    assert torch.equal(loaded.example_args[0], clip())
    assert loaded.example_kwargs == {}
    torch.testing.assert_close(loaded.program.module()(clip()), want, rtol=0, atol=1e-6)
    assert "layer1.0.conv1.weight" in loaded.program.state_dict


def test_exported_program_with_dynamic_axes_and_nesting(tmp_path):
    class Nested(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv3d(3, 2, 1)
            self.register_buffer("unsaved", torch.ones(2), persistent=False)

        def forward(self, clips, *, gain):
            with torch.no_grad():
                y = self.conv(clips["rgb"]) * gain
            return {"feat/0": y, "pooled": [y.mean() * torch.tensor(2.0), self.unsaved * y.shape[2]]}

    batch, time = torch.export.Dim("batch", min=2, max=8), torch.export.Dim("time", min=4, max=64)
    net = Nested().eval()
    args, kwargs = ({"rgb": clip()},), {"gain": torch.tensor(3.0)}
    shapes = {"clips": {"rgb": {0: batch, 2: time}}, "gain": None}
    torch.export.save(torch.export.export(net, args, kwargs, dynamic_shapes=shapes), str(tmp_path / "m.pt2"))
    loaded = load_model(tmp_path / "m.pt2")
    assert loaded.example_kwargs["gain"].item() == 3.0
    other = clip(3, 3, 6, 8, 8)
    got, want = loaded.module({"rgb": other}, **kwargs), net({"rgb": other}, **kwargs)
    torch.testing.assert_close(got["feat/0"], want["feat/0"])
    torch.testing.assert_close(got["pooled"], want["pooled"])


@pytest.mark.parametrize("how", ["scripted", "traced", "frozen"])
def test_torchscript(tmp_path, want, how):
    net = make_net()
    script = torch.jit.trace(net, clip()) if how == "traced" else torch.jit.script(net)
    script = torch.jit.freeze(script) if how == "frozen" else script
    script.save(tmp_path / "model.pt")
    loaded = load_model(tmp_path / "model.pt")
    assert (loaded.kind, loaded.program, loaded.example_args) == ("torchscript", None, None)
    assert isinstance(loaded.module, torch.jit.ScriptModule)
    same(loaded, want)


def test_torchscript_saved_in_training_mode_is_loaded_in_eval_mode(tmp_path, want):
    torch.jit.script(make_net().train()).save(tmp_path / "model.pt")
    same(load_model(tmp_path / "model.pt"), want)


@pytest.mark.parametrize("zipped", [True, False])
def test_pickled_module(tmp_path, want, zipped):
    path = tmp_path / "model.pt"
    torch.save(make_net().train(), path, _use_new_zipfile_serialization=zipped)
    loaded = load_model(path, trust_pickle=True)
    assert loaded.kind == "module"
    assert not any(part.training for part in loaded.module.modules())
    same(loaded, want)


@pytest.mark.parametrize("zipped", [True, False])
def test_state_dict(tmp_path, want, zipped):
    path = tmp_path / "weights.pth"
    torch.save(make_net().state_dict(), path, _use_new_zipfile_serialization=zipped)
    loaded = load_model(path, factory=FACTORY)
    assert loaded.kind == "state-dict"
    assert not loaded.module.training
    same(loaded, want)


def test_safetensors(tmp_path, want):
    save_safetensors(tmp_path / "m.safetensors", make_net().state_dict())
    loaded = load_model(tmp_path / "m.safetensors", factory=FACTORY)
    assert loaded.kind == "state-dict"
    same(loaded, want)


def test_damaged_safetensors(tmp_path):
    path = tmp_path / "m.safetensors"
    save_safetensors(path, make_net().state_dict())
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    with pytest.raises(LoadError, match=r"damaged safetensors file: .* does not fit the bytes"):
        load_model(path, factory=FACTORY)
    path.write_bytes(whole[:40])
    with pytest.raises(LoadError, match="cut off inside its header"):
        load_model(path, factory=FACTORY)
    header = json.dumps({"w": {"dtype": "F4", "shape": [1], "data_offsets": [0, 4]}}).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    with pytest.raises(LoadError, match="w has the element type F4"):
        load_model(path, factory=FACTORY)


@pytest.mark.parametrize("key", ["state_dict", "model", "model_state_dict", "net"])
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "_orig_mod.module.", "model."])
def test_checkpoints_and_prefixes(tmp_path, want, key, prefix):
    state = {prefix + name: value for name, value in make_net().state_dict().items()}
    path = tmp_path / "checkpoint.pt"
    torch.save({"epoch": 3, "optimizer": {"state": {}, "param_groups": []}, key: state}, path)
    loaded = load_model(path, factory=FACTORY)
    assert loaded.kind == "state-dict"
    same(loaded, want)


def test_module_inside_a_checkpoint(tmp_path, want):
    torch.save({"epoch": 3, "model": nn.DataParallel(make_net())}, tmp_path / "checkpoint.pt")
    loaded = load_model(tmp_path / "checkpoint.pt", trust_pickle=True)
    assert loaded.kind == "module"
    assert isinstance(loaded.module, Net)
    same(loaded, want)


def test_nothing_of_use_inside(tmp_path):
    path = tmp_path / "x.pt"
    torch.save({"epoch": 3, "loss": 0.5}, path)
    with pytest.raises(LoadError, match="no model in it: a dict with the keys 'epoch', 'loss'"):
        load_model(path)
    torch.save(torch.ones(3), path)
    with pytest.raises(LoadError, match="no model in it: a Tensor"):
        load_model(path)


def test_state_dict_without_a_factory_shows_the_command(tmp_path):
    path = tmp_path / "weights.pt"
    torch.save(make_net().state_dict(), path)
    with pytest.raises(LoadError, match=r"a state_dict: 9 weights \(layer1\.0\.scale, .*without the network") as caught:
        load_model(path)
    assert caught.value.hint.endswith(f"edge4d export {path} --factory my_package.my_models:build_model")


def test_a_factory_is_refused_where_the_network_is_in_the_file(tmp_path):
    path = save_program(tmp_path / "model.pt2")
    with pytest.raises(UsageError, match=r"is a torch\.export archive, which holds the network itself"):
        load_model(path, factory=FACTORY)
    torch.jit.script(make_net()).save(tmp_path / "model.pt")
    with pytest.raises(UsageError, match="is a TorchScript archive"):
        load_model(tmp_path / "model.pt", factory=FACTORY)
    torch.save(make_net(), tmp_path / "pickled.pt")
    with pytest.raises(UsageError, match="is a pickled module"):
        load_model(tmp_path / "pickled.pt", factory=FACTORY, trust_pickle=True)


def test_source_is_name_and_hash(tmp_path):
    path = save_program(tmp_path / "model.pt2")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert load_model(str(path)).source == Source("model.pt2", digest)


def test_class_that_cannot_be_imported(tmp_path, monkeypatch):
    (tmp_path / "gone_e4d.py").write_text("import torch\nclass Gone(torch.nn.Conv3d): pass\n")
    with monkeypatch.context() as patch:
        patch.syspath_prepend(str(tmp_path))
        torch.save(importlib.import_module("gone_e4d").Gone(3, 4, 1), tmp_path / "model.pt")
    sys.modules.pop("gone_e4d")
    with pytest.raises(LoadError, match=r"cannot be imported here: .*gone_e4d") as caught:
        load_model(tmp_path / "model.pt", trust_pickle=True)
    assert "folder of the model's source" in caught.value.hint
    # In the folder of its source it loads: the current directory counts, and only while loading.
    monkeypatch.chdir(tmp_path)
    before = list(sys.path)
    assert load_model("model.pt", trust_pickle=True).module.in_channels == 3
    assert sys.path == before
    sys.modules.pop("gone_e4d")


@pytest.mark.parametrize("kind", ["program", "script", "pickle", "legacy"])
@pytest.mark.parametrize("trust", [False, True])
def test_damage_inside_is_reported(tmp_path, kind, trust):
    whole, broken = tmp_path / "whole.pt", tmp_path / "broken.pt"
    if kind == "program":
        save_program(tmp_path / "whole.pt2").rename(whole)
    elif kind == "script":
        torch.jit.script(make_net()).save(whole)
    else:
        torch.save(make_net().state_dict(), whole, _use_new_zipfile_serialization=kind == "pickle")
    if kind == "legacy":
        broken.write_bytes(whole.read_bytes()[:200])
    else:
        member = {"program": "models/model.json", "script": "data.pkl", "pickle": "data.pkl"}[kind]
        with zipfile.ZipFile(whole) as old, zipfile.ZipFile(broken, "w") as new:
            for name in old.namelist():
                data = old.read(name)
                new.writestr(name, data[: len(data) // 2] if name.endswith(member) else data)
    with pytest.raises(LoadError) as caught:
        load_model(broken, trust_pickle=trust, factory=None if kind in ("program", "script") else FACTORY)
    assert "damaged" in caught.value.message or "cannot be read" in caught.value.message
    assert "Traceback" not in caught.value.message
    assert len(caught.value.message) < 700


def test_importing_the_package_does_not_import_torch():
    code = "import sys, edge4d.loading; print(*[m for m in ('torch', 'numpy', 'onnx') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == ""
