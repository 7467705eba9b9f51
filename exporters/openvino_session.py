"""An OpenVINO model, compiled and ready to run in this process."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge4d.errors import RuntimeFailed, RuntimeUnavailable, UsageError, ValidationError
from edge4d.exporters.feeding import check_feeds
from edge4d.ports import Port

if TYPE_CHECKING:
    import numpy as np

    from edge4d.exporters.openvino import Options

__all__ = ["EIGHT_BITS", "OpenVinoSession", "is_at_hand", "is_quantised", "one_line", "properties", "refuse_property"]


EIGHT_BITS = "LP_TRANSFORMS_MODE"
"""OpenVINO's property that lets its CPU compute a quantised model in 8 bits; an internal one, on by default there."""


def properties(options: Options, model: Any = None) -> dict[str, str]:
    """What OpenVINO is told when it compiles a model, or opens one that is compiled (None).

    Its CPU computes quantised models in float32 with every value rounded to its 8 bits, unless a setting says
    otherwise: the 8-bit kernels of 2026.4 gave other numbers behind a Concat of signed values, and in deep networks.
    """
    told = {"EXECUTION_MODE_HINT": "ACCURACY"}
    if model is not None and options.device.startswith("CPU") and is_quantised(model):
        told[EIGHT_BITS] = "NO"
    if options.threads:
        told["INFERENCE_NUM_THREADS"] = str(options.threads)
    return {**told, **options.settings}


def is_quantised(model: Any) -> bool:
    """Whether a model rounds values to few bits: what becomes of QuantizeLinear and DequantizeLinear."""
    return any(op.get_type_name() == "FakeQuantize" for op in model.get_ops())


def is_at_hand(core: Any, device: str) -> bool:
    """Whether OpenVINO has a device: ``GPU`` where there is ``GPU.0``, and always what chooses among devices."""
    there = [str(name) for name in core.available_devices]
    chooses = device.split(":")[0] in ("AUTO", "HETERO", "MULTI", "BATCH")
    return chooses or device in there or any(name.startswith(f"{device}.") for name in there)


def one_line(error: Exception) -> str:
    """OpenVINO's message without the places in its own source, on one line."""
    lines = [line.strip() for line in str(error).splitlines()]
    kept = [line for line in lines if line and not line.startswith(("Exception from ", "Check '"))]
    return " ".join(kept or lines)[:1000]


def refuse_property(path: Path, error: Exception) -> None:
    """Tell a setting that the device does not take from what is wrong with the model.

    Raises:
        UsageError: it is one.
    """
    if "property" in one_line(error).lower():
        raise UsageError(
            f"{path}: OpenVINO takes no such setting: {one_line(error)}",
            hint="OpenVINO's documents list its properties",
        ) from error


class OpenVinoSession:
    """See `edge4d.exporters.protocol.Session`.

    Args:
        path: ``.xml``, ``.blob`` or ``.onnx``.
        options: the device and how it is used.
        facts: ``metadata``, ``inputs`` and ``outputs`` from the recipe; empty without one.
    """

    def __init__(self, path: Path, options: Options, facts: Mapping[str, Any]) -> None:
        ov: Any = importlib.import_module("openvino")
        self.path = path
        core = ov.Core()
        if not is_at_hand(core, options.device):
            raise RuntimeUnavailable(
                f"OpenVINO sees no {options.device} here, it has: {', '.join(core.available_devices)}",
                hint="install the device's driver, or name another device",
            )
        description = dict(facts.get("metadata", {}))
        try:
            if path.suffix.lower() == ".blob":
                told = properties(options)
                self._model: Any = core.import_model(path.read_bytes(), options.device, told)
            else:
                model = core.read_model(str(path))
                description = {**_description_in(model), **description}
                told = properties(options, model)
                self._model = core.compile_model(model, options.device, told)
        except Exception as error:  # of OpenVINO's C++ side, as RuntimeError
            refuse_property(path, error)
            raise ValidationError(
                f"{path}: OpenVINO refuses it: {one_line(error)}",
                hint="was it copied whole, and built by this version?",
            ) from error
        self._request: Any = self._model.create_infer_request()
        self.inputs = tuple(_port(value, facts.get("inputs", [])) for value in self._model.inputs)
        self.outputs = tuple(_port(value, facts.get("outputs", [])) for value in self._model.outputs)
        self.metadata: Mapping[str, str] = description
        self.spent: Mapping[str, float] | None = None
        self.details: Mapping[str, Any] = {
            "runtime": "openvino",
            "version": str(ov.__version__).split("-")[0],
            "providers": [options.device],
            "threads": options.threads,
            **({"eight_bits": told[EIGHT_BITS]} if EIGHT_BITS in told else {}),
        }

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Run once on packed arrays by name.

        Raises:
            UsageError: the session is closed, or an input is missing or unknown.
            PackingError: an array that the graph does not take.
            RuntimeFailed: the device failed.
        """
        import numpy as np

        if self._request is None:
            raise UsageError(f"{self.path}: the session is closed", hint="open it again")
        check_feeds(self.path, self.inputs, feeds)
        try:
            arrays = [np.asarray(feeds[port.name], order="C") for port in self.inputs]
            results = self._request.infer(arrays, share_outputs=False)  # else the next run would write into them
        except Exception as error:  # as above
            raise RuntimeFailed(f"{self.path}: OpenVINO failed while running it: {one_line(error)}") from error
        return {port.name: np.asarray(results[i]) for i, port in enumerate(self.outputs)}

    def close(self) -> None:
        """Drop the model and its memory."""
        self._request = self._model = None

    def __enter__(self) -> OpenVinoSession:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _description_in(model: Any) -> dict[str, str]:
    """The ONNX file's metadata, which OpenVINO keeps in its IR."""
    info = model.get_rt_info()
    if "framework" not in info:
        return {}
    return {str(key): str(value.astype(str)) for key, value in info["framework"].items()}


def _port(value: Any, wanted: list[str]) -> Port:
    """A value may have several names; the one that the ONNX file gave it counts."""
    names = sorted(value.get_names())
    name = next((name for name in names if name in wanted), value.get_any_name())
    shape = tuple(-1 if size.is_dynamic else size.get_length() for size in value.get_partial_shape())
    return Port(name, shape, shape, value.get_element_type().to_dtype().name)
