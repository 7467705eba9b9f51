"""``python -m benchmarks.memory``: the memory that inference needs, native 5-D beside rank 4, run in the same ways.

Peak memory does not depend on what else the machine does, so this needs no quiet one. Ways to run a file:

- *defaults*: ONNX Runtime's own session, as one would write it without edge4d;
- *opened*: `edge4d.open` on the ``.onnx``;
- *built*: `edge4d build` with its defaults, then `edge4d.open` on the engine.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.candidates import EDGE4D, EDGE4D_FOR, LIMIT, NATIVE, clips_of, make_onnx, network_of
from benchmarks.cases import Case, load_cases, select
from benchmarks.compare import markdown
from benchmarks.measuring import RESULTS, say, stamp_of
from edge4d.errors import Edge4dError, UsageError
from edge4d.files import atomic_write, refuse_existing, refuse_folder

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["TARGET", "WAYS", "main", "measure", "ratio", "table"]

SCHEMA = 1
TARGET = 1.2
"""Times the native form's peak, run in the same way."""

WAYS = ("defaults", "opened", "built")
_CALLS = 3  # ONNX Runtime may allot more in the second call than in the first
_KEYS = {"VmHWM": "peak_mib", "RssAnon": "anonymous_mib", "RssFile": "file_mib"}

Row = dict[str, Any]


def measure(case: Case, folder: Path, stamp: Mapping[str, Any], how: Mapping[str, Any] | None = None) -> list[Row]:
    """Rows of one case: every form in every way.

    Args:
        case: what is run.
        folder: for the files.
        stamp: what every row states.
        how: more options of `edge4d.export` for both rank-4 forms.

    Raises:
        UsageError: a form's numbers are off by more than `LIMIT` of the native form's range.
    """
    import numpy as np

    from edge4d import exporters

    network, clips = network_of(case), clips_of(case, 1)
    files = make_onnx(network, clips, folder, **(how or {}))
    del network
    np.savez(folder / "clips.npz", *[clip.numpy() for clip in clips])
    rows, wanted = [], None
    for form, path in files.items():
        engine = path.with_suffix(".built.onnx")
        exporters.get("onnxruntime").build(path, engine, max_rank=None if form == NATIVE else 4)
        for way in WAYS:
            told = _in_child(engine if way == "built" else path, way, case.threads, folder)
            got = np.load(folder / "result.npy") if way != "defaults" else None
            wanted = got if wanted is None else wanted
            error = None if got is None or wanted is None else float(np.abs(got - wanted).max() / np.ptp(wanted))
            if error is not None and not error <= LIMIT:
                raise UsageError(f"{case.name}/{form}, {way}: {error:.2g} of the range from native 5-D")
            row = {"schema": SCHEMA, "case": case.name, "form": form, "way": way, "shape": [case.batch, *case.shape]}
            row |= {"threads": case.threads, "calls": _CALLS, "options": dict(how or {}), **told}
            rows.append(row | {"file_bytes": _size(engine if way == "built" else path), "error": error, **stamp})
            say(f"{case.name}/{form}, {way}: {told['peak_mib']:.0f} MiB")
    return rows


def ratio(rows: Sequence[Row], case: str, form: str, way: str, to: str | None = None) -> float:
    """Peak of a form over that of native 5-D run in the same way, or in the way `to`."""
    peaks = {(row["case"], row["form"], row["way"]): row["peak_mib"] for row in rows}
    return float(peaks[case, form, way] / peaks[case, NATIVE, to or way])


def table(rows: Sequence[Row]) -> str:
    """A markdown table: peaks in MiB, and the ratio to native 5-D run in the same way."""
    cases = list(dict.fromkeys(row["case"] for row in rows))
    forms = [form for form in (EDGE4D, EDGE4D_FOR) if any(row["form"] == form for row in rows)]
    found = {(row["case"], row["form"], row["way"]): row for row in rows}
    head = ["network", *(f"native, {way}" for way in WAYS)]
    head += [f"{form}, {way}" for form in forms for way in WAYS] + [f"{form}, built, to defaults" for form in forms]
    body = []
    for case in cases:
        line = [case, *(f"{found[case, NATIVE, way]['peak_mib']:.0f}" for way in WAYS)]
        for form in forms:
            for way in WAYS:
                line.append(f"{found[case, form, way]['peak_mib']:.0f} ({ratio(rows, case, form, way):.2f}×)")
        line += [f"{ratio(rows, case, form, 'built', 'defaults'):.2f}×" for form in forms]
        body.append(line)
    return markdown(head, body, left=1)


def main(argv: Sequence[str] | None = None) -> int:
    """Returns 0, or the exit code of an error."""
    options = _parser().parse_args(argv)
    try:
        if options.child is not None:
            return _child(*options.child)
        if options.render is not None:
            lines = options.render.read_text(encoding="utf-8").splitlines()
            print(table([json.loads(line) for line in lines]))
            return 0
        return _run(options)
    except Edge4dError as error:
        say(f"error: {error}")
        return error.exit_code


def _run(options: argparse.Namespace) -> int:
    import torch

    from edge4d.validators.fps import machine

    if not Path("/proc/self/status").is_file():
        raise UsageError("peak and kinds of memory are read from /proc, which this system does not have")
    torch.set_num_threads(1)
    cases = select(load_cases(), options.cases)
    stamp = stamp_of() | {"machine": dict(machine())}
    out: Path = options.out or RESULTS / f"memory-{stamp['date']}-cpu.jsonl"
    refuse_existing(out, options.force)
    refuse_folder(out)
    asked = {"max_weight_growth": options.max_weight_growth, "max_activation_memory": options.max_activation_memory}
    how = {key: value for key, value in asked.items() if value is not None}
    rows: list[Row] = []
    for case in cases:
        with tempfile.TemporaryDirectory(prefix="edge4d-memory-") as folder:
            rows += measure(case, Path(folder), stamp, how)
    atomic_write(out, "".join(json.dumps(row) + "\n" for row in rows).encode())
    print(table(rows))
    say(f"wrote {out}")
    return 0


def _in_child(path: Path, way: str, threads: int, folder: Path) -> dict[str, float]:
    """What a process of its own tells of itself after it has run the file."""
    words = [sys.executable, "-m", "benchmarks.memory", "--child", str(path), way, str(threads), str(folder)]
    told = subprocess.run(words, capture_output=True, text=True, check=False)
    if told.returncode:
        raise UsageError(f"{path.name}, {way}: its process ended with {told.returncode}\n{told.stderr[-2000:]}")
    answer: dict[str, float] = json.loads(told.stdout.splitlines()[-1])
    return answer


def _child(path: str, way: str, threads: str, folder: str) -> int:
    import numpy as np

    stored = np.load(Path(folder, "clips.npz"))
    clips = [stored[name] for name in stored.files]
    if way == "defaults":
        import onnxruntime

        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = int(threads)
        session = onnxruntime.InferenceSession(path, settings, providers=["CPUExecutionProvider"])
        loaded = _status()
        feeds = {i.name: a.reshape(i.shape) for i, a in zip(session.get_inputs(), clips, strict=True)}
        for _ in range(_CALLS):  # packed or not, an array of the same size: the numbers do not matter here
            session.run(None, feeds)
    else:
        from edge4d.artifact import open as open_artifact

        with open_artifact(path, threads=int(threads)) as opened:
            loaded = _status()
            for _ in range(_CALLS):
                results = opened(*clips)
        np.save(Path(folder, "result.npy"), next(iter(results.values())))
    print(json.dumps(_status() | {"loaded_mib": loaded["peak_mib"]}))
    return 0


def _status() -> dict[str, float]:
    """MiB of this process: its highest resident memory; what it has now of its own, and of mapped files."""
    lines = Path("/proc/self/status").read_text().splitlines()
    found = dict(line.split(":", 1) for line in lines)
    return {name: int(found[key].split()[0]) / 1024 for key, name in _KEYS.items()}


def _size(path: Path) -> int:
    beside = path.with_name(path.name + ".data")
    return path.stat().st_size + (beside.stat().st_size if beside.is_file() else 0)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description=__doc__)
    parser.add_argument("--cases", nargs="+", metavar="NAME", help="only these of cases.toml")
    parser.add_argument("--max-weight-growth", type=float, metavar="X", help="as of edge4d export")
    parser.add_argument("--max-activation-memory", type=int, metavar="BYTES", help="as of edge4d export")
    parser.add_argument("--out", type=Path, metavar="FILE", help="results/memory-DATE-cpu.jsonl when not given")
    parser.add_argument("--force", action="store_true", help="replace an existing FILE")
    parser.add_argument("--render", type=Path, metavar="FILE", help="the table of a record, nothing measured")
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    sys.exit(main())
