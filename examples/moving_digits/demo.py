"""The main job from end to end, as a user would do it: `python -m examples.moving_digits.demo` (or `make demo`).

A trained 5-D checkpoint is exported to rank 4, gated, compared and timed by the `edge4d` command, each call shown. Then
the held-out clips decide: PyTorch with Conv3d and ONNX Runtime at rank 4 have to name the same direction on every one.
Exits with 1 if they do not, if a command does not end as it should, or if accuracy is below 95 %.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table

ROOT = Path(__file__).resolve().parents[2]
CHECKPOINT = Path("examples/moving_digits/moving_digits.pt")
FACTORY = "examples.moving_digits.model:build"
SHAPE = "1x1x16x32x32"
OUT = Path("out/moving_digits")
ARTIFACT = OUT / "moving_digits.onnx"
NATIVE = OUT / "native_5d.onnx"
REFERENCE = [str(CHECKPOINT), "--factory", FACTORY, "--input-shape", SHAPE]
LEAST_ACCURACY = 0.95

Clip = NDArray[np.float32]
Scorer = Callable[[Clip], Clip]

say = Console(stderr=True, highlight=False, soft_wrap=True)


class DemoError(Exception):
    """The demo did not show what it should; the message says what."""


@dataclass
class Form:
    """One form of the network and what was measured of it."""

    name: str
    path: Path
    rank: int
    scores: Clip | None = None
    p50_ms: float = float("nan")
    clips_per_s: float = float("nan")
    speedup: float = float("nan")

    @property
    def size(self) -> int:
        """Bytes on disk, with weights that an ONNX file keeps beside itself."""
        beside = self.path.with_name(self.path.name + ".data")
        return self.path.stat().st_size + (beside.stat().st_size if beside.exists() else 0)


def edge4d(*words: str, ends_with: int = 0, read_json: bool = False) -> Any:
    """Run the `edge4d` command from the repository's root, showing it; give back its JSON if asked to.

    Raises:
        DemoError: it ended with another exit code.
    """
    script = Path(sys.executable).with_name("edge4d")
    command = [str(script)] if script.exists() else [sys.executable, "-m", "edge4d"]
    say.print(f"\n[bold cyan]$ edge4d {shlex.join(words)}[/]")
    done = subprocess.run([*command, *words], cwd=ROOT, check=False, text=True, stdout=subprocess.PIPE)
    if not read_json:
        say.print(done.stdout.rstrip(), markup=False)
    if done.returncode != ends_with:
        raise DemoError(f"`edge4d {words[0]}` ended with exit code {done.returncode}, expected {ends_with}")
    return json.loads(done.stdout) if read_json else None


def export_native(path: Path) -> None:
    """What people do today: the same network as torch.onnx.export writes it, Conv3d and rank 5 included."""
    import torch

    say.print(f"\n[bold cyan]# torch.onnx.export(model, clip, {str(path)!r})[/]   (for comparison: rank 5 all through)")
    clip = torch.zeros([int(size) for size in SHAPE.split("x")])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own deprecations
        torch.onnx.export(
            load_network(),
            (clip,),
            ROOT / path,
            input_names=["clip"],
            output_names=["scores"],
            dynamo=True,
            external_data=False,
            verbose=False,
        )


def largest_rank(path: Path) -> int:
    """The largest rank of any value in an ONNX file, as the standard's own shape inference sees it."""
    import onnx

    model = onnx.shape_inference.infer_shapes(onnx.load(ROOT / path), strict_mode=True)
    graph = model.graph
    values = [*graph.input, *graph.output, *graph.value_info]
    return max([len(v.type.tensor_type.shape.dim) for v in values] + [len(t.dims) for t in graph.initializer])


def measure_speed(forms: list[Form]) -> None:
    """Let `edge4d bench` time all three in turns, each in its own process, and note the figures.

    Raises:
        DemoError: one of them gave no numbers.
    """
    reference, native, artifact = forms
    # The first is what the others are held against: not eager PyTorch, which is easily beaten, but native ONNX.
    # Twenty calls a turn: a run of some milliseconds is timed warm, or the first call's cold caches flatter the ratio.
    order = [native, reference, artifact]
    words = ["bench", *(str(form.path.relative_to(ROOT)) for form in order), *REFERENCE[1:], "--calls", "20", "--json"]
    lines = edge4d(*words, read_json=True)["candidates"]
    for form, line in zip(order, lines, strict=True):
        if line["failure"] is not None:
            raise DemoError(f"`edge4d bench` could not run {line['name']}: {line['failure']}")
        form.p50_ms, form.clips_per_s, form.speedup = line["latency_ms"]["p50"], line["clips_per_s"], line["speedup"]


def score_clips(forms: list[Form], clips: Clip) -> None:
    """Every held-out clip, one by one, through PyTorch at rank 5 and ONNX Runtime at rank 5 and 4."""
    import torch

    import edge4d as e4d

    network = load_network()

    def eager(clip: Clip) -> Clip:
        with torch.inference_mode():
            scores: Clip = network(torch.from_numpy(clip)).numpy()
        return scores

    reference, native, artifact = forms
    reference.scores = _each(eager, clips, reference.name)
    for form in (native, artifact):
        with e4d.open(ROOT / form.path) as opened:
            (output,) = (port.name for port in opened.outputs)
            # A logical clip N C T H W goes in, whatever rank the graph has; logical scores come out.
            form.scores = _each(lambda clip: opened(clip)[output], clips, form.name)  # noqa: B023 - called in the loop


def show(forms: list[Form], labels: NDArray[np.int64]) -> None:
    """One table on stdout with all that was measured."""
    reference = forms[0]
    table = Table(title=f"moving digits: {len(labels)} held-out clips, 1x16x32x32, direction of motion (8 classes)")
    table.add_column("form", no_wrap=True)
    for heading in ("file", "max rank", "accuracy", "max error", "p50", "clips/s", "speed"):
        table.add_column(heading, justify="right", no_wrap=True)
    for form in forms:
        error = np.abs(_scores(form) - _scores(reference)).max()
        table.add_row(
            form.name,
            f"{form.size / 1e6:.2f} MB",
            f"[{'green' if form.rank <= 4 else 'red'}]{form.rank}[/]",
            f"{(_scores(form).argmax(1) == labels).mean():.2%}",
            "-" if form is reference else f"{error:.1e}",
            f"{form.p50_ms:.2f} ms",
            f"{form.clips_per_s:.0f}",
            f"{form.speedup:.2f}x",
            style="bold" if form is forms[-1] else None,
        )
    spread = float(np.ptp(_scores(reference)))
    table.caption = (
        f"max error: largest difference from PyTorch's scores (they span {spread:.1f})\nspeed: against ONNX, native"
    )
    Console(width=None if sys.stdout.isatty() else 120).print(table)


def judge(forms: list[Form], labels: NDArray[np.int64]) -> None:
    """Hold the demo to its word.

    Raises:
        DemoError: a clip was classified differently, accuracy is too low, or the artifact exceeds rank 4.
    """
    reference, _, artifact = forms
    expected, got = _scores(reference).argmax(1), _scores(artifact).argmax(1)
    if differing := np.flatnonzero(expected != got).tolist():
        raise DemoError(f"PyTorch and the rank-4 graph disagree on {len(differing)} clips: {differing[:10]}")
    score = float((got == labels).mean())
    if score < LEAST_ACCURACY:
        raise DemoError(f"test accuracy is {score:.2%}, expected at least {LEAST_ACCURACY:.0%}")
    if artifact.rank > 4:
        raise DemoError(f"{artifact.path} has a value of rank {artifact.rank}")
    say.print(f"[bold green]Same direction on all {len(labels)} clips; nothing above rank 4.[/]")


def main() -> int:
    """Run the demo; gives the exit code."""
    from examples.moving_digits.data import make_test_set

    (ROOT / OUT).mkdir(parents=True, exist_ok=True)
    try:
        edge4d("export", *REFERENCE, "--block", "exact", "-o", str(ARTIFACT), "--force")
        export_native(NATIVE)
        edge4d("verify", str(ARTIFACT))
        edge4d("parity", *REFERENCE[:1], str(ARTIFACT), *REFERENCE[1:])
        forms = [
            Form("PyTorch, Conv3d", ROOT / CHECKPOINT, 5),
            Form("ONNX, native", ROOT / NATIVE, largest_rank(NATIVE)),
            Form("ONNX, edge4d exact", ROOT / ARTIFACT, largest_rank(ARTIFACT)),
        ]
        measure_speed(forms)
        clips, labels = make_test_set()
        score_clips(forms, clips)
        show(forms, labels)
        judge(forms, labels)
    except DemoError as error:
        say.print(f"[bold red]demo failed:[/] {error}")
        return 1
    say.print("\nWhat to type next:")
    model = shlex.join(REFERENCE)
    for line, what in (
        (f"edge4d plan {model}", "what each 5-D layer became, and its cost"),
        (f"edge4d verify {NATIVE}", "what the gate says of the native export"),
        ("edge4d export YOUR_MODEL.pt2 -o model.onnx", "the same for your network"),
        ("edge4d doctor", "which runtimes this machine has"),
    ):
        say.print(f"  [cyan]{line}[/]\n      [dim]{what}[/]")
    return 0


def _each(score: Scorer, clips: Clip, name: str) -> Clip:
    progress = track(clips, description=f"{name:<20}", console=say, transient=True, disable=not say.is_terminal)
    return np.concatenate([score(clip[None]) for clip in progress])


def _scores(form: Form) -> Clip:
    if form.scores is None:
        raise DemoError(f"{form.name} was not run")
    return form.scores


def load_network() -> Any:
    """The trained network, in evaluation mode."""
    import torch

    from examples.moving_digits.model import build

    network = build()
    network.load_state_dict(torch.load(ROOT / CHECKPOINT, weights_only=True)["state_dict"])
    return network.eval()


if __name__ == "__main__":
    sys.exit(main())
