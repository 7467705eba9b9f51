"""``python -m benchmarks.accuracy.tune_budget``: how much accuracy `edge4d tune` brings back, and how soon.

Two trained networks (the example's moving digits, and a small r3d on the hard digits) are rewritten with every
structure and tuned on 2,000 clips, without labels and with them; the result is exported in int8 as well. What is
recorded is the accuracy on test clips that neither training nor tuning has seen, at every measurement: the curve.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.accuracy import tables
from benchmarks.accuracy.tune_table import CASES, conditions, plot, recipe_of, render, verdicts
from benchmarks.measuring import stamp_of
from benchmarks.structures import accuracy
from edge4d import blocks
from edge4d.errors import Edge4dError, UsageError
from edge4d.files import atomic_write, refuse_folder
from edge4d.tuning.options import RECIPES

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import nn

ROOT = Path(__file__).parents[2]
LEAST = 0.7
"""Accuracy of an original that is worth tuning for."""
TEST_CLIPS = {"moving-digits": 800, "small-r3d": 1200}
"""Chance moves 98 % of 800 clips by 0.5 points: where networks lie closer, more clips are needed to tell them apart."""

_CLIPS_SEED, _TEST_SEED, _CALIBRATED_ON = 7, 20_000, 64


@dataclass(frozen=True)
class Case:
    """A trained network, clips to tune it on and clips to judge it by; clips (N, C, T, H, W), float32."""

    network: nn.Module
    clips: NDArray[np.float32]
    labels: NDArray[np.int64]
    test: NDArray[np.float32]
    test_labels: NDArray[np.int64]


def case_of(name: str, count: int, judges: int, folder: Path) -> Case:
    """Open a case of `count` clips to tune on and `judges` to judge by; the small r3d is trained on first use."""
    if name == "moving-digits":
        from examples.moving_digits.data import load_images, make_clips, make_test_set
        from examples.moving_digits.demo import load_network

        clips, labels = make_clips(load_images()[0], count, _CLIPS_SEED)
        return Case(load_network(), clips, labels, *make_test_set(judges))
    from benchmarks.accuracy import digits, small_r3d

    network = small_r3d.trained(folder, _say)
    drawn, labels = digits.draw(digits.SETS["source"], count, _CLIPS_SEED, test=False)
    test, test_labels = digits.draw(digits.SETS["source"], judges, _TEST_SEED, test=True)
    return Case(network, small_r3d.as_clips(drawn).numpy(), labels, small_r3d.as_clips(test).numpy(), test_labels)


class Snapshots:
    """Keeps the best weights of every measurement, as the run's checkpoint has them.

    Args:
        checkpoint: of the run.
        told: hears of each.
    """

    def __init__(self, checkpoint: Path, told: Callable[[str], None]) -> None:
        self.checkpoint, self.told, self.seen = checkpoint, told, 0
        self.kept: list[tuple[float, int, dict[str, Any]]] = []  # seconds, steps, the best weights by then

    def __call__(self, share: float, line: str) -> None:
        """Called after each step; the file is read only when there is a newer one."""
        import torch

        if not self.checkpoint.exists() or (changed := self.checkpoint.stat().st_mtime_ns) == self.seen:
            return
        self.seen = changed
        state = torch.load(self.checkpoint, weights_only=True)
        if len(state["history"]) > len(self.kept):
            last = state["history"][-1]
            self.kept.append((last["seconds"], last["step"], state["best"]))
            self.told(f"{share:.0%}  {line}")


def tune_one(
    case: Case,
    block: str,
    *,
    labels: bool,
    recipe: str,
    minutes: float,
    folder: Path,
    seed: int,
    told: Callable[[str], None],
) -> dict[str, Any]:
    """Tune, and measure on the test clips: what is recorded of one run."""
    import torch

    import edge4d
    from edge4d.artifact import open as open_artifact
    from edge4d.swapping import swap
    from edge4d.tuning.checkpoints import checkpoint_path
    from edge4d.tuning.layout import channels_last
    from edge4d.tuning.options import TuneOptions

    data = folder / ("clips.npz" if labels else "clips.npy")
    if not data.exists():
        if labels:
            np.savez(data, clips=case.clips, labels=case.labels)
        else:
            np.save(data, case.clips)
    target = folder / f"{block}-{'labels' if labels else 'clips'}.pt2"
    snapshots = Snapshots(checkpoint_path(target), told)
    args = (torch.from_numpy(case.test[:1]),)
    begun = time.monotonic()
    report = edge4d.tune(
        case.network,
        args,
        data=data,
        output=target,
        block=block,
        labels=labels,
        options=TuneOptions.of(recipe, budget=60 * minutes, seed=seed),
        device="cpu",
        told=snapshots,
    )
    seconds = time.monotonic() - begun
    student = swap(case.network, block).eval()
    channels_last(student)  # sooner measured
    curve = []
    for at, step, weights in snapshots.kept:
        student.load_state_dict(weights)
        curve.append({"seconds": round(at, 1), "step": step, "top1": accuracy(student, case.test, case.test_labels)})
    student.load_state_dict(torch.export.load(target).state_dict)  # the last measurement is not heard of
    final = accuracy(student, case.test, case.test_labels)
    curve.append({"seconds": round(report.seconds, 1), "step": report.steps, "top1": final})
    told(f"top-1 {final:.2%} of the test clips after {report.steps} steps: {report.ended}")
    int8 = folder / f"{target.stem}-int8.onnx"
    edge4d.export(target, output=int8, precision="int8", calib=case.clips[:_CALIBRATED_ON], parity=False)
    with open_artifact(int8) as session:
        got = np.concatenate([next(iter(session(clip[None]).values())) for clip in case.test])
    return {
        "top1": final,
        "top1_int8": float((got.argmax(1) == case.test_labels).mean()),
        "curve": curve,
        "steps": report.steps,
        "ended": report.ended,
        "seconds": round(seconds, 1),
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Returns 0 when all targets are met, 1 when one is missed, 2 for wrong usage, 130 when interrupted."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.accuracy.tune_budget", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, metavar="M", help="the budget of each run (10)")
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=CASES, help="only these networks")
    parser.add_argument("--block", nargs="+", default=blocks.names()[1:], metavar="NAME", help="only these structures")
    parser.add_argument(
        "--labels", nargs="+", default=["no", "yes"], choices=["no", "yes"], help="only without, or with"
    )
    parser.add_argument("--recipe", default="match", choices=list(RECIPES), help="of `edge4d tune` (match)")
    parser.add_argument("--clips", type=int, default=2000, metavar="N", help="clips to tune on (2000)")
    parser.add_argument(
        "--test-clips", type=int, metavar="N", help="clips to judge on (800 moving digits, 1200 of small-r3d)"
    )
    parser.add_argument("--threads", type=int, default=2, metavar="N", help="CPU threads (2)")
    parser.add_argument("--seed", type=int, default=0, metavar="N")
    parser.add_argument(
        "--folder", type=Path, default=ROOT / "out" / "accuracy", help="trained networks (out/accuracy)"
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="the log; results/tune-DATE-MINUTESm.jsonl")
    parser.add_argument("--docs", type=Path, metavar="FILE", help="put the table between the markers of this page")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the curves: a .png or .svg")
    options = parser.parse_args(argv)
    try:
        return _run(options)
    except KeyboardInterrupt:
        _say("stopped; nothing that is finished is lost, and the same command goes on")
        return 130
    except Edge4dError as error:
        _say(f"error: {error}")
        return error.exit_code


def _run(options: argparse.Namespace) -> int:
    import torch

    counts = (options.clips, options.threads, *([] if options.test_clips is None else [options.test_clips]))
    if not options.minutes > 0 or min(counts) < 1:
        raise UsageError("--minutes, --clips, --test-clips and --threads must be above 0")
    stamp = stamp_of()
    out = options.out or ROOT / "benchmarks" / "results" / f"tune-{stamp['date']}-{options.minutes:g}m.jsonl"
    refuse_folder(out)
    if options.plot is not None:
        from edge4d.plotting import check_plot

        check_plot(options.plot)
    torch.set_num_threads(options.threads)
    rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()] if out.exists() else []
    runs = list(_runs(options, rows))
    _say(f"{len(runs)} runs to do, of at most {options.minutes:g} minutes each; log {out}")
    opened: dict[str, tuple[Case, float]] = {}
    for done, name in enumerate(runs):
        if name["case"] not in opened:
            fresh = case_of(name["case"], options.clips, name["test_clips"], options.folder)
            opened = {name["case"]: _judged(name["case"], fresh)}
        case, original = opened[name["case"]]
        title = f"[{done + 1}/{len(runs)}] {name['case']} {name['block']}{' with labels' if name['labels'] else ''}: "
        with tempfile.TemporaryDirectory(prefix="edge4d-tune-") as folder:
            found = tune_one(
                case,
                name["block"],
                labels=name["labels"],
                recipe=name["recipe"],
                minutes=options.minutes,
                folder=Path(folder),
                seed=options.seed,
                told=lambda line, title=title: _say(title + line),  # type: ignore[misc]
            )
        rows.append({"schema": 1, **name, "top1_original": original, **found, **stamp})
        atomic_write(out, "".join(json.dumps(row) + "\n" for row in rows).encode())
    if not rows:
        raise UsageError(f"{out} holds no run, and none was asked for")
    print(table := f"{render(rows)}\n\n{conditions(rows)}")
    if options.docs is not None:
        tables.write(options.docs, table, "tune-budget")
    if options.plot is not None:
        plot(rows, options.plot)
    return 1 if any(verdicts(row) for row in rows) else 0


def _judged(name: str, case: Case) -> tuple[Case, float]:
    """The case and its network's accuracy.

    Raises:
        UsageError: the network has learned too little to lose anything.
    """
    original = accuracy(case.network, case.test, case.test_labels)
    _say(f"{name}: the original is right on {original:.2%} of {len(case.test)} test clips")
    if original < LEAST:
        raise UsageError(f"{name}: the original is right on {original:.1%} of the test clips, expected {LEAST:.0%}")
    return case, original


def _runs(options: argparse.Namespace, rows: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """What the log does not hold yet, structure by structure."""
    for case in options.cases:
        for block in options.block:
            for labels in options.labels:
                name = {
                    "case": case,
                    "block": blocks.get(block).name,
                    "labels": labels == "yes",
                    "recipe": options.recipe,
                    "minutes": options.minutes,
                    "clips": options.clips,
                    "test_clips": options.test_clips or TEST_CLIPS[case],
                    "threads": options.threads,
                    "seed": options.seed,
                }
                logged = ({**row, "recipe": recipe_of(row)} for row in rows)
                if not any(all(row.get(key) == value for key, value in name.items()) for row in logged):
                    yield name


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
