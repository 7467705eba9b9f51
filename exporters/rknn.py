"""RKNN: engines for Rockchip's NPUs, compiled by the vendor's toolkit under an interpreter of its own.

The toolkit pins old versions of what edge4d needs new, so it never lives in edge4d's own environment. Without a board
an engine runs on the toolkit's simulator, which computes as the NPU does (float16) and tells nothing about speed.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge4d.errors import RuntimeUnavailable, UsageError, ValidationError
from edge4d.exporters.assembling import Compiler, assemble, description_beside, refuse_suffix
from edge4d.exporters.child import check_timeout, foreign_environment
from edge4d.exporters.feeding import check_feeds
from edge4d.exporters.gating import Made, gate_values
from edge4d.exporters.options import as_names, check_settings, checked
from edge4d.exporters.protocol import Availability, BuildResult, Session, require
from edge4d.exporters.remote import RemoteSession
from edge4d.exporters.rknn_log import LayerTable, parse, sources_of
from edge4d.files import sha256_of

if TYPE_CHECKING:
    import numpy as np

__all__ = ["DEVICES", "PYTHON_VARIABLE", "BuildOptions", "OpenOptions", "Rknn"]

PYTHON_VARIABLE = "EDGE4D_RKNN_PYTHON"
"""Environment variable that names the interpreter which has the toolkit."""

DEVICES = ("rk3562", "rk3566", "rk3568", "rk3576", "rk3588")

_INSTALL = (
    'python3.11 -m venv rknn-env && rknn-env/bin/pip install rknn-toolkit2==2.5.0 onnxruntime "setuptools<81" '
    f'&& export {PYTHON_VARIABLE}="$PWD/rknn-env/bin/python"'
)
_WORKER = Path(__file__).with_name("rknn_worker.py")
_PROBE = """
import json, sys
from importlib import metadata, util
missing = [name for name in ("rknn", "pkg_resources", "onnxruntime") if util.find_spec(name) is None]
version = None if "rknn" in missing else metadata.version("rknn-toolkit2")
print(json.dumps({"python": sys.version.split()[0], "missing": missing, "version": version}))
"""
"""Finds the toolkit without importing it, which takes seconds."""

_PROVIDERS = {"pkg_resources": '"setuptools<81"', "onnxruntime": "onnxruntime"}
"""What to install for modules that the toolkit imports late, in the midst of compiling."""

_REGISTER = "REGTASK: The bit width of field value exceeds the limit"
"""Start of what the compiler says when a value does not fit the NPU's register, and writes an engine all the same."""

_PRECISION = "fp16"
"""What the NPU computes in, and the simulator like it, unless a model is quantised."""

_PROBE_S = 60
_SHOWN = 8


@dataclass(frozen=True)
class BuildOptions:
    """How an engine is compiled. The NPU computes in float16.

    Attributes:
        device: the chip.
        python: the interpreter that has the toolkit; that of `PYTHON_VARIABLE` when empty.
        layers: print every layer of the compiler's table, not one row for each kind of operator.
        settings: parameters of the toolkit's ``RKNN.config`` by name, e.g. ``optimization_level=2``.
    """

    device: str = "rk3588"
    python: str = ""
    layers: bool = False
    settings: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        named = as_names(self.device)
        if len(named) != 1 or named[0].lower() not in DEVICES:
            raise UsageError(
                f"rknn builds for one device, got {', '.join(named) or 'none'}",
                hint=f"expected one of: {', '.join(DEVICES)}",
            )
        object.__setattr__(self, "device", named[0].lower())
        object.__setattr__(self, "python", str(self.python))
        object.__setattr__(self, "settings", check_settings(self.settings))


@dataclass(frozen=True)
class OpenOptions:
    """How an engine is run on the simulator.

    Attributes:
        python: as in `BuildOptions`. It is never taken from a recipe, which may come from strangers.
        model: the ONNX file that the engine was built from; looked for beside the engine when empty.
    """

    python: str = ""
    model: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "python", str(self.python))
        object.__setattr__(self, "model", str(self.model))


class Rknn:
    """The exporter; see `edge4d.exporters.protocol.Exporter`.

    Args:
        python: the interpreter that has the toolkit; that of `PYTHON_VARIABLE` when empty.
    """

    name = "rknn"
    suffixes: tuple[str, ...] = (".rknn",)
    open_options: tuple[str, ...] = tuple(field.name for field in fields(OpenOptions))

    def __init__(self, python: str = "") -> None:
        self._python = python

    def probe(self) -> Availability:
        """Whether there is an interpreter that has the toolkit; asks it, never raises."""
        named = self._python or os.environ.get(PYTHON_VARIABLE, "")
        if not named:
            return _absent(f"no interpreter that has rknn-toolkit2 is named: --python PATH or {PYTHON_VARIABLE}")
        python = shutil.which(named)
        if python is None:
            return _absent(f"{named} is no program that can be run")
        try:
            asked = subprocess.run(
                [python, "-c", _PROBE],
                capture_output=True,
                timeout=_PROBE_S,
                env=foreign_environment(),
                check=False,
            )
            found = json.loads(asked.stdout)
            missing, version = found["missing"], str(found["version"])
        except subprocess.TimeoutExpired:
            return _absent(f"{named} did not answer within {_PROBE_S} s")
        except (OSError, ValueError, TypeError, KeyError):
            return _absent(f"{named} is no Python interpreter that works")
        if "rknn" in missing:
            return _absent(
                f"{named} (Python {found['python']}) has no rknn-toolkit2",
                f'{named} -m pip install rknn-toolkit2==2.5.0 onnxruntime "setuptools<81"',
            )
        if missing:
            wanted = " ".join(_PROVIDERS[name] for name in missing)
            return _absent(
                f"rknn-toolkit2 {version} needs {' and '.join(missing)}, which {named} lacks",
                f"{named} -m pip install {wanted}",
            )
        return Availability(ok=True, version=version)

    def build(
        self,
        model_path: Path,
        output: Path,
        *,
        max_rank: int | None = 4,
        timeout: float | None = None,
        **options: Any,
    ) -> BuildResult:
        """Compile, read the compiler's table, hold its values against the limit; for `options` see `BuildOptions`."""
        output = Path(output)
        chosen = checked(BuildOptions, self.name, options)
        python = self._required(chosen.python)
        refuse_suffix(output, self.name, self.suffixes)
        kept = {name: value for name, value in asdict(chosen).items() if name not in ("python", "layers")}
        kept["settings"] = {name: _literal(value) for name, value in chosen.settings.items()}
        compiler = Compiler(self.name, f"{_WORKER}:compile_engine", ("onnx",), python, _Facts(chosen, max_rank))
        return assemble(compiler, Path(model_path), [output], kept, max_rank=max_rank, timeout=timeout)

    def open(self, path: Path, *, timeout: float | None = None, **options: Any) -> Session:
        """Run on the simulator what the engine was compiled from; for `options` see `OpenOptions`.

        The simulator takes no engine: the ONNX file that the recipe names is compiled again, for the same device and
        with the same settings.
        """
        path = Path(path)
        chosen, limit = checked(OpenOptions, self.name, options), check_timeout(timeout)
        python = self._required(chosen.python)
        recipe = description_beside(path, self.name)
        if not recipe:
            raise ValidationError(
                f"{path} has no recipe beside it, and RKNN's simulator takes no engine, only the model that it is from",
                hint="copy engine, recipe and ONNX file together, or build it again",
            )
        return _RknnSession(path, _model_of(path, recipe, chosen.model), recipe, limit, python)

    def _required(self, python: str) -> str:
        """The interpreter's path.

        Raises:
            RuntimeUnavailable: none is named, or it lacks the toolkit.
        """
        asked = Rknn(python or self._python)
        require(asked)
        found = shutil.which(asked._python or os.environ[PYTHON_VARIABLE])
        if found is None:  # removed since
            raise RuntimeUnavailable(f"the runtime 'rknn' cannot be used here: {python} is gone")
        return found


def _absent(why: str, install: str = _INSTALL) -> Availability:
    return Availability(ok=False, why_not=why, install=install)


def _literal(text: str) -> Any:
    """A setting's value as JSON has it, e.g. 2, true or [0, 0, 0]; anything else stays text."""
    try:
        return json.loads(text)
    except ValueError:
        return text


@dataclass(frozen=True)
class _Facts:
    """Makes of the worker's log what the recipe keeps, in this process, which can read the model."""

    options: BuildOptions
    max_rank: int | None

    def __call__(self, made: Mapping[str, Any], model_path: Path) -> dict[str, Any]:
        from edge4d.describing import metadata_of, ports_of
        from edge4d.validators.reading import read_model

        proto = read_model(model_path)
        inputs, outputs = ports_of(proto)
        found = parse(made["engine"]["log"], sources_of(proto.graph.node))
        notes = [*made["notes"], *_notes(found)]
        if self.max_rank is not None:
            _gate(model_path, found, self.max_rank)
        facts = {
            "version": made["engine"]["version"],
            "device": self.options.device,
            "precision": _PRECISION,
            "metadata": metadata_of(proto),
            "inputs": [{**port.to_dict(), "shape": list(port.physical), "packing": None} for port in inputs],
            "outputs": [{**port.to_dict(), "shape": list(port.physical), "packing": None} for port in outputs],
            **found.to_dict(),
        }
        summary = found.to_text(every=self.options.layers) if found.layers else ""
        return {"engine": facts, "notes": notes, "summary": summary}


def _gate(model_path: Path, found: LayerTable, max_rank: int) -> None:
    """Hold what each layer of the compiler's table makes against the limit."""
    if found.layers:
        made = (Made(layer.name or layer.op, len(layer.output), layer.op) for layer in found.layers)
        gate_values(f"the graph that RKNN made of {model_path}", made, max_rank)


def _notes(found: LayerTable) -> list[str]:
    notes = []
    if not found.layers:
        notes.append("the compiler's log holds no table of layers that edge4d can read: no cycles, no placement")
    if found.unread:
        notes.append(f"{found.unread} rows of the compiler's table cannot be read: all sums lack them")
    if found.on_cpu:
        listed = ", ".join(layer.place for layer in found.on_cpu[:_SHOWN])
        more = ", …" if len(found.on_cpu) > _SHOWN else ""
        notes.append(f"{len(found.on_cpu)} of {len(found.layers)} operators run on the CPU: {listed}{more}")
    if overflows := sum(count for text, count in found.errors.items() if text.startswith(_REGISTER)):
        notes.append(
            f"the compiler says {overflows} times that a value exceeds the bit width of the NPU's register (REGTASK); "
            "it wrote an engine all the same, and whether that runs right on a board is unknown"
        )
    others = {text: count for text, count in found.errors.items() if not text.startswith(_REGISTER)}
    notes += [f"the compiler's log calls an error, {count} times: {text}" for text, count in others.items()]
    return notes


def _model_of(path: Path, recipe: Mapping[str, Any], given: str) -> Path:
    """The ONNX file that an engine was built from, the very same bytes.

    Raises:
        ValidationError: it is not there, or is another file.
    """
    try:
        sources = [(str(source["name"]), str(source["sha256"])) for source in recipe["sources"]]
        first = Path(given) if given else path.with_name(Path(sources[0][0]).name)
    except (KeyError, TypeError, IndexError) as error:
        raise ValidationError(f"the recipe of {path} names no model", hint="build the engine again") from error
    files = [first, *(first.with_name(Path(name).name) for name, _ in sources[1:])]
    for file, (_, digest) in zip(files, sources, strict=True):
        if not file.is_file():
            raise ValidationError(
                f"{path} is simulated from {file}, which is not there: RKNN's simulator takes no engine",
                hint="keep the ONNX file beside its engine",
            )
        if sha256_of(file) != digest:
            raise ValidationError(
                f"{path} was not built from {file} as it is now", hint=f"build it again: edge4d build {file} -r rknn"
            )
    return first


class _RknnSession(RemoteSession):
    """A simulator in a child process; what it leaves on the disk is removed with it."""

    def __init__(self, path: Path, model: Path, recipe: Mapping[str, Any], limit: float, python: str) -> None:
        engine = recipe["engine"]
        self._folder = tempfile.TemporaryDirectory(prefix="edge4d-rknn-")
        try:
            argument = {
                "model": str(model.absolute()),
                "scratch": self._folder.name,
                "options": {"device": engine["device"], "settings": recipe["options"]["settings"]},
                **{name: engine[name] for name in ("inputs", "outputs", "metadata")},
                "details": {
                    "runtime": "rknn",
                    "providers": [f"simulator of {engine['device']}"],
                    "threads": 0,
                    "precision": _PRECISION,
                    "simulated": True,
                },
            }
            super().__init__(path, f"{_WORKER}:open_engine", argument, limit, python)
        except KeyError as error:
            self._folder.cleanup()
            raise ValidationError(f"the recipe of {path} lacks {error}", hint="build the engine again") from error
        except BaseException:
            self._folder.cleanup()
            raise

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        if self._child is not None:
            check_feeds(self.path, self.inputs, feeds)
        return super().run(feeds)

    def close(self) -> None:
        super().close()
        self._folder.cleanup()
