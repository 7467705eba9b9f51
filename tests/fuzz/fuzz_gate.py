"""``python -m tests.fuzz.fuzz_gate --minutes 10``: broken models against the gate, until one of them gets through.

What is asked of each: a verdict, or a refusal in one line; no other exception, no long wait, no change of the model.
A failure writes the bytes to a file and says the seed; ``--seed N --runs 1`` shows it again.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
import traceback
from collections import Counter
from functools import cache
from pathlib import Path

from edge4d.errors import ValidationError
from edge4d.validators import check_rank
from edge4d.validators.profile import Profile, shipped_profiles
from tests.fuzz.mutations import mutate, parses
from tests.validators.corpus import CASES
from tests.validators.random_graphs import random_graph

__all__ = ["Failure", "check", "input_of", "main"]

SLOW_S = 20.0
"""An answer that takes longer is a failure."""


class Failure(AssertionError):
    """What the gate must not do."""


def input_of(seed: int) -> bytes:
    """The broken model of that seed, from the corpus or from a random graph."""
    rng = random.Random(seed)
    names = sorted(CASES)
    makers = [lambda: CASES[rng.choice(names)].make(), lambda: random_graph(rng.randrange(1000))[0]]
    model, other = (rng.choice(makers)() for _ in range(2))
    return mutate(rng, model, other)


@cache
def _profiles() -> list[Profile | None]:
    """Read once: reading them takes longer than most checks."""
    return [None, *shipped_profiles()]


def check(data: bytes) -> str:
    """What the gate says: a verdict, or ``refused``.

    Raises:
        Failure: it says neither, or not in time, or not in one line.
    """
    start = time.monotonic()
    profiles = _profiles()
    try:
        report = check_rank(data, profile=profiles[len(data) % len(profiles)])
        json.dumps(report.to_dict())
        text = report.to_text(limit=None)
        if any(not line.isprintable() for line in text.splitlines()):
            raise Failure("the report is not printable")
        said = report.verdict
    except ValidationError as error:
        if not error.message.isprintable():
            raise Failure(f"the refusal is not one printable line: {error.message!r}") from error
        said = "refused"
    if time.monotonic() - start > SLOW_S:
        raise Failure(f"it took {time.monotonic() - start:.0f} s")
    return said


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--runs", type=int, help="instead of a time")
    parser.add_argument("--seed", type=int, default=0, help="of the first input")
    parser.add_argument("--keep", type=Path, default=Path("fuzz-failure.onnx"), help="where to write what fails")
    options = parser.parse_args(argv)
    until = time.monotonic() + 60 * options.minutes
    counts: Counter[str] = Counter()
    seed = options.seed
    while (options.runs is None and time.monotonic() < until) or seed - options.seed < (options.runs or 0):
        data = input_of(seed)
        try:
            counts[check(data)] += 1
        except Exception:  # whatever it is, it is what is looked for
            options.keep.write_bytes(data)
            print(f"seed {seed} fails; its {len(data)} bytes are in {options.keep}", file=sys.stderr)
            traceback.print_exc()
            return 1
        counts["protobuf"] += parses(data)
        seed += 1
    print(json.dumps({"inputs": seed - options.seed, "first_seed": options.seed, **counts}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
