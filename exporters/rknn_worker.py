"""Rockchip's toolkit at work, under an interpreter of its own: its pins clash with edge4d's.

This file imports the standard library, numpy and the toolkit, nothing of edge4d, and no newer Python than 3.8: it is
run by path (see `edge4d.exporters.child`). Its exceptions bear the names of edge4d's, as which they are raised there.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import os
import re
import stat
import sys
import tempfile
from pathlib import Path
from typing import Any, Iterator, Mapping  # noqa: UP035 - as 3.8 has them

__all__ = ["compile_engine", "open_engine"]

_FULL = ("No space left on device", "File too large", "Disk quota exceeded")


class _Told(Exception):
    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message, self.hint = message, hint


class ExportError(_Told):
    """The engine cannot be written."""


class RuntimeFailed(_Told):
    """The toolkit gave up."""


class RuntimeUnavailable(_Told):
    """The toolkit cannot be imported."""


class UsageError(_Told):
    """A setting that the toolkit does not take."""


class ValidationError(_Told):
    """A model that the toolkit does not take."""


def compile_engine(order: Mapping[str, Any]) -> dict[str, Any]:
    """Compile one model; see `edge4d.exporters.assembling.Compiler`. The log goes into ``engine``, to be parsed."""
    engine = Path(order["files"][0]).absolute()  # the current folder changes
    with _scratch(engine.parent) as log, _toolkit(verbose=True) as rknn:
        try:
            _load(rknn, order, log)
            _step(rknn.export_rknn, log, str(engine))
        except _Told as error:
            if any(words in error.message or words in log() for words in _FULL):
                raise ExportError(
                    f"cannot write {engine.name}: no space is left on the disk",
                    "free some space or write to another disk with -o",
                ) from error
            raise
        if not engine.is_file():
            raise RuntimeFailed(f"RKNN wrote no engine and gave no reason: {_last(log())}")
        said = log()
    return {"engine": {"version": _version(), "log": said}, "notes": []}


def open_engine(argument: Mapping[str, Any]) -> Any:
    """A session on the simulator. It takes no engine, only what it has just compiled: the model is compiled again."""
    with _scratch(Path(argument["scratch"])) as log, _toolkit(verbose=False, keep=True) as rknn:
        _load(rknn, argument, log)
        _step(rknn.init_runtime, log)
    return _Simulator(rknn, argument)


class _Simulator:
    def __init__(self, rknn: Any, argument: Mapping[str, Any]) -> None:
        self._rknn = rknn
        self.inputs, self.outputs = argument["inputs"], argument["outputs"]
        self.metadata = argument["metadata"]
        self.details = {**argument["details"], "version": _version()}
        self.spent = None
        self._scratch = Path(argument["scratch"])

    def run(self, arrays: Mapping[str, Any]) -> dict[str, Any]:
        import numpy as np

        feeds = [arrays[port["name"]] for port in self.inputs]
        with _scratch(self._scratch) as log:
            # Four axes are taken for N H W C unless it is told otherwise; of others it ignores what it is told.
            found = _step(self._rknn.inference, log, inputs=feeds, data_format=["nchw"] * len(feeds))
            if found is None or len(found) != len(self.outputs):
                raise RuntimeFailed(f"RKNN's simulator gave no result: {_last(log())}")
        return {port["name"]: np.array(array) for port, array in zip(self.outputs, found)}  # noqa: B905 - has no strict= yet


def _load(rknn: Any, order: Mapping[str, Any], log: Any) -> None:
    """Configure, read the model, build: all that the engine and the simulator have in common."""
    options = order["options"]
    try:
        _step(rknn.config, log, target_platform=options["device"], **options["settings"])
    except (_Told, TypeError) as error:
        raise UsageError(
            f"RKNN takes no such setting: {getattr(error, 'message', str(error))}",
            "--option sets the parameters of RKNN.config by name",
        ) from error
    try:
        _step(rknn.load_onnx, log, model=order["model"])
        _step(rknn.build, log, do_quantization=False)
    except _Told as error:
        raise ValidationError(
            f"{order['model']} holds what RKNN cannot take: {error.message}",
            "export it for another --opset, or report the operator that it names",
        ) from error


def _step(call: Any, log: Any, *given: Any, **named: Any) -> Any:
    """One call of the toolkit; what it answers.

    Raises:
        RuntimeFailed: it raised, left, or answered with a code; quotes its reason.
    """
    try:
        found = call(*given, **named)
    except SystemExit as error:
        raise RuntimeFailed(_last(log())) from error
    except TypeError:
        raise
    except Exception as error:  # mostly ValueErrors that hold a traceback as text
        raise RuntimeFailed(_reason(str(error)) or _last(log())) from error
    if isinstance(found, int) and found != 0:
        raise RuntimeFailed(_last(log()))
    return found


def _reason(text: str) -> str:
    """The message at the end of a traceback in words, on one line."""
    lines = text.rstrip().splitlines()
    starts = [i for i, line in enumerate(lines) if line.startswith("  File ")]
    if starts:
        ends = [i for i in range(starts[-1] + 1, len(lines)) if not lines[i].startswith(" ")]
        lines = lines[ends[0] :] if ends else lines[-1:]
    return re.sub(r"^[\w.]*(?:Error|Exception): ", "", " ".join(" ".join(lines).split()))[:1500]


def _last(log: str) -> str:
    """The last error in the toolkit's log, else its last line."""
    errors = [line for line in log.splitlines() if re.match(r"E ", line) and "rknn-toolkit2 version" not in line]
    lines = errors or [line for line in log.splitlines() if line.strip()]
    return lines[-1].strip()[:1500] if lines else "it gives no reason"


@contextlib.contextmanager
def _toolkit(verbose: bool, keep: bool = False) -> Iterator[Any]:
    """An `RKNN` object; released at the end, or only when that is an error if it is to be kept."""
    try:
        rknn = importlib.import_module("rknn.api").RKNN(verbose=verbose)
    except ImportError as error:
        raise RuntimeUnavailable(
            f"rknn-toolkit2 cannot be imported by {sys.executable}: {error}", _remedy(error)
        ) from error
    try:
        yield rknn
    except BaseException:
        rknn.release()
        raise
    if not keep:
        rknn.release()


def _remedy(error: ImportError) -> str:
    python = sys.executable
    if "libGL" in str(error) or "libgthread" in str(error):
        return f"apt-get install libgl1 libglib2.0-0, or {python} -m pip install opencv-python-headless"
    if error.name == "pkg_resources":
        return f'install it with: {python} -m pip install "setuptools<81"'
    return f'install it with: {python} -m pip install rknn-toolkit2 "setuptools<81"'


@contextlib.contextmanager
def _scratch(parent: Path) -> Iterator[Any]:
    """A current folder for what the toolkit leaves behind, and what was printed since as a function.

    The toolkit writes models it is working on to the current folder and to the system's temporary one. The parent
    process removes `parent` whatever becomes of us.
    """
    before, temporary = Path.cwd(), tempfile.tempdir
    with tempfile.TemporaryDirectory(dir=str(parent)) as place:
        os.chdir(place)
        tempfile.tempdir = os.environ["TMPDIR"] = place
        start = os.fstat(2).st_size
        try:
            yield lambda: _printed(start)
        finally:
            os.chdir(before)
            tempfile.tempdir = temporary


def _printed(start: int) -> str:
    """What this process, its C++ side too, has printed since: its stderr is a file that we may read."""
    sys.stdout.flush()
    sys.stderr.flush()
    ctypes.CDLL(None).fflush(None)
    if not stat.S_ISREG(os.fstat(2).st_mode):
        return ""
    data = b""
    while True:
        block = os.pread(2, 1 << 20, start + len(data))
        if not block:
            return re.sub(r"\x1b\[[0-9;]*m", "", data.decode(errors="replace"))
        data += block


def _version() -> str:
    from importlib import metadata

    return metadata.version("rknn-toolkit2")
