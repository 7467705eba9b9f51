"""Every kind of wrong file is called by its name, without a traceback and with something to do."""

import json
import struct
import zipfile
import zlib

import onnx
import pytest
import torch
from onnx import TensorProto, helper

from edge4d.errors import LoadError
from edge4d.loading import load_model
from edge4d.loading.sniff import Format, sniff
from tests.loading.nets import make_net, save_program


def png():
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0\0")) + chunk(b"IEND", b"")


STRANGERS = {
    "png": (png(), "a PNG image"),
    "jpeg": (b"\xff\xd8\xff\xe0\x00\x10JFIF\x00", "a JPEG image"),
    "hdf5": (b"\x89HDF\r\n\x1a\n" + bytes(100), "HDF5"),
    "tflite": (b"\x1c\x00\x00\x00TFL3" + bytes(50), "a TFLite model"),
    "numpy": (b"\x93NUMPY\x01\x00" + bytes(90), "NumPy array"),
    "gzip": (b"\x1f\x8b\x08\x00" + bytes(30), "gzip"),
    "text": (b"epoch,loss\n1,0.5\n2,0.4\n", 'text file, not a model; it begins "epoch,loss"'),
    "json": ('{"größe": 3}'.encode(), "a text file"),
    "lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 3\n", "Git LFS pointer"),
    "html": (b"<!DOCTYPE html><html><body>404</body></html>", "a web page"),
    "noise": (bytes(range(130, 256)) * 10, "begins with the bytes 82 83"),
    "long text": (("x" + "ä" * 5001).encode(), "a text file"),  # the head ends inside a character
}


@pytest.mark.parametrize("name", STRANGERS)
def test_other_files_named_pt(tmp_path, name):
    data, says = STRANGERS[name]
    path = tmp_path / "model.pt"
    path.write_bytes(data)
    with pytest.raises(LoadError) as caught:
        load_model(path)
    assert says in caught.value.message
    assert str(path) in caught.value.message
    assert caught.value.hint


def test_an_artifact_is_sent_to_verify(tmp_path):
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, [1]) for n in "xy")
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", [x], [y])
    model = helper.make_model(graph, producer_name="pytorch", opset_imports=[helper.make_opsetid("", 18)])
    path = tmp_path / "model.pt"
    onnx.save(model, path)
    assert sniff(path) is Format.ONNX
    helper.set_model_props(model, {"edge4d.version": "1"})
    onnx.save(model, path)
    with pytest.raises(LoadError, match="already an artifact of edge4d") as caught:
        load_model(path)
    assert caught.value.hint == f"to check this file run: edge4d verify {path}"


def test_missing_file_with_a_near_name(tmp_path):
    (tmp_path / "model.pt2").write_bytes(b"x")
    with pytest.raises(LoadError, match="no such file") as caught:
        load_model(tmp_path / "modle.pt2")
    assert caught.value.hint == f"did you mean {tmp_path / 'model.pt2'}?"
    with pytest.raises(LoadError) as caught:
        load_model(tmp_path / "nowhere" / "model.pt2")
    assert "does not exist either" in caught.value.hint


def test_directories(tmp_path):
    with pytest.raises(LoadError, match="is a directory"):
        load_model(tmp_path)
    (tmp_path / "weights.pth").write_bytes(b"x")
    with pytest.raises(LoadError) as caught:
        load_model(tmp_path)
    assert caught.value.hint == f"give one file: {tmp_path / 'weights.pth'}"
    (tmp_path / "saved_model.pb").write_bytes(b"x")
    with pytest.raises(LoadError, match="TensorFlow SavedModel"):
        load_model(tmp_path)


def test_empty_file(tmp_path):
    (tmp_path / "model.pt").touch()
    with pytest.raises(LoadError, match="the file is empty"):
        load_model(tmp_path / "model.pt")


@pytest.mark.parametrize("kept", [0.05, 0.5, 0.999])
def test_truncated_archives(tmp_path, kept):
    whole = save_program(tmp_path / "whole.pt2").read_bytes()
    cut = tmp_path / "cut.pt2"
    cut.write_bytes(whole[: int(len(whole) * kept)])
    with pytest.raises(LoadError, match="cut off or damaged"):
        load_model(cut)


def test_zip_of_something_else(tmp_path):
    path = tmp_path / "model.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("[Content_Types].xml", "<x/>")
    with pytest.raises(LoadError, match="an Office document"):
        load_model(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", "{}")
        archive.writestr("metadata.json", "{}")
    with pytest.raises(LoadError, match="a Keras model"):
        load_model(path)


def test_old_export_archive_is_named(tmp_path):
    path = tmp_path / "model.pt2"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("version", "7.3")
        archive.writestr("serialized_exported_program.json", "{}")
    with pytest.raises(LoadError, match=r"PyTorch 2\.7 or older"):
        load_model(path)


@pytest.mark.parametrize("name", ["../evil.txt", "a/../../evil.txt", "/evil.txt", "a\\..\\evil.txt", "C:evil.txt"])
@pytest.mark.parametrize("trust", [False, True])
def test_members_outside_the_archive(tmp_path, name, trust):
    path = tmp_path / "inner" / "model.pt2"
    path.parent.mkdir()
    save_program(path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(name, "evil")
    with pytest.raises(LoadError, match="points outside it"):
        load_model(path, trust_pickle=trust)
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["inner", "model.pt2"]


def test_two_members_of_one_name(tmp_path):
    path = save_program(tmp_path / "model.pt2")
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr("model/models/model.json", "{}")
    with pytest.raises(LoadError, match="two members of one name"):
        load_model(path)


def test_decompression_bomb(tmp_path):
    path = tmp_path / "model.pt2"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("m/archive_format", bytes(100 << 20))
    with pytest.raises(LoadError, match="decompression bomb"):
        load_model(path)


def test_the_content_decides_not_the_name(tmp_path):
    net = make_net()
    odd = tmp_path / "holiday.png"
    torch.save(net.state_dict(), odd)
    assert sniff(odd) is Format.PICKLE
    torch.save(net.state_dict(), odd, _use_new_zipfile_serialization=False)
    assert sniff(odd) is Format.PICKLE
    save_program(tmp_path / "m.pt2").rename(odd)
    assert sniff(odd) is Format.PROGRAM
    torch.jit.script(net).save(odd)
    assert sniff(odd) is Format.TORCHSCRIPT
    header = json.dumps({"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    odd.write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    assert sniff(odd) is Format.SAFETENSORS
