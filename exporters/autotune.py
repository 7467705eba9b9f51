"""`--autotune RUNTIME`: which formulation of a layer is fastest, found by timing them on the runtime itself.

Each layer is timed by itself: its clip goes in and its result comes out in *frames* packing, which most neighbours
want.
Layers of one signature (shapes, strides, groups, …) are timed once, and the times are kept under the user's cache
folder for this runtime, version, machine, number of threads and edge4d.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge4d._version import __version__
from edge4d.errors import UsageError, ValidationError
from edge4d.exporters.protocol import Exporter, Session, require

if TYPE_CHECKING:
    from edge4d.lowering.conv.spec import ConvSpec
    from edge4d.planning import Planner

__all__ = ["Autotuner", "cache_folder", "planner_for", "signature"]

_SCHEMA = 1
_ROUNDS = 7
_WARMUP = 2
_LONGEST = 2.0
"""Seconds that the rounds of one layer may take; at least one round is run."""


def cache_folder() -> Path:
    """``$XDG_CACHE_HOME/edge4d``, or ``~/.cache/edge4d``."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if Path(base).is_absolute() else Path.home() / ".cache") / "edge4d"


def signature(spec: ConvSpec) -> str:
    """What decides a layer's time: everything but the values of its weights."""
    told = {
        "x": spec.x.shape,
        "weight": spec.weight.shape,
        "bias": spec.bias is not None,
        "stride": spec.stride,
        "padding": spec.padding,
        "dilation": spec.dilation,
        "groups": spec.groups,
        "transposed": spec.transposed,
        "dtype": str(spec.x.dtype),
    }
    if spec.transposed:
        told["output_padding"] = spec.output_padding
    return json.dumps(told, separators=(",", ":"))


class Autotuner:
    """Times formulations on one runtime; an `edge4d.planning.Tuner`.

    Args:
        exporter: the runtime; it must be able to open ONNX files here.
        budget: seconds that all timing may take; layers after that are not timed.
        threads: of the runtime; None for its own choice.
        folder: where times are kept; None for `cache_folder`.
        timeout: seconds to load a layer, and for each run; 0 loads it into this process, where nothing stops a compiler
            that hangs, and where times hold no passing of arrays between processes.
        progress: told a line for each layer that is timed.

    Attributes:
        timed, known, skipped: layers that were timed now, found in the cache, and left out for want of time.
        failures: why a formulation could not be timed, one sentence each.

    Raises:
        RuntimeUnavailable: the runtime is not here.
        ValidationError: the cache is damaged.
    """

    def __init__(
        self,
        exporter: Exporter,
        *,
        budget: float = math.inf,
        threads: int | None = None,
        folder: Path | None = None,
        timeout: float | None = None,
        progress: Callable[[str], None] | None = None,
    ) -> None:
        version = require(exporter).version
        self.exporter = exporter
        self.threads = threads
        self.timeout = timeout
        self.left = budget
        self.progress = progress
        self.timed: set[str] = set()
        self.known: set[str] = set()
        self.skipped: set[str] = set()
        self.failures: list[str] = []
        self._told = {
            "schema": _SCHEMA,
            "edge4d": __version__,
            "runtime": exporter.name,
            "version": version,
            "threads": threads,
            "machine": _machine(),
        }
        digest = hashlib.sha256(json.dumps(self._told, sort_keys=True).encode()).hexdigest()[:16]
        self.path = (folder or cache_folder()) / f"autotune-{exporter.name}-{digest}.json"
        self._times = self._read()

    def times(self, spec: ConvSpec, names: Iterable[str]) -> Mapping[str, float]:
        """Milliseconds of each formulation, the least of several runs; without those that could not be timed."""
        key, wanted = signature(spec), list(names)
        times = self._times.setdefault(key, {})
        missing = [name for name in wanted if name not in times]
        if not missing:
            if key not in self.timed:
                self.known.add(key)
        elif self.left <= 0:
            self.skipped.add(key)
            return {}
        elif str(spec.x.dtype) != "torch.float32":
            return {}
        else:
            begun = time.perf_counter()
            times.update(self._measure(spec, wanted))
            self.left -= time.perf_counter() - begun
            self.timed.add(key)
            self._write()
            if self.progress is not None:
                best = min((ms, name) for name, ms in times.items()) if times else (math.nan, "none")
                shape = "x".join(map(str, spec.x.shape))
                self.progress(
                    f"autotune: {shape} by {'x'.join(map(str, spec.weight.shape))}: {best[1]} {best[0]:.3g} ms"
                )
        return {name: times[name] for name in wanted if name in times}

    def note(self) -> str:
        """What was done, for people."""
        said = f"autotune on {self.exporter.name}: {len(self.timed)} kinds of layer timed, {len(self.known)} known"
        if self.skipped:
            said += f", {len(self.skipped)} predicted because the time was up (--autotune-budget)"
        return said + (f"; {len(self.failures)} formulations failed: {self.failures[0]}" if self.failures else "")

    def _measure(self, spec: ConvSpec, names: list[str]) -> dict[str, float]:
        """All formulations in turns, so that a disturbance meets all of them."""
        import numpy as np
        import onnx

        from edge4d.errors import Edge4dError
        from edge4d.exporters.layer_graph import layer_model

        options: dict[str, Any] = {} if self.threads is None else {"threads": self.threads}
        sessions: dict[str, Session] = {}
        with tempfile.TemporaryDirectory(prefix="edge4d-autotune-") as folder:
            try:
                for name in names:
                    file = Path(folder, f"{name}.onnx")
                    onnx.save(layer_model(spec, name, self.exporter.name), file)
                    try:
                        sessions[name] = self.exporter.open(file, timeout=self.timeout, **options)
                    except Edge4dError as error:
                        self.failures.append(f"{name}: {error.message}")
                found: dict[str, list[float]] = {name: [] for name in sessions}
                feeds: dict[str, Any] = {}
                begun = time.perf_counter()
                for turn in range(_WARMUP + _ROUNDS):
                    for name, session in sessions.items():
                        if not feeds:
                            shape = session.inputs[0].physical
                            clip = np.random.default_rng(0).standard_normal(shape)
                            feeds = {session.inputs[0].name: clip.astype(session.inputs[0].dtype)}
                        started = time.perf_counter()
                        session.run(feeds)
                        took = (time.perf_counter() - started) * 1e3
                        found[name].append((session.spent or {}).get("compute", took))
                    if turn >= _WARMUP and time.perf_counter() - begun > _LONGEST:
                        break
            finally:
                for session in sessions.values():
                    session.close()
        return {name: float(f"{min(took[_WARMUP:]):.4g}") for name, took in found.items()}

    def _read(self) -> dict[str, dict[str, float]]:
        if not self.path.is_file():
            return {}
        hint = f"delete {self.path}; it holds nothing but times"
        try:
            held = json.loads(self.path.read_text(encoding="utf-8"))
            if held["about"] != self._told:
                raise ValueError("it is about another runtime or machine")
            return {
                str(key): {str(name): _positive(ms) for name, ms in times.items()}
                for key, times in held["times"].items()
            }
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValidationError(f"{self.path}: no autotune cache: {error}", hint=hint) from error

    def _write(self) -> None:
        from edge4d.files import atomic_write

        self.path.parent.mkdir(parents=True, exist_ok=True)
        held = {"about": self._told, "times": {key: times for key, times in self._times.items() if times}}
        atomic_write(self.path, (json.dumps(held, indent=1) + "\n").encode())


def planner_for(
    planner: Planner, runtime: str | None, budget: float, progress: Callable[[str], None] | None
) -> tuple[Planner, Autotuner | None]:
    """A planner that times layers on a runtime; as it was when `runtime` is None.

    Raises:
        UsageError: the planner is for another runtime, or a budget of nothing.
        RuntimeUnavailable: the runtime is not here.
    """
    from edge4d import exporters

    if runtime is None:
        return planner, None
    if planner.runtime != runtime:
        raise UsageError(
            f"--for {planner.runtime} and --autotune {runtime} are two runtimes",
            hint="leave --for out; --autotune implies it",
        )
    if not budget > 0:
        raise UsageError(f"nothing is timed in {budget:g} s", hint="give --autotune-budget some seconds, e.g. 60s")
    tuner = Autotuner(exporters.get(runtime), budget=budget, progress=progress)
    return replace(planner, tuner=tuner), tuner


def _positive(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
        raise ValueError(f"a time of {value!r}")
    return float(value)


def _machine() -> dict[str, Any]:
    from edge4d.validators.fps import machine

    told = dict(machine())
    return {key: told.get(key) for key in ("cpu", "cores")} | {"architecture": platform.machine()}
