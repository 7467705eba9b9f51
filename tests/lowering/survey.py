"""``python -m tests.lowering.survey --from 10000 --to 15000 --out FILE``: random networks in bulk, and their record.

Each is lowered and compared with itself in float64: the same numbers, or a refusal by name. With ``--through onnx`` it
goes the whole way instead, through a file and ONNX Runtime, in float32. A fault stops the survey and says the seed;
what is finished is in the record by then, and the same command goes on from there.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import torch

from edge4d.errors import LoweringError
from edge4d.files import atomic_write
from edge4d.lowered import lower
from tests.lowering.harness import assert_close, worst_error
from tests.lowering.random_networks import RandomNetwork, random_network
from tests.lowering.whole_path import whole_path

__all__ = ["THROUGH", "WITHIN", "Survey", "main", "survey"]

THROUGH = ("lower", "onnx")
"""How far a network goes: `edge4d.lower` alone, in float64; or `edge4d.export` and ONNX Runtime, in float32."""

WITHIN = 1e-9
"""Of each output's range, in float64; steps such as a mean of nearly equal numbers leave few digits."""

_SAVE_EVERY = 100


@dataclass
class Survey:
    """What came of the networks so far.

    Attributes:
        through: one of `THROUGH`.
        exact: how many gave the same numbers.
        coarse: how many did as well as float32 PyTorch does, whose own error is larger than what is allowed.
        refused: how many were refused, by what the refusal says first.
        steps: what the exact ones were made of.
        worst: the largest error of an exact one, of an output's range, and the seed of its network.
    """

    through: str = "lower"
    exact: int = 0
    coarse: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    steps: Counter[str] = field(default_factory=Counter)
    worst: tuple[float, int | None] = (0.0, None)

    def add(self, seeds: Sequence[int]) -> None:
        """Take the networks of some seeds through and compare; one by one, should they not all pass together.

        Raises:
            AssertionError: other numbers, or a fault; says the seed and the network's steps. Nothing is added then.
        """
        for seed, (network, outcome) in zip(seeds, self._outcomes(seeds), strict=True):
            if isinstance(outcome, LoweringError):
                self.refused[outcome.message.splitlines()[1].strip()[:100]] += 1
            elif outcome is None:
                self.coarse += 1
            else:
                self.exact += 1
                self.steps.update(step.name.split()[0] for step in network.steps)
                self.worst = max(self.worst, (outcome, seed), key=lambda pair: pair[0])

    def _outcomes(self, seeds: Sequence[int]) -> list[tuple[RandomNetwork, float | LoweringError | None]]:
        """Each network with its error, None where float32 is too coarse for it, or its refusal."""
        networks, clips = zip(*map(random_network, seeds), strict=True)
        try:
            errors = _through_onnx(networks, clips) if self.through == "onnx" else [*map(_lowered, networks, clips)]
        except Exception as fault:
            if len(seeds) > 1:
                return [one for seed in seeds for one in self._outcomes([seed])]
            if isinstance(fault, LoweringError):
                return [(networks[0], fault)]
            raise AssertionError(f"seed {seeds[0]}: {fault}\n{networks[0].described()}") from fault
        return list(zip(networks, errors, strict=True))

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready mapping."""
        error, seed = self.worst
        return {
            "through": self.through,
            "exact": self.exact,
            "coarse": self.coarse,
            "refused": dict(self.refused.most_common()),
            "worst_error": error,
            "worst_seed": seed,
            "steps": dict(self.steps.most_common()),
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Survey:
        """The inverse of `to_dict`; a record of before has neither `through` nor `coarse`."""
        worst = (data["worst_error"], data["worst_seed"])
        counted = Counter(data["refused"]), Counter(data["steps"])
        return cls(data.get("through", "lower"), data["exact"], data.get("coarse", 0), *counted, worst)


def _lowered(network: RandomNetwork, clip: torch.Tensor) -> float:
    """The error of the lowered network, in float64.

    Raises:
        AssertionError: more than `WITHIN`.
        LoweringError: refused by name.
    """
    with torch.no_grad():
        expected = network(clip)
    lowered = lower(network, (clip,))
    with torch.no_grad():
        got = lowered.unpack(lowered.module(*lowered.pack(clip)))
    assert_close(got, expected, WITHIN)
    return worst_error(got, expected)


def _through_onnx(networks: Sequence[RandomNetwork], clips: Sequence[torch.Tensor]) -> list[float | None]:
    """The errors of networks exported together, in float32; None where float32 itself is too coarse for one.

    Raises:
        AssertionError: more than is allowed; see `whole_path`.
        LoweringError: refused by name.
    """
    with tempfile.TemporaryDirectory(prefix="edge4d-survey-") as folder:
        found = whole_path(networks, clips, Path(folder))
    for one in found:
        said = f"off by {one.ours:.3g} of the output's range; float32 PyTorch by {one.eager:.3g}"
        assert one.exact or one.coarse, said
    return [None if one.coarse else one.ours for one in found]


def survey(seeds: Iterable[int], through: str = "lower") -> Survey:
    """The networks of these seeds; see `Survey.add`."""
    found = Survey(through)
    for together in _batched(seeds, through):
        found.add(together)
    return found


_TOGETHER = {"lower": 1, "onnx": 6}
"""Networks that are exported as one: half of what an export costs is then paid once."""


def _batched(seeds: Iterable[int], through: str) -> Iterator[Sequence[int]]:
    rest = iter(seeds)
    while together := list(islice(rest, _TOGETHER[through])):
        yield together


def main(argv: list[str] | None = None) -> int:
    """Returns 0 when the range is done, 1 at a fault, 2 for wrong usage, 130 when interrupted."""
    from benchmarks.measuring import stamp_of

    parser = argparse.ArgumentParser(prog="python -m tests.lowering.survey", description=__doc__)
    parser.add_argument("--from", dest="first", type=int, default=10_000, metavar="SEED")
    parser.add_argument("--to", dest="end", type=int, default=15_000, metavar="SEED", help="the first that is left out")
    parser.add_argument("--through", choices=THROUGH, default="lower", help="how far they go (default: %(default)s)")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the record, a .json")
    options = parser.parse_args(argv)
    found, at, spent = Survey(options.through), options.first, 0.0
    if options.out.exists():
        record = json.loads(options.out.read_text(encoding="utf-8"))
        if record["from"] != options.first:
            parser.error(f"{options.out} begins at seed {record['from']}, not at {options.first}: give another --out")
        found, at, spent = Survey.from_dict(record), record["next"], record["seconds"]
        if found.through != options.through:
            parser.error(f"{options.out} is of --through {found.through}: give another --out")
    begun = time.monotonic()
    stamp = stamp_of()

    def save() -> None:
        seconds = round(spent + time.monotonic() - begun, 1)
        record = {"schema": 1, "from": options.first, "next": at, "seconds": seconds, **found.to_dict(), **stamp}
        atomic_write(options.out, (json.dumps(record, indent=1) + "\n").encode())
        refused = sum(found.refused.values())
        counts = f"{found.exact} exact, {found.coarse} as coarse as float32, {refused} refused"
        print(f"up to seed {at}: {counts}, {seconds:.0f} s", file=sys.stderr, flush=True)

    try:
        for together in _batched(range(at, options.end), options.through):
            found.add(together)
            at += len(together)
            if at % _SAVE_EVERY < len(together):
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
