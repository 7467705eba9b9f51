"""Sessions of ONNX Runtime, and its errors in the user's terms."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NoReturn

from edge4d.errors import ExportError, PackingError, RuntimeUnavailable, UsageError, ValidationError
from edge4d.exporters.onnxruntime_layout import check_layout
from edge4d.exporters.onnxruntime_products import ENTRY, UNFUSED, check_products, pairs_saturate
from edge4d.ports import Port

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import numpy as np

    from edge4d.exporters.onnxruntime import Options

__all__ = ["LEVELS", "OrtSession"]

_INSTALLS = {
    "CUDAExecutionProvider": 'pip install "onnxruntime-gpu>=1.24"',
    "TensorrtExecutionProvider": 'pip install "onnxruntime-gpu>=1.24"',
    "DmlExecutionProvider": "pip install onnxruntime-directml",
    "OpenVINOExecutionProvider": "pip install onnxruntime-openvino",
    "QNNExecutionProvider": "pip install onnxruntime-qnn",
}

LEVELS = {
    "none": "ORT_DISABLE_ALL",
    "basic": "ORT_ENABLE_BASIC",
    "extended": "ORT_ENABLE_EXTENDED",
    "all": "ORT_ENABLE_ALL",
}

_COPIED = 2**20
"""Bytes below which a result is copied out of the arena."""

_RECORD = {"session.record_ep_graph_assignment_info": "1"}
"""Has ONNX Runtime remember which provider took which node."""


class OrtSession:
    """An `onnxruntime.InferenceSession`; see `edge4d.exporters.protocol.Session`.

    Attributes:
        nodes: how many the providers share; None where ONNX Runtime does not tell.
        fallback: node, operator and provider of those that the first provider did not take.
        unfused: whether quantisers are computed in float32, for in 8 bits products would be wrong here.
    """

    def __init__(
        self, path: Path, options: Options, *, save: Path | None = None, config: Mapping[str, str] | None = None
    ) -> None:
        import onnxruntime

        self.path = path
        if not path.is_file():
            raise ValidationError(f"{path}: no such file", hint="check the path; `edge4d export` writes ONNX files")
        available = onnxruntime.get_available_providers()
        for provider in options.providers:
            if provider not in available:
                raise RuntimeUnavailable(
                    f"{provider} is not in this build of ONNX Runtime, which has: {', '.join(available)}",
                    hint=f"install it with: {_INSTALLS.get(provider, 'a build of ONNX Runtime that has it')}",
                )
        own: dict[str, dict[str, str]] = {provider: {} for provider in options.providers}
        entries = {**_RECORD, **({ENTRY: "1"} if pairs_saturate() else {}), **(config or {})}
        for key, value in options.settings.items():
            owner, _, name = key.partition(".")
            if owner in own:
                own[owner][name] = value
            else:
                entries[key] = value
        self.unfused = False
        try:
            try:
                session = _start(path, options, save, entries, own)
            except Exception:
                if entries.get(ENTRY) != "1" or ENTRY in options.settings:
                    raise
                # The switch takes no weights that two operators share, and none of operators of signed activations,
                # which are right as they are. Quantisers that stay what they are compute in float32: slow, but right.
                session = _start(path, options, save, {**entries, **UNFUSED}, own)
                self.unfused = True
        except Exception as error:  # ONNX Runtime's errors have no common base
            _refuse(path, error, building=save is not None)
        session.disable_fallback()
        got = session.get_providers()
        if got[0] != options.providers[0]:
            raise RuntimeUnavailable(
                f"{options.providers[0]} failed to start, ONNX Runtime fell back to {got[0]}",
                hint="check the driver and libraries that the provider needs; `edge4d doctor` shows what is installed",
            )
        self._session: Any = session
        self.inputs = tuple(_port(path, value) for value in session.get_inputs())
        self.outputs = tuple(_port(path, value) for value in session.get_outputs())
        self.metadata: Mapping[str, str] = dict(session.get_modelmeta().custom_metadata_map)
        check_layout(path, self.metadata)
        check_products(path, self.metadata, options.settings)
        self.details: Mapping[str, Any] = {
            "runtime": "onnxruntime",
            "version": onnxruntime.__version__,
            "providers": got,
            "threads": options.threads,
            "optimization": options.optimization,
        }
        self.spent: Mapping[str, float] | None = None
        self.nodes, self.fallback = _placement(session, options.providers[0])
        if self.unfused:
            self.details = {**self.details, "quantisers": "float32"}
        if self.fallback:
            self.details = {**self.details, "nodes_elsewhere": len(self.fallback)}

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run once on packed arrays by name.

        Raises:
            UsageError: the session is closed, or an input is missing or unknown.
            PackingError: an array that the graph does not take.
            ValidationError: an operator failed.
        """
        if self._session is None:
            raise UsageError(f"{self.path}: the session is closed", hint="open it again")
        names = [port.name for port in self.inputs]
        if feeds.keys() != set(names):
            raise UsageError(f"{self.path} takes the inputs {', '.join(names)}, got {', '.join(feeds) or 'none'}")
        try:
            results = self._session.run(None, dict(feeds))
        except Exception as error:  # ONNX Runtime's errors have no common base
            if type(error).__name__ == "InvalidArgument":
                raise PackingError(f"{self.path}: {_words(error)}", hint="see the inputs' shapes and dtypes") from error
            raise ValidationError(f"{self.path}: ONNX Runtime failed while running it: {_words(error)}") from error
        return {port.name: _own(array) for port, array in zip(self.outputs, results, strict=True)}

    def close(self) -> None:
        """Drop the session and its memory."""
        self._session = None

    def __enter__(self) -> OrtSession:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _start(
    path: Path,
    options: Options,
    save: Path | None,
    entries: Mapping[str, str],
    providers: Mapping[str, Mapping[str, str]],
) -> Any:
    """Let ONNX Runtime load a file; `providers` come with their own options."""
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, LEVELS[options.optimization])
    settings.intra_op_num_threads = options.threads
    settings.enable_cpu_mem_arena = options.arena
    if options.providers == ("CPUExecutionProvider",):
        # Patterns allot the activations of later calls anew beside those of the first; buffers that are shared by
        # plan stay allotted from their first use to their last. Without both, calls are as fast and need less.
        settings.enable_mem_pattern = settings.enable_mem_reuse = False
    settings.log_severity_level = 4  # what goes wrong is raised; the rest would mix with our own output
    if save is not None:
        settings.optimized_model_filepath = str(save)
    for key, value in entries.items():
        settings.add_session_config_entry(key, value)
    return onnxruntime.InferenceSession(str(path), settings, providers=list(providers.items()))


def _own(result: Any) -> Any:
    """A small result in memory of its own. What a session returns lies in its arena, where a few bytes that the caller
    keeps sit in the midst of memory that the next call would take whole: it allots as much again (x3d_m: 65 MB).
    """
    return result.copy() if getattr(result, "nbytes", _COPIED) < _COPIED else result


def _placement(session: Any, wanted: str) -> tuple[int | None, list[dict[str, str]]]:
    """How many nodes there are, and which of them went to another provider than the one that is wanted."""
    if not hasattr(session, "get_provider_graph_assignment_info"):  # older versions do not tell
        return None, []
    placed = [
        {"node": node.name, "op": node.op_type, "provider": part.ep_name}
        for part in session.get_provider_graph_assignment_info()
        for node in part.get_nodes()
    ]
    return len(placed), [item for item in placed if item["provider"] != wanted]


def _port(path: Path, value: Any) -> Port:
    match = re.fullmatch(r"tensor\((\w+)\)", value.type)
    if match is None:
        raise ValidationError(f"{path}: {value.name!r} is a {value.type}; edge4d runs models on tensors only")
    names = {"float": "float32", "double": "float64", "string": "str"}
    shape = tuple(size if isinstance(size, int) else -1 for size in value.shape)
    return Port(value.name, shape, shape, names.get(match[1], match[1]))


def _refuse(path: Path, error: Exception, *, building: bool) -> NoReturn:
    """Say in the user's terms why a file was not taken."""
    kind, words = type(error).__name__, _words(error)
    if building and ("space" in words.lower() or "serialization failed" in words):
        raise ExportError(
            f"cannot write the engine for {path}: ONNX Runtime could not write it: {words}",
            hint="is the disk full? free some space or write to another disk with -o",
        ) from error
    if kind in {"InvalidProtobuf", "NoModel"} or "No graph was found" in words:
        raise ValidationError(f"{path} is no ONNX model: {words}", hint="was it downloaded or copied whole?") from error
    if kind == "NotImplemented" or "is not a registered function" in words or "No Op registered" in words:
        raise ValidationError(
            f"{path} holds an operator that ONNX Runtime cannot run: {words}",
            hint="export it for an older opset, or use a newer onnxruntime",
        ) from error
    raise ValidationError(f"{path}: ONNX Runtime refuses it ({kind}): {words}") from error


def _words(error: Exception) -> str:
    """ONNX Runtime's message without its prefix, on one line."""
    text = re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", str(error))
    return " ".join(text.split())[:1000]
