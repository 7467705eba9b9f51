"""The process in which one candidate of a benchmark is measured: JSON lines in on stdin, JSON lines out on stdout.

``describe`` is answered by ``facts`` of the file, ``load`` by ``ready``, each ``run`` by ``times``; what a user can
mend by ``error``. Anything else goes to stderr and ends the process, which the parent sees and reports.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TextIO

from edge4d.errors import Edge4dError, RuntimeUnavailable, UsageError
from edge4d.exporters import has_runtime
from edge4d.validators.fps_facts import facts_of, no_copies

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = ["CLOCKS", "main", "peak_rss_mib"]

CLOCKS = {"wall": time.perf_counter_ns, "processor": time.process_time_ns}
"""Nanoseconds, by the name that `edge4d.validators.fps_paths.bench_paths` takes."""


class _Call(NamedTuple):
    """Nanoseconds of one call: the run, packing where there is any, copies where the runtime tells them apart."""

    run_ns: int
    pack_ns: int | None = None
    copy_ns: int | None = None


class _Candidate(NamedTuple):
    """One loaded model.

    Attributes:
        call: runs once.
        shapes: the logical inputs.
        details: what the report states.
    """

    call: Callable[[], _Call]
    shapes: list[tuple[int, ...]]
    details: dict[str, Any]


def main() -> int:
    """Serve one parent until it says stop or goes away."""
    # Whatever a model, or a library below Python, prints goes to stderr; stdout carries the protocol alone.
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)
    candidate: _Candidate | None = None
    for line in sys.stdin:
        order = json.loads(line)
        if order["do"] == "stop":
            break
        try:
            if order["do"] == "describe":
                _say(replies, "facts", facts_of(Path(order["path"])))
            elif order["do"] == "load":
                start = time.perf_counter()
                candidate = _load(order)
                answer = {"load_s": round(time.perf_counter() - start, 3), "copy_unknown": no_copies(candidate.details)}
                clips, frames = clips_and_frames(candidate.shapes)
                answer |= {"shapes": candidate.shapes, "clips": clips, "frames": frames, "details": candidate.details}
                _say(replies, "ready", answer)
            elif candidate is not None:
                spent = [candidate.call() for _ in range(order["calls"])]
                packs = [one.pack_ns for one in spent if one.pack_ns is not None]
                copies = [one.copy_ns for one in spent if one.copy_ns is not None]
                _say(replies, "times", {"run_ns": [one.run_ns for one in spent], "pack_ns": packs, "copy_ns": copies})
        except Edge4dError as error:
            _say(replies, "error", {"message": str(error), "exit_code": error.exit_code})
    return 0


def clips_and_frames(shapes: Sequence[Sequence[int]]) -> tuple[int, int]:
    """Clips (N) and frames (N * T) of one call: those of the first input N C T H W, else N of the first input."""
    for shape in shapes:
        if len(shape) == 5:
            return shape[0], shape[0] * shape[2]
    first = next((shape[0] for shape in shapes if shape), 1)
    return first, first


def peak_rss_mib() -> float | None:
    """The highest resident memory of this process so far, in MiB; None where the system does not tell.

    On Linux it is read from /proc: getrusage's figure is inherited from the parent across fork and exec.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
        return None
    if sys.platform == "darwin":
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return None


def _say(replies: TextIO, event: str, values: Mapping[str, Any]) -> None:
    replies.write(json.dumps({"event": event, "rss_mib": peak_rss_mib(), **values}) + "\n")
    replies.flush()


def _load(order: Mapping[str, Any]) -> _Candidate:
    path = Path(order["path"])
    if has_runtime(path):
        return _artifact(path, order)
    return _torch(path, order)


def _artifact(path: Path, order: Mapping[str, Any]) -> _Candidate:
    """An ONNX file or engine: the session's run is timed alone, packing and unpacking apart."""
    import numpy as np

    from edge4d.artifact import open as open_artifact
    from edge4d.exporters import for_path

    # This process is expendable, and has its own limit of time: the runtime may live in it.
    wanted = {"threads": order["threads"], "providers": order["providers"]}
    known = for_path(path).open_options
    opened = open_artifact(path, timeout=0, **{name: value for name, value in wanted.items() if name in known})
    if opened.session.details.get("simulated"):
        opened.close()
        raise RuntimeUnavailable(
            f"{path} runs on a simulator here, whose speed says nothing about the device's",
            hint="measure it on the device itself",
        )
    shapes = [tuple(shape) for shape in order["shapes"]] or [port.own_shape for port in opened.inputs]
    if len(shapes) != len(opened.inputs):
        raise UsageError(f"{path} takes {len(opened.inputs)} inputs, --input-shape was given {len(shapes)} times")
    generator = np.random.default_rng(order["seed"])
    arrays = []
    for port, shape in zip(opened.inputs, shapes, strict=True):
        if any(size < 1 for size in shape):
            raise UsageError(f"{path} leaves the shape of input {port.name!r} open", hint="give --input-shape")
        # Zeros where numbers are indices or masks: the value that is always valid.
        own = shape if port.intake is None else port.intake.shape(shape)
        if port.dtype.startswith("float"):
            arrays.append(generator.standard_normal(own).astype(port.dtype))
        else:
            frames = port.intake is not None and port.intake.normalize is not None
            arrays.append(generator.integers(0, 256 if frames else 1, own).astype(port.dtype))
    packed = any(port.packing for port in (*opened.inputs, *opened.outputs))
    now = CLOCKS[order["clock"]]

    def call() -> _Call:
        begin = now()
        feeds = opened.pack(*arrays)
        start = now()
        results = opened.session.run(feeds)
        stop = now()
        opened.unpack(results)
        pack = (start - begin) + (now() - stop) if packed else None
        if (parts := opened.session.spent) is not None:  # the device's own clock is the better one
            return _Call(max(1, round(parts["compute"] * 1e6)), pack, round(parts["copies"] * 1e6))
        return _Call(stop - start, pack)

    told = opened.session.metadata.get("edge4d.precision")
    return _Candidate(call, shapes, ({"precision": told} if told else {}) | dict(opened.session.details))


def _torch(path: Path, order: Mapping[str, Any]) -> _Candidate:
    """Anything that PyTorch loads: eager, in inference mode, on the CPU."""
    import torch

    from edge4d.loading import load_model, resolve_inputs
    from edge4d.loading.options import options_of

    torch.set_num_threads(order["threads"])
    options = options_of(path, order["factory"], order["submodule"], order["fix"])
    loaded = load_model(path, trust_pickle=order["trust_pickle"], **options)
    wanted = order["shapes"] or (order["likely_shapes"] if loaded.example_args is None else [])
    args, sentence = resolve_inputs(loaded, [tuple(shape) for shape in wanted], seed=order["seed"])
    module, now = loaded.module, CLOCKS[order["clock"]]
    if module is None:
        raise UsageError(f"{path} holds nothing that PyTorch can run")
    if not order["shapes"] and wanted:
        sentence = "those of another candidate"

    def call() -> _Call:
        with torch.inference_mode():
            start = now()
            module(*args, **loaded.example_kwargs)
            return _Call(now() - start)

    leaves = torch.utils._pytree.tree_leaves((args, loaded.example_kwargs))
    shapes = [tuple(leaf.shape) for leaf in leaves if isinstance(leaf, torch.Tensor)]
    details = {
        "runtime": "pytorch",
        "version": torch.__version__,
        "providers": ["cpu"],
        "threads": torch.get_num_threads(),
        "inputs": sentence,
    }
    return _Candidate(call, shapes, details)
