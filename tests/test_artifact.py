"""The description in an ONNX file, packing by it, and `edge4d.open` on top."""

from __future__ import annotations

import einops
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from edge4d.artifact import open
from edge4d.describing import attach, describe, metadata_of, ports_of
from edge4d.errors import PackingError, UsageError, ValidationError
from edge4d.patterns import parse_pattern
from edge4d.port_arrays import pack, unpack
from edge4d.ports import Port
from tests.onnx_models import CLIP, RESULT, artifact, expected, plain, save


def edited(key, value):
    """The artifact with one entry of its metadata replaced, added, or (None) removed."""
    model = artifact()
    kept = [(e.key, e.value) for e in model.metadata_props if e.key != key]
    del model.metadata_props[:]
    for k, v in [*kept, *([(key, value)] if value is not None else [])]:
        model.metadata_props.add(key=k, value=v)
    return model


@pytest.fixture
def clip(rng):
    return rng.standard_normal(CLIP.shape).astype(np.float32)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def test_a_description_reads_back_as_it_was_written():
    model = artifact()
    assert ports_of(model) == ((CLIP,), (RESULT,))
    metadata = metadata_of(model)
    assert metadata["author"] == "someone"
    assert metadata["edge4d.version"] == "1.2.3"
    assert metadata["edge4d.shape.clip"] == "2x3x4x5x6"
    assert metadata["edge4d.packing.result"] == "n c t h w -> (n t) c h w"


def test_describing_again_replaces_the_former_description():
    model = artifact()
    before = len(model.metadata_props)
    describe(model, [CLIP], [RESULT], version="2", block="exact", source="s")
    assert len(model.metadata_props) == before
    assert metadata_of(model)["edge4d.version"] == "2"


def test_describing_other_ports_than_the_graphs_is_refused():
    other = Port("other", CLIP.shape, CLIP.physical, CLIP.dtype, CLIP.packing)
    with pytest.raises(ValidationError, match=r"inputs other .* are not those of the graph"):
        describe(artifact(), [other], [RESULT], version="1", block="exact", source="s")
    longer = Port("clip", (2, 3, 5, 5, 6), (10, 3, 5, 6), "float32", CLIP.packing)
    with pytest.raises(ValidationError, match="but the graph declares 'clip' as 8x3x5x6"):
        describe(artifact(), [longer], [RESULT], version="1", block="exact", source="s")


def test_describing_a_port_of_another_type_than_the_graphs_is_refused():
    wrong = Port(RESULT.name, RESULT.shape, RESULT.physical, "int16", RESULT.packing)
    with pytest.raises(ValidationError, match="'result' of the outputs is int16, and float32 in the graph"):
        describe(artifact(), [CLIP], [wrong], version="1", block="exact", source="s")


def test_a_file_without_description_has_its_own_shapes():
    (x,), (y,) = ports_of(plain(dtype=TensorProto.INT64, op="Neg"))
    assert x == Port("x", (-1, 3), (-1, 3), "int64")
    assert y.packing is None


def test_inputs_that_are_initializers_are_not_inputs():
    model = artifact()
    model.graph.input.append(helper.make_tensor_value_info("bias", TensorProto.FLOAT, (3, 5, 6)))
    assert [port.name for port in ports_of(model)[0]] == ["clip"]


def test_a_sequence_is_no_tensor():
    model = plain()
    model.graph.output[0].CopyFrom(helper.make_tensor_sequence_value_info("y", TensorProto.FLOAT, (1,)))
    with pytest.raises(ValidationError, match="'y' is a sequence_type"):
        ports_of(model)


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("edge4d.packing.clip", None, "no 'edge4d.packing.clip'"),
        ("edge4d.shape.clip", None, "no 'edge4d.shape.clip'"),
        ("edge4d.shape.clip", "2x3x4x5", "5 names for the 4 axes"),
        ("edge4d.shape.clip", "2x3x0x5x6", "expected sizes"),
        ("edge4d.shape.clip", "-2x3x4x5x6", "expected sizes"),
        ("edge4d.shape.clip", "2x3x4x5x6\n", "expected sizes"),
        ("edge4d.shape.clip", "2x3x٤x5x6", "expected sizes"),
        ("edge4d.shape.clip", "9" * 100_000, "longer than"),
        ("edge4d.shape.clip", "2x3x8x5x6", "into 16x3x5x6, but the graph declares 'clip' as 8x3x5x6"),
        ("edge4d.packing.clip", "__import__('os').system('true')", "exactly one '->'"),
        ("edge4d.packing.clip", "n c t h w -> ((n t) c) h w", "nested"),
        ("edge4d.packing.clip", "n c t h w -> (n t c h w", "without '\\)'"),
        ("edge4d.packing.clip", "n c t h w -> (n t) c h h", "every name"),
        ("edge4d.packing.clip", "n c t h w -> n c t h w", "5 physical axes"),
        ("edge4d.packing.clip", "n c t h w -> (n c) t h w", "but the graph declares"),
        ("edge4d.packing.clip", "n c t h w -> (" + "n " * 600 + ")", "longer than"),
    ],
)
def test_a_malformed_description_is_a_clear_error(key, value, said):
    with pytest.raises(ValidationError, match=said) as caught:
        ports_of(edited(key, value))
    assert "clip" in caught.value.message
    assert len(caught.value.message) < 500
    assert caught.value.hint


def test_a_key_twice_with_different_values_is_refused():
    model = artifact()
    model.metadata_props.add(key="edge4d.shape.clip", value="1x3x8x5x6")
    with pytest.raises(ValidationError, match="twice"):
        ports_of(model)


def test_a_description_of_something_else_is_ignored():
    port = Port("x", (1, 2), (1, 2), "float32")
    assert attach([port], {"edge4d.shape.gone": "1x2", "edge4d.packing.gone": "???"}) == (port,)


# ---- packing ----------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.data())
def test_packing_is_what_einops_does_and_unpacking_undoes_it(data):
    rank = data.draw(st.integers(5, 7))
    shape = tuple(data.draw(st.lists(st.integers(1, 3), min_size=rank, max_size=rank)))
    names = [f"a{i}" for i in range(rank)]
    order = data.draw(st.permutations(names))
    cuts = sorted(data.draw(st.sets(st.integers(1, rank - 1), min_size=0, max_size=3)))
    groups = [order[a:b] for a, b in zip([0, *cuts], [*cuts, rank], strict=True)]
    pattern = f"{' '.join(names)} -> " + " ".join(f"({' '.join(g)})" for g in groups)
    port = Port("x", shape, parse_pattern(pattern, shape).physical_shape, "float32", pattern)
    array = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    packed = pack(array, port)
    np.testing.assert_array_equal(packed, einops.rearrange(array, pattern))
    assert packed.flags.c_contiguous
    np.testing.assert_array_equal(unpack(packed, port), array)


def test_an_unpacked_port_passes_arrays_through_contiguous():
    port = Port("x", (-1, 3), (-1, 3), "float32")
    array = np.arange(6, dtype=np.float32).reshape(3, 2).T
    assert pack(array, port).flags.c_contiguous
    np.testing.assert_array_equal(pack(array, port), array)
    assert pack(np.zeros((), np.float32), Port("s", (), (), "float32")).shape == ()


def test_a_wrong_shape_says_which_input_got_and_expected(clip):
    with pytest.raises(PackingError, match=r"'clip': got shape 2x3x4x5x5, expected 2x3x4x5x6 \(n c t h w\)") as caught:
        pack(clip[..., :5], CLIP)
    assert "packed already" not in caught.value.message


def test_an_array_packed_already_is_told_so(clip):
    with pytest.raises(PackingError, match=r"8x3x5x6, expected 2x3x4x5x6.*packed already"):
        pack(pack(clip, CLIP), CLIP)


def test_a_missing_batch_axis_is_told_so():
    with pytest.raises(PackingError, match="batch axis is missing"):
        pack(np.zeros((3, 4), np.float32), Port("x", (1, 3, 4), (1, 3, 4), "float32"))


def test_another_dtype_is_refused_not_cast(clip):
    with pytest.raises(PackingError, match="got dtype float64, the graph takes float32") as caught:
        pack(clip.astype(np.float64), CLIP)
    assert "astype('float32')" in (caught.value.hint or "")


def test_the_other_byte_order_is_the_same_dtype(clip):
    swapped = clip.astype(clip.dtype.newbyteorder())
    np.testing.assert_array_equal(pack(swapped, CLIP), pack(clip, CLIP))
    assert pack(swapped, CLIP).dtype.isnative


def test_an_output_of_another_shape_than_declared_is_refused():
    with pytest.raises(PackingError, match="'result': got shape 4x3x5x6, the file declares 8x3x5x6"):
        unpack(np.zeros((4, 3, 5, 6), np.float32), RESULT)


# ---- open -------------------------------------------------------------------------------------------------------


def test_open_takes_and_gives_logical_arrays(tmp_path, clip):
    with open(save(artifact(), tmp_path / "m.onnx"), threads=1) as model:
        assert model.inputs == (CLIP,)
        assert model.outputs == (RESULT,)
        by_position, by_name = model(clip), model(clip=clip)
    assert list(by_position) == ["result"]
    np.testing.assert_array_equal(by_position["result"], expected(clip))
    np.testing.assert_array_equal(by_name["result"], expected(clip))


def test_open_takes_a_torch_tensor(tmp_path, clip):
    import torch

    with open(save(artifact(), tmp_path / "m.onnx")) as model:
        np.testing.assert_array_equal(model(torch.from_numpy(clip))["result"], expected(clip))


def test_open_works_on_a_file_of_any_origin(tmp_path):
    with open(save(plain(), tmp_path / "m.onnx"), runtime="onnxruntime") as model:
        np.testing.assert_array_equal(model(np.full((7, 3), -1, np.float32))["y"], np.zeros((7, 3)))


@pytest.mark.parametrize(
    ("positional", "named", "said"),
    [
        (0, [], "needs the inputs 'clip'"),
        (2, [], "takes 1 inputs"),
        (1, ["clip"], "by position and by name"),
        (0, ["clap"], "no input 'clap'"),
    ],
)
def test_wrong_arguments_are_named(tmp_path, clip, positional, named, said):
    with open(save(artifact(), tmp_path / "m.onnx")) as model, pytest.raises(UsageError, match=said):
        model(*[clip] * positional, **dict.fromkeys(named, clip))


def test_a_nearly_right_name_is_suggested(tmp_path, clip):
    with open(save(artifact(), tmp_path / "m.onnx")) as model, pytest.raises(UsageError) as caught:
        model(clap=clip)
    assert caught.value.hint == "did you mean 'clip'?"


def test_a_malformed_description_names_the_file(tmp_path):
    path = save(edited("edge4d.packing.clip", "nonsense"), tmp_path / "m.onnx")
    with pytest.raises(ValidationError, match=r"m\.onnx: 'edge4d\.packing\.clip'"):
        open(path)


def test_a_closed_model_says_so(tmp_path, clip):
    model = open(save(artifact(), tmp_path / "m.onnx"))
    model.close()
    model.close()
    with pytest.raises(UsageError, match="closed"):
        model(clip)


def test_a_suffix_that_no_runtime_has(tmp_path):
    with pytest.raises(UsageError, match="cannot tell the runtime"):
        open(tmp_path / "m.weird")
