"""The trained example on every runtime that builds here: same numbers, same answers, both at the command line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edge4d import exporters
from edge4d.artifact import open
from edge4d.cli import main
from examples.moving_digits.data import load_images, make_clips, make_test_set

ROOT = Path(__file__).resolve().parents[2]
NETWORK = [
    str(ROOT / "examples/moving_digits/moving_digits.pt"),
    "--factory",
    "examples.moving_digits.model:build",
    "--input-shape",
    "1x1x16x32x32",
]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("digits") / "digits.onnx"
    assert main(["export", *NETWORK, "-o", str(path)]) == 0
    return path


FORMS = [
    ("onnxruntime", ".onnx", ["--level", "all"]),
    ("onnxruntime", ".ort", []),
    ("openvino", ".xml", []),
    ("openvino", ".blob", ["--threads", "1"]),
    ("tensorrt_rtx", ".engine", ["--device", "sm_86", "--device", "sm_120"]),
    ("tensorrt", ".engine", []),
]


@pytest.mark.parametrize(("runtime", "suffix", "options"), FORMS)
def test_the_engine_answers_as_the_network_does(model, tmp_path, capsys, runtime, suffix, options):
    found = exporters.get(runtime).probe()
    if not found.ok:
        pytest.skip(f"{runtime}: {found.why_not}")
    engine = tmp_path / f"engine{suffix}"
    assert main(["build", str(model), "-r", runtime, "-o", str(engine), *options]) == 0
    runs = found.why_not_run is None
    assert main(["parity", NETWORK[0], str(engine), str(model), *NETWORK[1:]]) == (0 if runs else 3)
    if not runs:
        assert "needs an NVIDIA RTX GPU" in capsys.readouterr().err
        return
    # Clips of noise look alike to a network; of moving squares, each engine must name the same direction.
    clips = np.zeros((4, 1, 1, 16, 32, 32), np.float32)
    for i, (dy, dx) in enumerate([(1, 0), (-1, 0), (0, 1), (0, -1)]):
        for t in range(16):
            y, x = 12 + dy * (t - 8), 12 + dx * (t - 8)
            clips[i, 0, 0, t, y : y + 8, x : x + 8] = 1
    with open(model) as reference, open(engine) as opened:
        for clip in clips:
            expected, got = reference(clip)["output"], opened(clip)["output"]
            assert expected.argmax() == got.argmax()
            np.testing.assert_allclose(got, expected, atol=1e-5 * np.ptp(expected))


@pytest.fixture(scope="module")
def scores(model):
    """Clips and labels, and the float32 artifact's answers."""
    clips, labels = make_test_set(96)
    with open(model) as reference:
        return clips, labels, np.concatenate([reference(clip[None])["output"] for clip in clips])


@pytest.mark.parametrize(("precision", "error", "smaller"), [("fp16", 0.005, 0.6), ("int8", 0.2, 0.25)])
def test_fp16_and_int8_give_the_same_answers_on_every_runtime(model, scores, tmp_path, precision, error, smaller):
    np.savez(tmp_path / "clips.npz", clips=make_clips(load_images()[0], 48, 7)[0])
    calib = ["--calib", str(tmp_path / "clips.npz")] if precision == "int8" else []
    path = tmp_path / "reduced.onnx"
    assert main(["export", *NETWORK, "--precision", precision, *calib, "-o", str(path)]) == 0
    assert path.stat().st_size < smaller * model.stat().st_size
    clips, labels, expected = scores
    for runtime, suffix, options in FORMS[1:5]:
        found = exporters.get(runtime).probe()
        if not found.ok:
            continue  # the test above says which are not here
        engine = tmp_path / f"engine{suffix}"
        assert main(["build", str(path), "-r", runtime, "-o", str(engine), *options]) == 0
        if found.why_not_run is not None:
            continue
        with open(engine) as opened:
            got = np.concatenate([opened(clip[None])["output"] for clip in clips])
        assert (np.abs(got - expected).max(1) < error * np.ptp(expected, axis=1)).all()
        assert (got.argmax(1) == expected.argmax(1)).mean() >= 0.97
        assert (got.argmax(1) == labels).mean() >= 0.93
