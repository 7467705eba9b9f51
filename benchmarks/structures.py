"""``python -m benchmarks.structures``: what each structure leaves of a trained network's accuracy, without training.

The moving-digits network of `examples/` is rewritten with every structure twice: fitted to its weights alone, and
fitted on unlabelled clips made from its training scans. Accuracy is that on the held-out clips.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.measuring import stamp_of
from edge4d.errors import Edge4dError, UsageError
from edge4d.files import atomic_write, refuse_existing, refuse_folder
from edge4d.tables import table

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray
    from torch import nn

__all__ = ["accuracy", "main", "measure", "render"]

RESULTS = Path(__file__).with_name("results")
CALIBRATION_SEED = 7  # of clips that neither training (its seeds are above a million) nor the test set has drawn
TEST_CLIPS = 800
BATCH = 100


def accuracy(network: nn.Module, clips: NDArray[Any], labels: NDArray[Any]) -> float:
    """Share of clips (N, C, T, H, W) that get their label (N,).

    Raises:
        UsageError: there are no clips, or not one label for each.
    """
    import torch

    if not len(clips) or len(clips) != len(labels):
        raise UsageError(f"accuracy of {len(clips)} clips with {len(labels)} labels means nothing")
    right = 0
    with torch.inference_mode():
        for begin in range(0, len(clips), BATCH):
            scores = network(torch.from_numpy(clips[begin : begin + BATCH]))
            right += int((scores.argmax(1).numpy() == labels[begin : begin + BATCH]).sum())
    return right / len(clips)


def measure(structures: Sequence[str], calibration: int, test: int) -> Iterator[dict[str, Any]]:
    """One row a structure.

    Args:
        structures: names of `edge4d.blocks`.
        calibration: how many clips to fit on.
        test: how many held-out clips to judge by.
    """
    import torch

    from edge4d.swapping import swap_with_report
    from examples.moving_digits.data import load_images, make_clips, make_test_set
    from examples.moving_digits.demo import load_network

    network = load_network()
    training_scans, _ = load_images()
    fitted_on = torch.from_numpy(make_clips(training_scans, calibration, CALIBRATION_SEED)[0])
    clips, labels = make_test_set(test)
    original = accuracy(network, clips, labels)
    for name in structures:
        args = (fitted_on[:1],)
        by_weights, said = swap_with_report(network, name, args=args)
        by_clips, calibrated = swap_with_report(network, name, args=args, calib=fitted_on)
        assert calibrated.calibration is not None
        yield {
            "structure": name,
            "parameters": sum(p.numel() for p in by_weights.parameters()),
            "parameters_original": sum(p.numel() for p in network.parameters()),
            "layers_replaced": sum(row.block is not None for row in said.rows),
            "accuracy_original": original,
            "accuracy_data_free": accuracy(by_weights, clips, labels),
            "accuracy_calibrated": accuracy(by_clips, clips, labels),
            "output_error_data_free": calibrated.calibration.before,
            "output_error_calibrated": calibrated.calibration.after,
            "calibration_clips": calibration,
            "test_clips": test,
        }


def render(rows: Sequence[dict[str, Any]]) -> str:
    """The rows as a table for people."""
    cells = [
        [
            row["structure"],
            f"{row['parameters'] / row['parameters_original']:.0%}",
            f"{row['accuracy_original']:.2%}",
            f"{row['accuracy_data_free']:.2%}",
            f"{row['accuracy_calibrated']:.2%}",
            f"{row['output_error_data_free']:.3f}",
            f"{row['output_error_calibrated']:.3f}",
        ]
        for row in rows
    ]
    clips = rows[0]["calibration_clips"] if rows else 0
    heads = ["structure", "parameters", "original", "data-free", f"{clips} clips", "error, data-free", "error, clips"]
    return table(heads, cells)


def main(argv: Sequence[str] | None = None) -> int:
    """Returns 0 when every structure was measured, 2 for wrong usage."""
    from edge4d import blocks

    parser = argparse.ArgumentParser(prog="python -m benchmarks.structures", description=__doc__)
    parser.add_argument("--block", nargs="+", default=blocks.names(), metavar="NAME", help="only these structures")
    parser.add_argument("--calib", type=int, default=256, metavar="N", help="clips to fit on (256)")
    parser.add_argument("--test", type=int, default=TEST_CLIPS, metavar="N", help="held-out clips (800)")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write JSON lines; results/DATE-structures.jsonl")
    parser.add_argument("--force", action="store_true", help="replace an existing FILE")
    options = parser.parse_args(argv)
    try:
        if options.calib < 1 or options.test < 1:
            raise UsageError(f"--calib {options.calib} --test {options.test}: at least one clip each is needed")
        stamp = stamp_of()
        out = options.out or RESULTS / f"{stamp['date']}-structures.jsonl"
        refuse_existing(out, options.force)
        refuse_folder(out)
        rows = []
        for row in measure([blocks.get(name).name for name in options.block], options.calib, options.test):
            rows.append({"schema": 1, "case": "moving-digits", **row, **stamp})
            print(json.dumps(rows[-1]), flush=True)
    except Edge4dError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    atomic_write(out, "".join(json.dumps(row) + "\n" for row in rows).encode())
    print("\n" + render(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
