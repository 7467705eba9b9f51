"""Running engines: the steps, on a fake GPU; where there is a real one, the conformance suite runs them on it."""

from __future__ import annotations

import json
import sys
import types

import numpy as np
import pytest

from edge4d.artifact import open
from edge4d.errors import PackingError, RuntimeFailed, RuntimeUnavailable, UsageError, ValidationError
from edge4d.exporters.cuda import Cuda, why_no_gpu
from edge4d.exporters.tensorrt import TensorRt, TensorRtRtx
from edge4d.files import sha256_of
from tests.exporters.fake_gpu import ENGINE, FakeCuda, FakeTensorRt
from tests.onnx_models import CLIP, PATTERN, RESULT, expected

METADATA = {
    f"edge4d.{what}.{name}": value
    for name in ("clip", "result")
    for what, value in (("shape", "2x3x4x5x6"), ("packing", PATTERN))
}


@pytest.fixture
def cuda(monkeypatch):
    fake = FakeCuda()
    for name in ("cuda", "cuda.bindings"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", fake)
    return fake


@pytest.fixture(params=["tensorrt", "tensorrt_rtx"])
def trt(request, cuda, monkeypatch):
    fake = FakeTensorRt(cuda, request.param)
    monkeypatch.setitem(sys.modules, request.param, fake)
    return fake


def write(path, trt, data=ENGINE):
    """An engine and its recipe."""
    path.write_bytes(data)
    recipe = {
        "step": f"build {trt.__name__}",
        "files": {path.name: {"sha256": sha256_of(path), "bytes": len(data)}},
        "engine": {"version": "1.2.3", "devices": ["sm_86"], "metadata": METADATA},
    }
    path.with_name(f"{path.name}.json").write_text(json.dumps(recipe))
    return path


@pytest.fixture
def engine(trt, tmp_path):
    return write(tmp_path / "m.engine", trt)


@pytest.fixture
def clip():
    return np.random.default_rng(0).standard_normal(CLIP.shape).astype(np.float32)


@pytest.mark.parametrize("cuda_graph", [False, True])
def test_it_computes_what_the_engine_computes(engine, cuda, clip, cuda_graph):
    with open(engine, cuda_graph=cuda_graph) as opened:
        assert (opened.inputs, opened.outputs) == ((CLIP,), (RESULT,))
        for sign in (1, -1, 2):
            np.testing.assert_array_equal(opened(sign * clip)["result"], expected(sign * clip))
        assert opened.session.spent.keys() == {"compute", "copies"}
        assert all(part >= 0 for part in opened.session.spent.values())
        assert opened.session.details["cuda_graph"] is cuda_graph
    assert cuda.calls.count("cudaStreamBeginCapture") == cuda_graph
    assert cuda.calls.count("cudaGraphLaunch") == 2 * cuda_graph
    assert not cuda.held, "not given back"


def test_what_it_returns_is_the_callers_own(engine, clip):
    with open(engine) as opened:
        first = opened(clip)["result"]
        opened(2 * clip)
        np.testing.assert_array_equal(first, expected(clip))
    np.testing.assert_array_equal(first, expected(clip))


def test_other_sizes_get_other_buffers_and_another_graph(engine, cuda):
    with open(engine, cuda_graph=True) as opened:
        session = opened.session
        for size in (8, 4, 4, 8):
            x = np.full((size, 3, 5, 6), size, np.float32)
            bias = np.arange(90, dtype=np.float32).reshape(3, 5, 6)
            np.testing.assert_array_equal(session.run({"clip": x})["result"], x + bias)
        assert sum(type(what).__name__.startswith("c_char") for what in cuda.held.values()) == 4
        with pytest.raises(PackingError, match=r"input 'clip' takes \(-1, 3, 5, 6\), got \(9, 3, 5, 6\)"):
            session.run({"clip": np.zeros((9, 3, 5, 6), np.float32)})
        np.testing.assert_array_equal(session.run({"clip": np.zeros((8, 3, 5, 6), np.float32)})["result"][3], bias)
    assert not cuda.held


def test_wrong_feeds_are_explained(engine, clip):
    with open(engine) as opened:
        session = opened.session
        with pytest.raises(UsageError, match="takes the inputs clip, got other"):
            session.run({"other": clip})
        with pytest.raises(PackingError, match="takes float32, got float64"):
            session.run({"clip": np.zeros(CLIP.physical)})
        with pytest.raises(PackingError, match=r"got \(3, 5, 6\)"):
            session.run({"clip": np.zeros((3, 5, 6), np.float32)})
    with pytest.raises(UsageError, match="the session is closed"):
        session.run({"clip": clip})
    session.close()


def test_a_gpu_that_fails_is_reported(engine, trt, cuda, clip):
    with open(engine) as opened:
        trt.fails = True
        with pytest.raises(RuntimeFailed, match=r"m\.engine failed while running"):
            opened(clip)
    with open(engine) as opened:
        cuda.memory_is_full = True
        with pytest.raises(RuntimeFailed, match=r"cudaMalloc(Host)? failed: cudaErrorMemoryAllocation"):
            opened(clip)


def test_an_engine_of_another_gpu_is_told_from_a_damaged_one(engine, trt):
    write(engine, trt, b"for another GPU")
    with pytest.raises(
        ValidationError, match=r"refuses it: it was built for sm_86; The engine plan file is gen"
    ) as error:
        open(engine)
    assert "build it again for this machine" in error.value.hint
    engine.write_bytes(b"for another GPu")
    with pytest.raises(ValidationError, match=r"is not the file that its recipe m\.engine\.json describes"):
        open(engine)


def test_an_engine_of_another_version_is_refused_before_the_runtime_sees_it(engine, trt):
    trt.__version__ = "1.3.0"
    with pytest.raises(ValidationError, match=rf"was built by {trt.__name__} 1\.2\.3, here is 1\.3\.0"):
        open(engine)


def test_an_engine_without_recipe_has_packed_ports_alone(engine, trt):
    engine.with_name("m.engine.json").unlink()
    exporter = {"tensorrt": TensorRt, "tensorrt_rtx": TensorRtRtx}[trt.__name__]()
    with exporter.open(engine) as session:
        assert session.metadata == {}
        assert session.inputs[0].physical == (-1, 3, 5, 6)


def test_without_a_gpu_it_says_what_it_needs(engine, trt, cuda):
    cuda.devices = 0
    with pytest.raises(RuntimeUnavailable, match=r"needs an NVIDIA .*GPU: CUDA finds none \(cudaErrorNoDevice\)"):
        open(engine)


def test_without_bindings_it_says_what_to_install(engine, monkeypatch):
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", None)
    assert "pip install" in why_no_gpu()


def test_the_real_bindings_take_our_calls():
    """Without a driver each call fails with CUDA's own code, and not for a wrong number or kind of arguments."""
    runtime = pytest.importorskip("cuda.bindings.runtime", reason="cuda-bindings is not installed")
    if why_no_gpu() is None:
        pytest.skip("there is a GPU: the conformance suite makes the calls in earnest")
    cuda = Cuda.__new__(Cuda)
    cuda._runtime, cuda.stream = runtime, runtime.cudaStream_t(0)
    cuda._device_memory, cuda._host_memory, cuda._events, cuda._graphs = [], [], [], []
    event, block = runtime.cudaEvent_t(0), np.zeros(4, np.uint8)
    calls = {
        "cudaStreamCreate": Cuda,
        "cudaMalloc": lambda: cuda.device_memory(4),
        "cudaMallocHost": lambda: cuda.pinned(4),
        "cudaMemcpyAsync": lambda: cuda.to_device(0, block),
        "cudaMemcpyAsync ": lambda: cuda.to_host(block, 0),
        "cudaEventCreate": cuda.event,
        "cudaEventRecord": lambda: cuda.mark(event),
        "cudaEventElapsedTime": lambda: cuda.milliseconds(event, event),
        "cudaStreamSynchronize": cuda.wait,
        "cudaStreamBeginCapture": cuda.begin_capture,
        "cudaStreamEndCapture": cuda.end_capture,
        "cudaGraphInstantiate": lambda: cuda._do("cudaGraphInstantiate", runtime.cudaGraph_t(0), 0),
        "cudaGraphDestroy": lambda: cuda._do("cudaGraphDestroy", runtime.cudaGraph_t(0)),
        "cudaGraphLaunch": lambda: cuda.launch(runtime.cudaGraphExec_t(0)),
        "cudaGraphExecDestroy": lambda: cuda._give_back(cudaGraphExecDestroy=[runtime.cudaGraphExec_t(0)]),
        "cudaEventDestroy": lambda: cuda._give_back(cudaEventDestroy=[event]),
        "cudaFree": lambda: cuda._give_back(cudaFree=[0]),
        "cudaFreeHost": lambda: cuda._give_back(cudaFreeHost=[0]),
        "cudaStreamDestroy": cuda.close,
    }
    for name, call in calls.items():
        with pytest.raises(RuntimeFailed, match=f"{name.strip()} failed: cudaError"):
            call()
