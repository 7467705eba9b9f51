"""``python -m benchmarks.calibrate RUNTIME``: fit what a runtime takes for each kind of work, as a line for `rates.py`.

Layers of many shapes are timed in every formulation that fits them, as `--autotune` does, and the rates are the least
squares of relative errors over all of them, none below zero.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from edge4d.errors import Edge4dError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

    from edge4d.lowering.conv.spec import ConvSpec

__all__ = ["LAYERS", "fit", "main", "spec_of"]

LAYERS = (
    # channels in, out, kernel, stride, padding, groups, frames, side
    (64, 64, (3, 3, 3), (1, 1, 1), (1, 1, 1), 1, 16, 56),
    (128, 128, (3, 3, 3), (1, 1, 1), (1, 1, 1), 1, 8, 28),
    (256, 256, (3, 3, 3), (1, 1, 1), (1, 1, 1), 1, 4, 14),
    (512, 512, (3, 3, 3), (1, 1, 1), (1, 1, 1), 1, 2, 7),
    (128, 128, (1, 3, 3), (1, 1, 1), (0, 1, 1), 1, 8, 28),
    (256, 256, (1, 3, 3), (1, 1, 1), (0, 1, 1), 1, 8, 14),
    (64, 128, (3, 3, 3), (2, 2, 2), (1, 1, 1), 1, 16, 56),
    (3, 64, (3, 7, 7), (1, 2, 2), (1, 3, 3), 1, 16, 112),
    (3, 8, (5, 7, 7), (1, 2, 2), (2, 3, 3), 1, 16, 112),
    (512, 256, (3, 1, 1), (1, 1, 1), (1, 0, 0), 1, 8, 28),
    (144, 64, (3, 1, 1), (1, 1, 1), (1, 0, 0), 1, 16, 56),
    (54, 54, (3, 3, 3), (1, 1, 1), (1, 1, 1), 54, 13, 46),
    (54, 54, (3, 3, 3), (1, 2, 2), (1, 1, 1), 54, 13, 91),
    (108, 108, (3, 3, 3), (1, 1, 1), (1, 1, 1), 108, 13, 23),
    (216, 216, (3, 3, 3), (1, 1, 1), (1, 1, 1), 216, 13, 12),
    (24, 24, (5, 1, 1), (1, 1, 1), (2, 0, 0), 24, 13, 91),
    (64, 64, (3, 3, 3), (1, 1, 1), (1, 1, 1), 8, 8, 28),
)


def spec_of(
    ins: int,
    outs: int,
    kernel: tuple[int, ...],
    stride: tuple[int, ...],
    padding: tuple[int, ...],
    groups: int,
    frames: int,
    side: int,
) -> ConvSpec:
    """A layer of `LAYERS`, with weights whose values matter to nobody."""
    import torch

    from edge4d.lowering.conv.spec import ConvSpec
    from edge4d.lowering.values import Const

    sizes = (frames, side, side)
    found = [(n + 2 * p - k) // s + 1 for n, k, s, p in zip(sizes, kernel, stride, padding, strict=True)]
    return ConvSpec(
        Const(torch.zeros(1, ins, *sizes), "clip"),
        Const(torch.randn(outs, ins // groups, *kernel, generator=torch.Generator().manual_seed(0)), "weight"),
        Const(torch.zeros(outs), "bias"),
        stride,
        tuple((p, p) for p in padding),
        (1, 1, 1),
        (0, 0, 0),
        groups,
        False,
        (1, outs, *found),
    )


def fit(work: np.ndarray, milliseconds: np.ndarray) -> np.ndarray:
    """Nanoseconds for one of each kind of work, none negative.

    Args:
        work: (measurements, kinds), amounts.
        milliseconds: (measurements,), above zero.
    """
    import numpy as np

    rows = work / (milliseconds * 1e6)[:, None]  # each measurement counts as much, however long it took
    scale = np.maximum(rows.max(0), 1e-30)
    kept = list(range(work.shape[1]))
    rates = np.zeros(work.shape[1])
    while kept:
        found, *_ = np.linalg.lstsq(rows[:, kept] / scale[kept], np.ones(len(rows)), rcond=None)
        if found.min() >= 0:
            rates[kept] = found / scale[kept]
            break
        del kept[int(found.argmin())]
    return rates


def main(argv: Sequence[str] | None = None) -> int:
    """Returns 0, or the exit code of an error."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.calibrate", description=__doc__)
    parser.add_argument("runtime", help="one that is installed here, e.g. onnxruntime")
    parser.add_argument("--layers", type=int, default=len(LAYERS), metavar="N", help="only the first N of them")
    options = parser.parse_args(argv)
    try:
        print(_calibrated(options.runtime, options.layers))
    except Edge4dError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def _calibrated(runtime: str, layers: int) -> str:
    import numpy as np

    from edge4d import exporters
    from edge4d.exporters.autotune import Autotuner
    from edge4d.lowering.conv.cost import WORK
    from edge4d.offers import RUNTIMES
    from edge4d.planning import costs

    work, took, names = [], [], []
    with tempfile.TemporaryDirectory(prefix="edge4d-calibrate-") as folder:
        tuner = Autotuner(exporters.get(runtime), threads=1, folder=Path(folder), timeout=0)
        for layer in LAYERS[:layers]:
            spec = spec_of(*layer)
            found = {name: cost for name, cost in costs(spec).items() if name not in RUNTIMES.get(runtime, ())}
            for name, ms in tuner.times(spec, found).items():
                work.append(found[name].work)
                took.append(ms)
                names.append(f"{layer}: {name}")
    rates = fit(np.array(work, dtype=np.float64), np.array(took))
    predicted = np.array(work) @ rates / 1e6
    for name, ms, guess in zip(names, took, predicted, strict=True):
        print(f"{name}: {ms:.3g} ms, predicted {guess:.3g}", file=sys.stderr)
    off = np.abs(np.log(np.maximum(predicted, 1e-9) / np.array(took)))
    print(f"{len(took)} measurements; half are predicted within {np.exp(np.median(off)):.2f}x", file=sys.stderr)
    told = ", ".join(f"{kind}={rate:.3g}" for kind, rate in zip(WORK, rates, strict=True))
    return f'    "{runtime}": Rates({told}),'


if __name__ == "__main__":
    sys.exit(main())
