"""A benchmark of model files, each in a process of its own, their rounds triggered in turn from here."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from edge4d.errors import Edge4dError, UsageError
from edge4d.exporters import has_runtime
from edge4d.loading.options import refuse_unused
from edge4d.validators.fps import FpsReport, Samples, check_counts, machine, summarise
from edge4d.validators.fps_native import NativeForms, check_native, place_of
from edge4d.validators.fps_worker import CLOCKS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType

    from edge4d.fixed_inputs import Fixes

__all__ = ["bench_paths"]

_SETTLE_S = 0.02
"""Pause before each turn: threads of the runtime before it still spin for some milliseconds, waiting for more work."""
_START = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from edge4d.validators.fps_worker import main; sys.exit(main())"
)
"""What a worker runs: it imports from where this process does, and not from the current folder as `-m` would."""
_FACTS = ("size_bytes", "size_unknown", "build_s", "build_unknown")
"""What a worker tells of a file, see `edge4d.validators.fps_facts.facts_of`."""
_TAIL = 15
"""Lines of a dead worker's stderr that are shown."""


def bench_paths(
    paths: Sequence[str | os.PathLike[str]],
    *,
    rounds: int = 20,
    warmup: int = 3,
    calls_per_round: int = 1,
    threads: int | None = None,
    providers: Sequence[str] | None = None,
    input_shapes: Sequence[Sequence[int]] = (),
    factory: str | None = None,
    trust_pickle: bool = False,
    submodule: str | None = None,
    fix: Fixes | None = None,
    seed: int = 0,
    time_limit_s: float = 600.0,
    native: bool = False,
    clock: str = "wall",
) -> FpsReport:
    """Time model files against each other, the reference first.

    Files of a runtime run on it (``.onnx`` and ``.ort`` on ONNX Runtime, engines on theirs), anything else eagerly on
    PyTorch, all with the same number of threads.
    Only the runtime's work is timed; packing of inputs and outputs is reported apart. Memory is the high-water mark of
    each candidate's own process, interpreter and libraries included.

    Args:
        paths: the reference and the candidates.
        rounds: turns of each.
        warmup: calls of each before the first turn, not timed.
        calls_per_round: timed calls in a turn; more than one steadies very small models.
        threads: CPU threads of each; all that this process may use when None.
        providers: ONNX Runtime's execution providers; the CPU when None.
        input_shapes: one for each input, e.g. (1, 3, 16, 112, 112), where a file does not say.
        factory: builds the network of a state_dict, ``package.module:callable``.
        trust_pickle: the user vouches for pickled modules.
        submodule, fix: as in `edge4d.export`; of models that PyTorch runs.
        seed: of the random inputs.
        time_limit_s: seconds that a candidate may take to load, to warm up, or for a turn; with `native` also to export
            the native form, and to build an engine of it.
        native: export the reference by torch.onnx with its five axes, too, and time that on every runtime that a
            candidate runs on. These forms come last in the report.
        clock: ``wall``, or ``processor`` for the time that the candidate's process spent on processors, which other
            work on the machine hardly lengthens. That is the latency of one thread; of several it is their sum, those
            that wait for work included, and of a device it says nothing.

    Returns:
        The report. A candidate that fails, dies or exceeds the limit is in it with its reason.

    Raises:
        UsageError: nothing to measure, a file that does not exist, a native form of what is no PyTorch model, or the
            processor's clock with several threads.
    """
    check_counts(len(paths), rounds, warmup)
    if clock not in CLOCKS or (clock == "processor" and threads != 1):
        raise UsageError(f"clock is {clock!r} with {threads} threads", hint="wall, or processor with one thread")
    if calls_per_round < 1 or time_limit_s <= 0:
        raise UsageError(f"calls_per_round={calls_per_round}, time_limit_s={time_limit_s}: both must be positive")
    for path in paths:
        if not Path(path).exists():
            raise UsageError(f"{path}: no such file")
    refuse_unused([Path(path) for path in paths], submodule, fix)
    if native:
        check_native(Path(paths[0]))
    count = threads or int(machine()["cores"])
    order = {
        "threads": count,
        "providers": list(providers) if providers is not None else None,
        "shapes": [list(shape) for shape in input_shapes],
        "factory": factory,
        "trust_pickle": trust_pickle,
        "submodule": submodule,
        "fix": dict(fix or {}),
        "seed": seed,
        "clock": clock,
    }
    gathered = {name: Samples() for name in _names(paths)}
    with ExitStack() as stack:
        workers = {
            name: stack.enter_context(_Worker(samples, count, time_limit_s)) for name, samples in gathered.items()
        }
        placed = dict(zip(workers, paths, strict=True))
        # Artifacts first: their inputs tell which shapes to give to a model that does not know its own.
        for name in sorted(workers, key=lambda name: not has_runtime(placed[name])):
            likely: list[list[int]] = next(
                (s.details["shapes"] for s in gathered.values() if "shapes" in s.details), []
            )
            workers[name].load(order | {"path": os.fspath(placed[name]), "likely_shapes": likely})
        if native:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="edge4d-")))
            forms = _native_forms(gathered, placed, order, folder, time_limit_s)
            for name, (samples, file) in forms.items():
                gathered[name] = samples
                workers[name] = stack.enter_context(_Worker(samples, count, time_limit_s))
                if file is not None:
                    shapes = next(iter(gathered.values())).details["shapes"]
                    workers[name].load(order | {"path": os.fspath(file), "shapes": shapes, "likely_shapes": []})
        _compare_shapes(gathered)
        for worker in workers.values():
            worker.run(warmup, keep=False)
        for _ in range(rounds):
            for worker in workers.values():
                time.sleep(_SETTLE_S)
                worker.run(calls_per_round, keep=True)
    return summarise(gathered, rounds=rounds, warmup=warmup)


class _Worker:
    """One candidate's process. Whatever goes wrong in it becomes its `Samples.failure`; then it does nothing more."""

    def __init__(self, samples: Samples, threads: int, time_limit_s: float) -> None:
        self._samples = samples
        self._limit = time_limit_s
        self._threads = threads
        self._replies: queue.Queue[str | None] = queue.Queue()

    def __enter__(self) -> _Worker:
        self._stderr: IO[bytes] = tempfile.TemporaryFile()
        threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(self._threads))
        self._process = subprocess.Popen(
            [sys.executable, "-c", _START, json.dumps(sys.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            text=True,
            encoding="utf-8",
            env=os.environ | threads,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        return self

    def load(self, order: Mapping[str, Any]) -> None:
        # In a process of its own: to look at a file may take the memory of all its weights, and the peak of this one is
        # to be that of the runtime.
        with _Worker(self._samples, self._threads, self._limit) as other:
            facts = other._ask({"do": "describe", "path": order["path"]}, "to look at the file")
        if facts is not None:
            self._samples.facts = {key: facts[key] for key in _FACTS}
        answer = self._ask({"do": "load", **order}, "to load")
        if answer is not None:
            self._samples.clips, self._samples.frames = answer["clips"], answer["frames"]
            self._samples.details = answer["details"] | {"shapes": answer["shapes"]}
            self._samples.load_rss_mib = answer["rss_mib"]
            self._samples.load_s, self._samples.copy_unknown = answer["load_s"], answer["copy_unknown"]

    def run(self, calls: int, *, keep: bool) -> None:
        answer = self._ask({"do": "run", "calls": calls}, "for one turn" if keep else "to warm up")
        if answer is not None and keep:
            self._samples.run_ns.append(answer["run_ns"])
            self._samples.pack_ns.extend(answer["pack_ns"])
            self._samples.copy_ns.extend(answer["copy_ns"])
            self._samples.peak_rss_mib = answer["rss_mib"]

    def _ask(self, order: Mapping[str, Any], what: str) -> dict[str, Any] | None:
        if self._samples.failure is not None:
            return None
        try:
            assert self._process.stdin is not None
            self._process.stdin.write(json.dumps(order) + "\n")
            self._process.stdin.flush()
            line = self._replies.get(timeout=self._limit)
        except queue.Empty:
            self._process.kill()
            self._samples.failure = f"it took more than {self._limit:g} s {what}" + self._tail()
            return None
        except BrokenPipeError:
            line = None
        if line is None:
            code = self._process.wait()
            how = f"by signal {-code}" if code < 0 else f"with code {code}"
            hint = " (out of memory?)" if code == -9 else ""
            self._samples.failure = f"its process died {how}{hint}" + self._tail()
            return None
        answer: dict[str, Any] = json.loads(line)
        if answer["event"] == "error":
            self._samples.failure, self._samples.exit_code = answer["message"], answer["exit_code"]
            return None
        return answer

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._replies.put(line)
        self._replies.put(None)

    def _tail(self) -> str:
        self._stderr.seek(0)
        lines = self._stderr.read().decode(errors="replace").splitlines()[-_TAIL:]
        return "".join(f"\n    {line}" for line in lines)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # The measurement is over or was interrupted; there is nothing in a worker worth waiting for.
        self._process.kill()
        self._process.wait()
        self._reader.join()
        for stream in (self._process.stdin, self._process.stdout, self._stderr):
            if stream is not None:
                try:
                    stream.close()
                except BrokenPipeError:
                    continue  # an order that a dead worker never took


def _native_forms(
    gathered: Mapping[str, Samples],
    placed: Mapping[str, str | os.PathLike[str]],
    order: Mapping[str, Any],
    folder: Path,
    time_limit_s: float,
) -> dict[str, tuple[Samples, Path | None]]:
    """A native form of the reference for each runtime and device, and its file; None where there is none, with why.

    The candidates there are told its name.
    """
    first = next(iter(gathered))
    reference = gathered[first]
    model = {"model": str(Path(placed[first]).absolute()), "shapes": reference.details.get("shapes", [])}
    asked = {key: order[key] for key in ("factory", "trust_pickle", "submodule", "fix", "seed")}
    maker = NativeForms(model | asked, folder, time_limit_s)
    forms: dict[str, tuple[Samples, Path | None]] = {}
    places = list(dict.fromkeys(place for samples in gathered.values() if (place := place_of(samples)) is not None))
    runtimes = [place[0] for place in places]
    for place in places:
        those = [name for name, samples in gathered.items() if place_of(samples) == place]
        name = f"native-5d ({place[0] if runtimes.count(place[0]) == 1 else ', '.join(place)})"
        made = Samples(is_native=True, native=name)
        path = None
        if reference.failure is not None:
            made.failure, made.exit_code = f"{first} itself failed", reference.exit_code
        else:
            try:
                path = maker.of(place[0], Path(placed[those[0]]))
            except Edge4dError as error:
                made.failure, made.exit_code = str(error), error.exit_code
        forms[name] = (made, path)
        for one in those:
            gathered[one].native = name
    return forms


def _names(paths: Sequence[str | os.PathLike[str]]) -> list[str]:
    """A different name for each: the file's own, with folders where two are the same, numbered where that fails too."""
    short = [Path(path).name for path in paths]
    names: list[str] = []
    for path, name in zip(paths, short, strict=True):
        wanted = name if short.count(name) == 1 else os.fspath(path)
        serial = 1
        while wanted in names:
            serial += 1
            wanted = f"{os.fspath(path)} ({serial})"
        names.append(wanted)
    return names


def _compare_shapes(gathered: Mapping[str, Samples]) -> None:
    """A speedup between models that were given different amounts of input would be a lie."""
    reference = next(iter(gathered.values()))
    for samples in gathered.values():
        if samples.failure is None and reference.failure is None:
            own, other = samples.details["shapes"], reference.details["shapes"]
            if own != other:
                samples.incomparable = f"it was given inputs {_x(own)}, the reference {_x(other)}"
                if samples.details.get("runtime") == "pytorch":
                    samples.incomparable += f" ({samples.details.get('inputs')})"


def _x(shapes: Sequence[Sequence[int]]) -> str:
    return ", ".join("x".join(map(str, shape)) or "()" for shape in shapes)
