"""A CUDA and a TensorRT that compute on the host, to test the steps of running an engine where there is no GPU.

As on a GPU, nothing that is put into a stream has happened before the stream is waited for, what is captured does not
happen at all, and what is not given back is missed.
"""

from __future__ import annotations

import ctypes
import time
import types
from collections import deque
from enum import Enum

import numpy as np

ENGINE = b"an engine of the fake"


class Status(Enum):
    cudaSuccess = 0
    cudaErrorMemoryAllocation = 2
    cudaErrorNoDevice = 100


class Kind(Enum):
    cudaMemcpyHostToDevice = 1
    cudaMemcpyDeviceToHost = 2


class Mode(Enum):
    cudaStreamCaptureModeRelaxed = 2


class FakeCuda(types.ModuleType):
    """The functions of `cuda.bindings.runtime` that edge4d calls."""

    cudaMemcpyKind, cudaStreamCaptureMode = Kind, Mode

    def __init__(self, devices=1):
        super().__init__("cuda.bindings.runtime")
        self.devices = devices
        self.held = {}  # handle or address -> what it is
        self.queue = deque()
        self.captured = None
        self.calls = []
        self.memory_is_full = False

    def __getattribute__(self, name):
        found = super().__getattribute__(name)
        if name.startswith("cuda") and callable(found) and not isinstance(found, type):
            self.calls.append(name)
        return found

    def submit(self, work):
        (self.queue if self.captured is None else self.captured).append(work)

    def _new(self, what):
        handle = 1000 + len(self.calls)
        self.held[handle] = what
        return Status.cudaSuccess, handle

    def _gone(self, handle, kind):
        assert isinstance(self.held.pop(handle), kind)
        return (Status.cudaSuccess,)

    def cudaGetDeviceCount(self):
        return (Status.cudaSuccess, self.devices) if self.devices else (Status.cudaErrorNoDevice, 0)

    def cudaMalloc(self, size):
        if self.memory_is_full:
            return Status.cudaErrorMemoryAllocation, None
        block = ctypes.create_string_buffer(b"\xee" * size, size)
        self.held[ctypes.addressof(block)] = block
        return Status.cudaSuccess, ctypes.addressof(block)

    cudaMallocHost = cudaMalloc

    def cudaFree(self, address):
        return self._gone(address, ctypes.Array)

    cudaFreeHost = cudaFree

    def cudaMemcpyAsync(self, target, source, size, kind, stream):
        assert isinstance(self.held[stream], str)
        self.submit(lambda: ctypes.memmove(target, source, size))
        return (Status.cudaSuccess,)

    def cudaStreamCreate(self):
        return self._new("stream")

    def cudaStreamDestroy(self, stream):
        return self._gone(stream, str)

    def cudaStreamSynchronize(self, stream):
        while self.queue:
            self.queue.popleft()()
        return (Status.cudaSuccess,)

    def cudaStreamBeginCapture(self, stream, mode):
        assert not self.queue, "the stream is still at work"
        self.captured = []
        return (Status.cudaSuccess,)

    def cudaStreamEndCapture(self, stream):
        work, self.captured = self.captured, None
        return self._new(tuple(work))

    def cudaGraphInstantiate(self, graph, flags):
        return self._new(list(self.held[graph]))

    def cudaGraphDestroy(self, graph):
        return self._gone(graph, tuple)

    def cudaGraphExecDestroy(self, graph):
        return self._gone(graph, list)

    def cudaGraphLaunch(self, graph, stream):
        for work in self.held[graph]:
            self.submit(work)
        return (Status.cudaSuccess,)

    def cudaEventCreate(self):
        return self._new({})

    def cudaEventDestroy(self, event):
        return self._gone(event, dict)

    def cudaEventRecord(self, event, stream):
        self.submit(lambda: self.held[event].update(at=time.perf_counter()))
        return (Status.cudaSuccess,)

    def cudaEventElapsedTime(self, start, stop):
        assert not self.queue, "the stream was not waited for"
        return Status.cudaSuccess, 1e3 * (self.held[stop]["at"] - self.held[start]["at"])


class _Log:
    class Severity(Enum):
        INTERNAL_ERROR = 0
        ERROR = 1
        WARNING = 2


class _Mode(Enum):
    INPUT = 1
    OUTPUT = 2


class _Type(Enum):
    FLOAT = 0


class FakeTensorRt(types.ModuleType):
    """The runtime half of TensorRT, with one engine: `result = relu(clip + bias)`, of any leading size up to 8."""

    __version__ = "1.2.3"
    ILogger, TensorIOMode = _Log, _Mode

    def __init__(self, cuda, name="tensorrt_rtx"):
        super().__init__(name)
        self.cuda = cuda
        self.fails = False

    def Runtime(self, logger):
        return types.SimpleNamespace(deserialize_cuda_engine=lambda data: self._engine(logger, data))

    def _engine(self, logger, data):
        if not bytes(data).startswith(ENGINE):
            logger.log(_Log.Severity.ERROR, "The engine plan file is\n generated on an incompatible device")
            return None
        return _Engine(self)


class _Engine:
    num_io_tensors = 2

    def __init__(self, trt):
        self.trt = trt

    def get_tensor_name(self, i):
        return ("clip", "result")[i]

    def get_tensor_mode(self, name):
        return _Mode.INPUT if name == "clip" else _Mode.OUTPUT

    def get_tensor_dtype(self, name):
        return _Type.FLOAT

    def get_tensor_shape(self, name):
        return (-1, 3, 5, 6)

    def create_execution_context(self):
        return _Context(self.trt)


class _Context:
    def __init__(self, trt):
        self.trt = trt
        self.shape = None
        self.address = {}

    def set_input_shape(self, name, shape):
        if shape[0] > 8:
            return False
        self.shape = shape
        return True

    def get_tensor_shape(self, name):
        return self.shape

    def set_tensor_address(self, name, address):
        self.address[name] = address

    def execute_async_v3(self, stream):
        assert isinstance(self.trt.cuda.held[stream], str)
        if self.trt.fails:
            return False
        count = int(np.prod(self.shape))

        def array(name):
            return np.ctypeslib.as_array((ctypes.c_float * count).from_address(self.address[name])).reshape(self.shape)

        def work():
            bias = np.arange(90, dtype=np.float32).reshape(3, 5, 6)
            array("result")[:] = np.maximum(array("clip") + bias, 0)

        self.trt.cuda.submit(work)
        return True
