"""The little of CUDA that running an engine needs: memory, copies, a stream, events and graphs."""

from __future__ import annotations

import ctypes
import importlib
from typing import TYPE_CHECKING, Any

from edge4d.errors import RuntimeFailed

if TYPE_CHECKING:
    import numpy as np

__all__ = ["Cuda", "why_no_gpu"]

_INSTALL = 'install cuda-bindings: pip install "edge4d[tensorrt-rtx]"'


def why_no_gpu() -> str | None:
    """One sentence when no CUDA device can be used from here; None when one can."""
    try:
        runtime: Any = importlib.import_module("cuda.bindings.runtime")
    except Exception as error:  # its loader raises whatever a missing library makes it raise
        return f"CUDA cannot be called ({error}); {_INSTALL}"
    status, *found = runtime.cudaGetDeviceCount()
    if status.value != 0:
        return f"CUDA finds none ({status.name})"
    return None if found[0] else "CUDA finds none"


class Cuda:
    """One stream of the current device. Everything handed out is given back by `close`."""

    def __init__(self) -> None:
        self._runtime: Any = importlib.import_module("cuda.bindings.runtime")
        self._device_memory: list[Any] = []
        self._host_memory: list[Any] = []
        self._events: list[Any] = []
        self._graphs: list[Any] = []
        self.stream: Any = None
        self.stream = self._do("cudaStreamCreate")

    def _do(self, name: str, *args: Any) -> Any:
        """Call a function of CUDA's runtime.

        Raises:
            RuntimeFailed: it returned an error.
        """
        status, *results = getattr(self._runtime, name)(*args)
        if status.value != 0:
            raise RuntimeFailed(f"{name} failed: {status.name}", hint="see `nvidia-smi`; is the GPU's memory full?")
        return results[0] if results else None

    def device_memory(self, size: int) -> int:
        """Address of `size` bytes on the device."""
        address = self._do("cudaMalloc", max(size, 1))
        self._device_memory.append(address)
        return int(address)

    def pinned(self, size: int) -> np.ndarray:
        """`size` bytes of page-locked host memory, which copies to and from the device need not go around."""
        import numpy as np

        address = self._do("cudaMallocHost", max(size, 1))
        self._host_memory.append(address)
        block = (ctypes.c_uint8 * max(size, 1)).from_address(int(address))
        return np.ctypeslib.as_array(block)[:size]

    def to_device(self, target: int, source: np.ndarray) -> None:
        """Start a copy from pinned memory."""
        kind = self._runtime.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._do("cudaMemcpyAsync", target, source.ctypes.data, source.nbytes, kind, self.stream)

    def to_host(self, target: np.ndarray, source: int) -> None:
        """Start a copy into pinned memory."""
        kind = self._runtime.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._do("cudaMemcpyAsync", target.ctypes.data, source, target.nbytes, kind, self.stream)

    def event(self) -> Any:
        """A mark that can be set in the stream."""
        event = self._do("cudaEventCreate")
        self._events.append(event)
        return event

    def mark(self, event: Any) -> None:
        """Set an event behind what the stream has been given so far."""
        self._do("cudaEventRecord", event, self.stream)

    def milliseconds(self, start: Any, stop: Any) -> float:
        """Between two events that the stream has passed."""
        return float(self._do("cudaEventElapsedTime", start, stop))

    def wait(self) -> None:
        """Until the stream has done all that it was given."""
        self._do("cudaStreamSynchronize", self.stream)

    def begin_capture(self) -> None:
        """Have the stream write down what it is given instead of doing it."""
        self._do(
            "cudaStreamBeginCapture", self.stream, self._runtime.cudaStreamCaptureMode.cudaStreamCaptureModeRelaxed
        )

    def end_capture(self) -> Any:
        """What was written down, as a graph that `launch` takes."""
        graph = self._do("cudaStreamEndCapture", self.stream)
        try:
            ready = self._do("cudaGraphInstantiate", graph, 0)
        finally:
            self._do("cudaGraphDestroy", graph)
        self._graphs.append(ready)
        return ready

    def launch(self, graph: Any) -> None:
        """Start a captured graph."""
        self._do("cudaGraphLaunch", graph, self.stream)

    def free_buffers(self) -> None:
        """Give memory back, and the graphs that use it; nothing may be under way."""
        self._give_back(cudaGraphExecDestroy=self._graphs)
        self._give_back(cudaFree=self._device_memory, cudaFreeHost=self._host_memory)

    def _give_back(self, **handles: list[Any]) -> None:
        for name, each in handles.items():
            while each:
                self._do(name, each.pop())

    def close(self) -> None:
        """Give everything back; may be called twice."""
        self.free_buffers()
        self._give_back(cudaEventDestroy=self._events)
        if self.stream is not None:
            stream, self.stream = self.stream, None
            self._do("cudaStreamDestroy", stream)
