"""``python -m tests.lowering.survey --from 10000 --to 15000 --out FILE``: random networks in bulk, and their record.

Each is lowered and compared with itself in float64: the same numbers, or a refusal by name. A fault stops the survey
and says the seed; what is finished is in the record by then, and the same command goes on from there.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from edge4d.errors import LoweringError
from edge4d.files import atomic_write
from edge4d.lowered import lower
from tests.lowering.harness import assert_close, worst_error
from tests.lowering.random_networks import random_network

__all__ = ["WITHIN", "Survey", "main", "survey"]

WITHIN = 1e-9
"""Of each output's range, in float64; steps such as a mean of nearly equal numbers leave few digits."""

_SAVE_EVERY = 100


@dataclass
class Survey:
    """What came of the networks so far.

    Attributes:
        exact: how many gave the same numbers.
        refused: how many were refused, by what the refusal says first.
        steps: what the exact ones were made of.
        worst: the largest error, of an output's range, and the seed of its network.
    """

    exact: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    steps: Counter[str] = field(default_factory=Counter)
    worst: tuple[float, int | None] = (0.0, None)

    def add(self, seed: int) -> None:
        """Lower the network of a seed and compare.

        Raises:
            AssertionError: other numbers, or a fault; says the seed and the network's steps.
        """
        network, clip = random_network(seed)
        with torch.no_grad():
            expected = network(clip)
        try:
            lowered = lower(network, (clip,))
            with torch.no_grad():
                got = lowered.unpack(lowered.module(*lowered.pack(clip)))
            assert_close(got, expected, WITHIN)
        except LoweringError as error:
            self.refused[error.message.splitlines()[1].strip()[:100]] += 1
            return
        except Exception as error:
            raise AssertionError(f"seed {seed}: {error}\n{network.described()}") from error
        self.exact += 1
        self.steps.update(step.name.split()[0] for step in network.steps)
        self.worst = max(self.worst, (worst_error(got, expected), seed), key=lambda pair: pair[0])

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready mapping."""
        error, seed = self.worst
        return {
            "exact": self.exact,
            "refused": dict(self.refused.most_common()),
            "worst_error": error,
            "worst_seed": seed,
            "steps": dict(self.steps.most_common()),
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Survey:
        """The inverse of `to_dict`."""
        worst = (data["worst_error"], data["worst_seed"])
        return cls(data["exact"], Counter(data["refused"]), Counter(data["steps"]), worst)


def survey(seeds: Iterable[int]) -> Survey:
    """The networks of these seeds; see `Survey.add`."""
    found = Survey()
    for seed in seeds:
        found.add(seed)
    return found


def main(argv: list[str] | None = None) -> int:
    """Returns 0 when the range is done, 1 at a fault, 2 for wrong usage, 130 when interrupted."""
    from benchmarks.run import stamp_of

    parser = argparse.ArgumentParser(prog="python -m tests.lowering.survey", description=__doc__)
    parser.add_argument("--from", dest="first", type=int, default=10_000, metavar="SEED")
    parser.add_argument("--to", dest="end", type=int, default=15_000, metavar="SEED", help="the first that is left out")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the record, a .json")
    options = parser.parse_args(argv)
    found, at, spent = Survey(), options.first, 0.0
    if options.out.exists():
        record = json.loads(options.out.read_text(encoding="utf-8"))
        if record["from"] != options.first:
            parser.error(f"{options.out} begins at seed {record['from']}, not at {options.first}: give another --out")
        found, at, spent = Survey.from_dict(record), record["next"], record["seconds"]
    begun = time.monotonic()
    stamp = stamp_of()

    def save() -> None:
        seconds = round(spent + time.monotonic() - begun, 1)
        record = {"schema": 1, "from": options.first, "next": at, "seconds": seconds, **found.to_dict(), **stamp}
        atomic_write(options.out, (json.dumps(record, indent=1) + "\n").encode())
        refused = sum(found.refused.values())
        print(f"up to seed {at}: {found.exact} exact, {refused} refused, {seconds:.0f} s", file=sys.stderr, flush=True)

    try:
        while at < options.end:
            found.add(at)
            at += 1
            if at % _SAVE_EVERY == 0:
                save()
    except AssertionError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    finally:
        save()
    return 0


if __name__ == "__main__":
    sys.exit(main())
