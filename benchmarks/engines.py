"""``python -m benchmarks.engines``: runtime × precision for five networks: parity, speed, size and build time.

Every network is exported in every precision and built for every runtime that is here, each build under a time limit.
What runs on this machine is held against the 5-D network in PyTorch, and timed in turns with it and with the native
5-D form on the same runtime. What needs a GPU that is not here is built, and marked.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.candidates import write_eager
from benchmarks.engines_table import into_document, read_rows
from benchmarks.measuring import RESULTS, busy, date_of, most, rounded, say, stage, stamp_of
from benchmarks.networks import NETWORKS, Case
from edge4d import exporters
from edge4d.artifact import open as open_artifact
from edge4d.errors import Edge4dError, UsageError
from edge4d.exporting import export
from edge4d.files import atomic_write, refuse_existing, refuse_folder

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from edge4d.validators.fps import CandidateFps

__all__ = ["PRECISIONS", "RUNTIMES", "SCHEMA", "main", "measure"]

SCHEMA = 1
RUNTIMES = ("onnxruntime", "openvino", "tensorrt_rtx")
PRECISIONS = ("fp32", "fp16", "int8")
DOCUMENT = Path(__file__).resolve().parents[1] / "docs" / "engines.md"
BUILD_LIMIT_S = 900.0
RUN_LIMIT_S = 300.0
"""For one candidate to load, to warm up, and for a turn."""

Row = dict[str, Any]


def measure(
    name: str, case: Case, folder: Path, *, rounds: int, build_limit: float, runtimes: Sequence[str] = RUNTIMES
) -> Iterator[Row]:
    """Rows of one network: its eager form, native 5-D forms, and runtime × precision.

    Args:
        name: of the network.
        case: the network and its clips.
        folder: where files go.
        rounds: turns of each candidate; 0 times nothing.
        build_limit: seconds for one build.
        runtimes: names of exporters.
    """
    common = {"schema": SCHEMA, "network": name, "shape": [1, *case.clips.shape[1:]]}
    common["weights"] = "random" if case.labels is None else "trained"
    with stage(f"{name}: PyTorch"):
        eager = folder / "eager.pt2"
        write_eager(case.model, case.args, eager)
        expected = case.scores()
    models, failures = _export_all(name, case, folder)
    for runtime in runtimes:
        found = exporters.get(runtime).probe()
        rows: dict[str, Row] = {}
        engines: dict[str, Path] = {}
        for precision in PRECISIONS:
            own = common | {"form": "rank-4", "runtime": runtime, "version": found.version, "precision": precision}
            rows[precision] = own | _blank()
            if not found.ok or precision in failures:
                rows[precision]["failure"] = failures.get(precision) or f"not here: {found.why_not}"
                continue
            with stage(f"{name}: {runtime} {precision}"):
                engine = _build(runtime, models[precision], found.why_not_run, build_limit, rows[precision])
                if engine is not None and found.why_not_run is None:
                    engines[precision] = engine
                    rows[precision] |= _parity(engine, precision, case, expected)
        extra = []
        if engines and rounds:
            with stage(f"{name}: {runtime}, {rounds} rounds"):
                extra = _time(eager, engines, rows, rounds, common | {"beside": runtime})
        yield from (*extra, *rows.values())


def _blank() -> Row:
    return {"build_s": None, "size_bytes": None, "parity": None, "fps": None, "failure": None, "needs": None}


def _export_all(name: str, case: Case, folder: Path) -> tuple[dict[str, Path], dict[str, str]]:
    """The rank-4 file in every precision, and why there is none."""
    models, failures = {}, {}
    for precision in PRECISIONS:
        with stage(f"{name}: exporting {precision}"):
            path = folder / f"{precision}.onnx"
            calib = {"calib": case.calib, "calibration": "minmax"} if precision == "int8" else {}
            try:
                # Parity is checked on the engines, on more clips than an export looks at.
                export(case.model, case.args, output=path, parity=False, precision=precision, **calib)
                models[precision] = path
            except Edge4dError as error:
                failures[precision] = f"export: {_brief(error)}"
    return models, failures


def _build(runtime: str, model: Path, why_not_run: str | None, limit: float, row: Row) -> Path | None:
    """Build under the limit and note what it took; None, with the reason in the row, where it fails."""
    exporter = exporters.get(runtime)
    output = model.with_name(f"{model.stem}.{runtime}{exporter.suffixes[0]}")
    # Without a GPU one architecture is named, so that build times of several are not added up.
    options = {"device": ("sm_86",)} if why_not_run is not None else {}
    row["needs"] = why_not_run
    row["build_options"] = {key: list(value) for key, value in options.items()}
    try:
        built = exporter.build(model, output, timeout=limit, **options)
    except Edge4dError as error:
        row["failure"] = f"build: {_brief(error)}"
        return None
    row["build_s"], row["size_bytes"] = round(built.seconds, 2), built.size_bytes
    return built.path


def _parity(engine: Path, precision: str, case: Case, expected: np.ndarray) -> Row:
    """The engine's scores against the 5-D network's in PyTorch, with the limits of its precision."""
    from edge4d.validators.parity import compare
    from edge4d.validators.tolerances import tolerance_for

    try:
        with open_artifact(engine, timeout=RUN_LIMIT_S) as session:
            got = np.concatenate([next(iter(session(clip[None]).values())) for clip in case.clips])
    except Edge4dError as error:
        return {"failure": f"run: {_brief(error)}"}
    report = compare({"scores": expected}, {"scores": got}, tolerance=tolerance_for(precision))
    difference = report.rows[0].difference
    told: Row = {"ok": report.ok, "clips": len(case.clips), "limits": tolerance_for(precision).to_dict()}
    if difference is not None:
        told |= {"max_error_of_range": difference.relative, "cosine": difference.cosine, "snr_db": difference.snr_db}
    told["top1"] = float((expected.argmax(1) == got.argmax(1)).mean())
    told["accuracy"] = None if case.labels is None else float((got.argmax(1) == case.labels).mean())
    return {"parity": told}


def _time(eager: Path, engines: Mapping[str, Path], rows: Mapping[str, Row], rounds: int, common: Row) -> list[Row]:
    """Fill in the speed of each engine; gives the rows of the eager and the native form beside them."""
    from edge4d.validators.fps_paths import bench_paths

    shares = [busy()]
    report = bench_paths([eager, *engines.values()], rounds=rounds, warmup=2, time_limit_s=RUN_LIMIT_S, native=True)
    shares.append(busy())
    how = {"rounds": rounds, "machine": dict(report.machine), "busy": most(shares)}
    first, *others = report.candidates
    for precision, line in zip(engines, others, strict=False):
        rows[precision]["fps"] = _fps(line, how)
        rows[precision]["failure"] = rows[precision]["failure"] or line.failure
    extra = []
    for line in (first, *others[len(engines) :]):
        form = {"form": "native-5d" if line.is_native else "eager", "runtime": line.details.get("runtime")}
        told = {"version": line.details.get("version"), "precision": "fp32", "build_s": line.build_s}
        told |= {"size_bytes": line.size_bytes, "fps": _fps(line, how), "failure": line.failure}
        extra.append({**common, **_blank(), **form, **told})
        if line.is_native:
            extra[-1]["runtime"] = common["beside"]
    return extra


def _fps(line: CandidateFps, how: Row) -> Row | None:
    if line.latency_ms is None:
        return None
    numbers = ("frames_per_s", "clips_per_s", "pack_ms", "copy_ms", "load_s", "load_rss_mib", "peak_rss_mib")
    return {
        **{name: rounded(getattr(line, name)) for name in numbers},
        "latency_ms": {name: rounded(value) for name, value in line.latency_ms.items()},
        "ratio_to_pytorch": rounded(line.speedup),
        "ratio_to_native": rounded(line.speedup_to_native),
        "samples": line.samples,
        "threads": line.details.get("threads"),
        **how,
    }


def _brief(error: Edge4dError) -> str:
    return f"{type(error).__name__}: {error.message[:300]}"


def main(argv: Sequence[str] | None = None) -> int:
    """Returns 0, 1 when something failed that needs no other device or left its tolerance, 2 for wrong usage."""
    try:
        return _run(_parser().parse_args(argv))
    except Edge4dError as error:
        say(f"error: {error}")
        return error.exit_code


def _run(options: argparse.Namespace) -> int:
    from edge4d.validators.fps import machine

    if options.render is not None:
        into_document(read_rows(options.render), options.docs)
        return 0
    if options.rounds < 0 or not options.build_limit > 0:
        raise UsageError(f"--rounds {options.rounds} --build-limit {options.build_limit}: expected 0 or more, above 0")
    if unknown := [name for name in options.networks if name not in NETWORKS]:
        raise UsageError(f"no network {', '.join(unknown)}", hint=f"there are {', '.join(NETWORKS)}")
    out: Path = options.out or RESULTS / f"engines-{date_of()}-cpu-{machine()['cores']}core.jsonl"
    refuse_existing(out, options.force or options.add)
    refuse_folder(out)
    rows = [row for row in read_rows(out) if row["network"] not in options.networks] if _adds(options, out) else []
    stamp = stamp_of()
    for name in options.networks:
        with tempfile.TemporaryDirectory(prefix="edge4d-engines-") as folder:
            for row in measure(
                name, NETWORKS[name](), Path(folder), rounds=options.rounds, build_limit=options.build_limit
            ):
                rows.append(row | stamp)
                print(json.dumps(rows[-1]), flush=True)
        # After each network: an hour of work is not lost to what the next one does.
        atomic_write(out, "".join(json.dumps(row) + "\n" for row in rows).encode())
    say(f"wrote {out}")
    if not options.no_docs:
        into_document(rows, options.docs)
        say(f"wrote {options.docs}")
    problems = [(row, _problem(row)) for row in rows]
    for row, problem in problems:
        if problem:
            say(f"error: {row['network']} {row['runtime']} {row['precision']} {row['form']}: {problem}")
    return int(any(problem for _, problem in problems))


def _adds(options: argparse.Namespace, out: Path) -> bool:
    return bool(options.add) and out.exists()


def _problem(row: Row) -> str | None:
    if row["failure"] is not None:
        return str(row["failure"])
    parity = row["parity"]
    return f"parity: {parity}" if parity is not None and not parity["ok"] else None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.engines", description=__doc__)
    parser.add_argument("networks", nargs="*", default=list(NETWORKS), metavar="NETWORK", help=", ".join(NETWORKS))
    parser.add_argument("--rounds", type=int, default=10, metavar="N", help="turns of every candidate (10)")
    parser.add_argument("--build-limit", type=float, default=BUILD_LIMIT_S, metavar="S", help="for one build (900)")
    parser.add_argument("--out", type=Path, metavar="FILE", help="results/engines-DATE-cpu-Ncore.jsonl when not given")
    parser.add_argument("--add", action="store_true", help="keep the other networks' rows of FILE")
    parser.add_argument("--force", action="store_true", help="replace an existing FILE")
    parser.add_argument("--docs", type=Path, default=DOCUMENT, metavar="FILE", help="where the table goes")
    parser.add_argument("--no-docs", action="store_true", help="write no table")
    parser.add_argument("--render", type=Path, metavar="FILE", help="measure nothing, write the table of these results")
    return parser


if __name__ == "__main__":
    sys.exit(main())
