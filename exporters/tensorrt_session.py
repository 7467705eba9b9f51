"""A TensorRT engine on the GPU: pinned buffers, one stream, events for timing, on demand a CUDA graph."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from edge4d.errors import PackingError, RuntimeFailed, UsageError, ValidationError
from edge4d.exporters.cuda import Cuda
from edge4d.exporters.tensorrt_build import collecting_logger
from edge4d.ports import Port

if TYPE_CHECKING:
    import numpy as np

    from edge4d.exporters.tensorrt import OpenOptions

__all__ = ["TensorRtSession"]

# TensorRT's names of element types, and numpy's where they differ.
_DTYPES = {"FLOAT": "float32", "HALF": "float16", "BF16": "bfloat16", "BOOL": "bool"}


class _Buffer(NamedTuple):
    """One input or output: pinned host memory as an array, and its address on the device."""

    host: np.ndarray
    device: int


class TensorRtSession:
    """See `edge4d.exporters.protocol.Session`.

    Args:
        path: the engine.
        module: ``tensorrt`` or ``tensorrt_rtx``.
        options: how it is run.
        facts: what its recipe says; empty without one.
    """

    def __init__(self, path: Path, module: str, options: OpenOptions, facts: Mapping[str, Any]) -> None:
        trt: Any = importlib.import_module(module)
        self.path = path
        self._logger = collecting_logger(trt)
        self._runtime = trt.Runtime(self._logger)
        self._engine: Any = self._runtime.deserialize_cuda_engine(path.read_bytes())
        if self._engine is None:
            built = f"it was built for {', '.join(facts['devices'])}; " if facts.get("devices") else ""
            raise ValidationError(
                f"{path}: {module} {trt.__version__} refuses it: {built}{self._logger.said()}",
                hint="an engine runs on the version and the GPUs it was built for: build it again for this machine",
            )
        self._context: Any = self._engine.create_execution_context()
        if self._context is None:
            raise RuntimeFailed(
                f"{path}: no execution context: {self._logger.said()}", hint="is the GPU's memory full?"
            )
        names = [self._engine.get_tensor_name(i) for i in range(self._engine.num_io_tensors)]
        given = [n for n in names if self._engine.get_tensor_mode(n) == trt.TensorIOMode.INPUT]
        self.inputs = tuple(self._port(name) for name in given)
        self.outputs = tuple(self._port(name) for name in names if name not in given)
        self.metadata: Mapping[str, str] = dict(facts.get("metadata", {}))
        self.details: Mapping[str, Any] = {
            "runtime": module,
            "version": str(trt.__version__),
            "providers": ["cuda"],
            "cuda_graph": options.cuda_graph,
        }
        self.spent: Mapping[str, float] | None = None
        self._as_graph = options.cuda_graph
        self._graph: Any = None
        self._shapes: tuple[tuple[int, ...], ...] | None = None
        self._buffers: dict[str, _Buffer] = {}
        self._cuda = Cuda()
        self._events = [self._cuda.event() for _ in range(4)]

    def _port(self, name: str) -> Port:
        kind = self._engine.get_tensor_dtype(name).name
        shape = tuple(self._engine.get_tensor_shape(name))
        return Port(name, shape, shape, _DTYPES.get(kind, kind.lower()))

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run once on packed arrays by name; `spent` then tells compute and copies apart.

        Raises:
            UsageError: the session is closed, or an input is missing or unknown.
            PackingError: an array that the engine does not take.
            RuntimeFailed: the GPU failed.
        """
        import numpy as np

        if self._context is None:
            raise UsageError(f"{self.path}: the session is closed", hint="open it again")
        names = [port.name for port in self.inputs]
        if feeds.keys() != set(names):
            raise UsageError(f"{self.path} takes the inputs {', '.join(names)}, got {', '.join(feeds) or 'none'}")
        arrays = [np.asarray(feeds[name]) for name in names]
        for port, array in zip(self.inputs, arrays, strict=True):
            if array.dtype.name != port.dtype:
                raise PackingError(f"{self.path}: input {port.name!r} takes {port.dtype}, got {array.dtype.name}")
        self._shape_for(tuple(array.shape for array in arrays))
        start, fed, done, out = self._events
        for name, array in zip(names, arrays, strict=True):
            np.copyto(self._buffers[name].host, array)
        self._cuda.mark(start)
        for name in names:
            self._cuda.to_device(self._buffers[name].device, self._buffers[name].host)
        self._cuda.mark(fed)
        self._compute()
        self._cuda.mark(done)
        for port in self.outputs:
            self._cuda.to_host(self._buffers[port.name].host, self._buffers[port.name].device)
        self._cuda.mark(out)
        self._cuda.wait()
        copies = self._cuda.milliseconds(start, fed) + self._cuda.milliseconds(done, out)
        self.spent = {"compute": self._cuda.milliseconds(fed, done), "copies": copies}
        # Copied: the next run uses the buffers again.
        return {port.name: self._buffers[port.name].host.copy() for port in self.outputs}

    def _compute(self) -> None:
        if self._graph is not None:
            self._cuda.launch(self._graph)
            return
        self._enqueue()
        if self._as_graph:
            # The first call must have come to its end: it sets up what a captured one may not.
            self._cuda.wait()
            self._cuda.begin_capture()
            self._enqueue()
            self._graph = self._cuda.end_capture()

    def _enqueue(self) -> None:
        if not self._context.execute_async_v3(int(self._cuda.stream)):
            raise RuntimeFailed(f"{self.path} failed while running: {self._logger.said()}")

    def _shape_for(self, shapes: tuple[tuple[int, ...], ...]) -> None:
        """Buffers for inputs of these shapes; those of the last call serve again.

        Raises:
            PackingError: the engine does not take such a shape.
        """
        if shapes == self._shapes:
            return
        self._shapes = self._graph = None
        for port, shape in zip(self.inputs, shapes, strict=True):
            fits = len(shape) == len(port.physical) and all(
                p in (-1, s) for p, s in zip(port.physical, shape, strict=True)
            )
            if not fits or not self._context.set_input_shape(port.name, shape):
                raise PackingError(
                    f"{self.path}: input {port.name!r} takes {port.physical}, got {shape}",
                    hint="sizes that are open (-1) have bounds, which were given when the engine was built",
                )
        self._buffers.clear()
        self._cuda.free_buffers()
        for port in (*self.inputs, *self.outputs):
            shape = tuple(self._context.get_tensor_shape(port.name))
            if -1 in shape:
                raise RuntimeFailed(f"{self.path}: the shape of output {port.name!r} depends on the numbers")
            host = self._host(shape, port.dtype)
            buffer = _Buffer(host, self._cuda.device_memory(host.nbytes))
            self._context.set_tensor_address(port.name, buffer.device)
            self._buffers[port.name] = buffer
        self._shapes = shapes

    def _host(self, shape: tuple[int, ...], dtype: str) -> np.ndarray:
        import numpy as np

        if dtype == "bfloat16":
            import ml_dtypes

            kind: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
        else:
            kind = np.dtype(dtype)
        size = int(np.prod(shape, dtype=np.int64)) * kind.itemsize
        return self._cuda.pinned(size).view(kind).reshape(shape)

    def close(self) -> None:
        """Drop the engine, its buffers and its stream; may be called twice."""
        if self._context is not None:
            self._buffers.clear()
            self._cuda.close()
            self._context = self._engine = None

    def __enter__(self) -> TensorRtSession:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
