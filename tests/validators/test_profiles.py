"""Device profiles: their files, and graphs held against them."""

from __future__ import annotations

import re

import pytest
from onnx import TensorProto

from edge4d.errors import UsageError
from edge4d.validators import check_rank
from edge4d.validators.profile import KINDS, load_profile, shipped_profiles
from tests.validators import onnx_models as zoo
from tests.validators.onnx_models import floats, function, model, node, value

FIRST_SET = "coreml edgetpu ethos-u kneron nnapi rknn tensorrt-dla tflite-gpu tidl webnn".split()  # noqa: SIM905

HEAD = 'format = 1\nname = "mine"\ntitle = "My NPU"\ntoolchain = "1.0"\n'
WHENCE = """
states = "so it is"
source = "https://example.org/a"
versions = "1"
read = 2026-01-02
confidence = "document"
"""


def profile(tmp_path, *bounds, head=HEAD):
    path = tmp_path / "mine.toml"
    path.write_text(head + "".join(f"\n[[bound]]\n{bound}\n{WHENCE}" for bound in bounds))
    return load_profile(str(path))


def codes(proto, held):
    return sorted(f.code for f in check_rank(proto, None, profile=held).findings)


# ---- files --------------------------------------------------------------------------------------------------------


def test_the_first_set_is_there_and_every_limit_is_cited():
    shipped = shipped_profiles()
    assert [p.name for p in shipped] == FIRST_SET == [p.path.stem for p in shipped]
    for held in shipped:
        for bound in held.bounds:
            assert bound.source.startswith("https://")
            assert bound.confidence != "own"
            assert bound.versions
            assert re.search(r"read 20\d\d-\d\d-\d\d", bound.cited)


def test_unknown_profiles_say_which_there_are():
    with pytest.raises(UsageError, match="no profile 'rkn'") as caught:
        load_profile("rkn")
    assert "did you mean rknn?" in (caught.value.hint or "")
    with pytest.raises(UsageError, match="no such file"):
        load_profile("none.toml")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "lacks 'format'"),
        ("format = 2\n" + HEAD[11:] + "bound = [1]", "reads 1"),
        (HEAD, "lacks 'bound'"),
        (HEAD + "bound = []", "states no limit"),
        (HEAD + "bound = [1]", "no table"),
        (HEAD.replace("mine", "My!") + "bound = [1]", "lower-case"),
        (HEAD + '[[bound]]\nkind = "speed"', "expected one of: rank"),
        (HEAD + '[[bound]]\nkind = "rank"\n' + WHENCE, "lacks 'max'"),
        (HEAD + '[[bound]]\nkind = "rank"\nmax = "4"\n' + WHENCE, "expected an integer"),
        (HEAD + '[[bound]]\nkind = "rank"\nmax = 0\n' + WHENCE, "max at least 1"),
        (HEAD + '[[bound]]\nkind = "rank"\nmaxx = 4\n' + WHENCE, "unknown key 'maxx'"),
        (HEAD + '[[bound]]\nkind = "forbidden"\noperators = ["Conv2d"]\n' + WHENCE, "ONNX has no 'Conv2d'"),
        (HEAD + '[[bound]]\nkind = "rank"\nmax = true\n' + WHENCE, "expected an integer"),
        (HEAD + '[[bound]]\nkind = "rank"\nmax = -1\n' + WHENCE, "0 <= min <= max"),
        (HEAD + '[[bound]]\nkind = "rank"\nmaximum = 4\nmax = 4\n' + WHENCE, "unknown key 'maximum'"),
        (HEAD + '[[bound]]\nkind = "stride"\noperators = ["Conv"]\n' + WHENCE, "limits nothing"),
        (HEAD + '[[bound]]\nkind = "forbidden"\noperators = []\n' + WHENCE, "names of operators"),
        (HEAD + '[[bound]]\nkind = "static"\n' + WHENCE.replace("https", "ftp"), "an https address"),
        (HEAD + '[[bound]]\nkind = "static"\n' + WHENCE.replace("document", "rumour"), "confidence 'rumour'"),
        (HEAD + '[[bound]]\nkind = "static"\n' + WHENCE.replace("2026-01-02", '"today"'), "expected a date"),
        (
            HEAD + '[[bound]]\nkind = "kernel"\nmax = 1\naxis = "depth"\noperators = ["Conv"]\n' + WHENCE,
            "height, width",
        ),
        ("a = [", "cannot be read"),
        ("a = " + "[" * 5000, "cannot be read"),
    ],
)
def test_files_are_checked(tmp_path, text, says):
    path = tmp_path / "p.toml"
    path.write_text(text)
    with pytest.raises(UsageError, match=re.escape(says)) as caught:
        load_profile(str(path))
    assert "p.toml" in caught.value.message


# ---- limits -------------------------------------------------------------------------------------------------------


def conv(kernel=(3, 3), **attributes):
    w = floats("w", 4, 4, *kernel)
    return model(node("Conv", "x w", "y", **attributes), weights=[w], outputs=[("y", None)])


RELU5 = model(node("Relu", "x", "y"), inputs=[("x", [1, 1, 4, 8, 8])], outputs=[("y", None)])
BIG = model(node("Relu", "x", "y"), inputs=[("x", [7, 4, 8, 9000])], outputs=[("y", None)])
DYNAMIC = zoo.dynamic_sizes()

CASES = {
    # kind and its keys: (models that break it, models that keep it, models of which nothing tells it)
    "rank\nmax = 4": ([RELU5], [BIG, DYNAMIC], []),
    'rank\nmax = 4\noperators = ["Conv"]': ([zoo.conv3d()], [RELU5, conv()], []),
    "spatial-axes": ([zoo.conv3d()], [RELU5, conv()], []),
    'forbidden\noperators = ["Relu"]': ([RELU5], [conv()], []),
    'kernel\noperators = ["Conv"]\nmax = 5': ([conv((7, 3)), conv(kernel_shape=[3, 6])], [conv((5, 5)), RELU5], []),
    'kernel\noperators = ["Conv"]\nmax = 5\naxis = "height"': ([conv((7, 3))], [conv((3, 7))], []),
    'dilated-kernel\noperators = ["Conv"]\nmax = 5': ([conv(dilations=[3, 1])], [conv(dilations=[2, 2]), conv()], []),
    'stride\noperators = ["Conv"]\nmin = 1\nmax = 2': ([conv(strides=[1, 3])], [conv(strides=[2, 2]), conv()], []),
    'stride\noperators = ["Conv"]\nmax = 2\naxis = "width"': ([conv(strides=[1, 3])], [conv(strides=[3, 1])], []),
    "size\nmax = 8192": ([BIG], [RELU5], [DYNAMIC]),
    "batch\nmax = 4": ([BIG], [RELU5], [DYNAMIC]),
    "inner-axes\nmax = 3": ([BIG], [RELU5, conv()], [DYNAMIC]),
    "static": ([DYNAMIC], [BIG], []),
    "opset\nmin = 11\nmax = 17": ([BIG], [model(node("Relu", "x", "y"), opset=13)], []),
}  # fmt: skip


def test_every_kind_has_a_case():
    assert {key.split("\n")[0] for key in CASES} == set(KINDS)


@pytest.mark.parametrize("key", CASES)
def test_limits(tmp_path, key):
    kind, _, rest = key.partition("\n")
    held = profile(tmp_path, f'kind = "{kind}"\n{rest}')
    breaking, keeping, unknown = CASES[key]
    for proto in breaking:
        report = check_rank(proto, None, profile=held)
        assert (report.verdict, report.exit_code) == ("fail", 1)
        assert {f.code for f in report.findings} <= {"E4D001", "E4D003", "E4D101"}
        assert all("https://example.org/a" in (f.source or "") for f in report.findings)
    for proto in keeping:
        assert codes(proto, held) == []
    for proto in unknown:
        report = check_rank(proto, None, profile=held)
        assert (report.verdict, report.exit_code) == ("unknown", 1)
        assert [f.code for f in report.findings] == ["E4D102"]


def test_an_unknown_rank_is_never_a_pass(tmp_path):
    for key in CASES:
        kind, _, rest = key.partition("\n")
        held = profile(tmp_path, f'kind = "{kind}"\n{rest}')
        assert "E4D002" in codes(zoo.unknown_operator(), held)


def test_several_limits_that_one_node_breaks_are_all_told(tmp_path):
    held = profile(
        tmp_path,
        'kind = "stride"\noperators = ["Conv"]\nmax = 2',
        'kind = "kernel"\noperators = ["Conv"]\nmax = 2',
        'kind = "batch"\nmax = 1\noperators = ["Conv"]',
    )
    assert codes(conv(strides=[3, 3]), held) == ["E4D101", "E4D101"]


def test_nodes_of_functions_and_subgraphs_are_held_against_limits(tmp_path):
    held = profile(tmp_path, 'kind = "stride"\noperators = ["MaxPool"]\nmax = 2')
    pool = node("MaxPool", "a", "d", kernel_shape=[3, 3], strides=[3, 3])
    call = node("F", "x", "y", domain="my")
    proto = model(call, functions=[function("F", "a", "d", [pool])], outputs=[("y", None)])
    assert codes(proto, held) == ["E4D101"]
    then = zoo.branch("t", "t", node("MaxPool", "x", "t", kernel_shape=[3, 3], strides=[3, 3]))
    other = zoo.branch("e", "e", node("Neg", "x", "e"))
    gate = node("If", "c", "y", then_branch=then, else_branch=other)
    assert codes(model(gate, inputs=[zoo.X, value("c", [], TensorProto.BOOL)], outputs=[("y", None)]), held) == [
        "E4D101"
    ]


def test_the_stricter_rank_counts(tmp_path):
    held = profile(tmp_path, 'kind = "rank"\nmax = 5')
    assert check_rank(RELU5, None, profile=held).ok
    report = check_rank(RELU5, 4, profile=held)
    assert not report.ok
    assert report.settings == {"max_rank": 4, "profile": "mine"}
    assert all(f.source is None for f in report.findings)


@pytest.mark.parametrize("name", FIRST_SET)
def test_shipped_profiles_on_a_3d_and_a_2d_network(name):
    held = load_profile(name)
    wide = check_rank(zoo.conv3d(), None, profile=held)
    assert wide.verdict == ("pass" if name == "coreml" else "fail")
    assert check_rank(zoo.conv2d(), None, profile=held).verdict == "pass"
    assert check_rank(zoo.unknown_operator(), None, profile=held).verdict in ("unknown", "fail")


def test_the_edge_tpu_is_about_sizes_not_ranks():
    held = load_profile("edgetpu")
    frames = model(node("Relu", "x", "y"), inputs=[("x", [16, 3, 8, 8])], outputs=[("y", None)])
    one = model(node("Relu", "x", "y"), inputs=[("x", [1, 1, 1, 3, 8, 8])], outputs=[("y", None)])
    assert codes(frames, held) == ["E4D101", "E4D101"]
    assert codes(one, held) == []
