"""``python -m benchmarks.accuracy RECIPE``: train every structure, record each training, and write the table."""

from __future__ import annotations

import argparse
import sys
import time
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.accuracy import record, tables
from benchmarks.accuracy.config import load_config
from benchmarks.measuring import stamp_of
from edge4d import blocks
from edge4d.errors import Edge4dError, UsageError
from edge4d.files import refuse_folder
from edge4d.recipe import versions

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from benchmarks.accuracy.config import Config

RESULTS = Path(__file__).parents[1] / "results"
ROOT = Path(__file__).parents[2]
INTERRUPTED = 130


def trainings(configs: Sequence[Config]) -> Iterator[tuple[Config, dict[str, Any]]]:
    """Seed by seed over all recipes, so that what is there when time is up compares all structures."""
    from benchmarks.accuracy.training import key_of

    for seed in sorted({seed for config in configs for seed in config.seeds}):
        for config in configs:
            for structure in config.structures:
                for chain in config.chains if seed in config.seeds else ():
                    yield (
                        config,
                        {
                            "recipe": config.recipe,
                            "chain": list(chain),
                            "structure": structure,
                            "seed": seed,
                            "key": key_of(config, chain, structure, seed),
                        },
                    )


def run(configs: Sequence[Config], out: Path, folder: Path, device: str) -> None:
    """All trainings that the log does not hold yet."""
    from benchmarks.accuracy.start import start_of
    from benchmarks.accuracy.training import train_chain

    stamp = stamp_of()
    stamp["versions"] |= versions(("scikit-learn", "av"))
    rows = record.read(out)
    every = list(trainings(configs))
    wanted = [(config, name) for config, name in every if not record.finished(rows, name)]
    _say(f"{len(wanted)} trainings of {len(every)} to do; log {out}, weights {folder}")
    folder.mkdir(parents=True, exist_ok=True)
    begun = time.monotonic()
    for done, (config, name) in enumerate(wanted):
        left = "" if not done else f", {(time.monotonic() - begun) / done * (len(wanted) - done) / 60:.0f} min left"
        place = f"[{done + 1}/{len(wanted)}{left}] "
        trained = train_chain(
            config,
            tuple(name["chain"]),
            name["structure"],
            name["seed"],
            start=start_of(config.start, config.network, folder, _say),
            folder=folder,
            told=lambda line, place=place: _say(place + line),  # type: ignore[misc]
            device=device,
        )
        record.append(out, {"schema": record.SCHEMA, **name, **trained.facts, **stamp})


def main(argv: Sequence[str] | None = None) -> int:
    """Returns 0 when all is trained and written, 2 for wrong usage, 130 when interrupted."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.accuracy", description=__doc__)
    parser.add_argument("recipes", nargs="*", metavar="RECIPE", help="scratch, finetune, or a .toml; none: tables only")
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="the log; the latest results/accuracy-DATE-digits.jsonl"
    )
    parser.add_argument("--folder", type=Path, default=ROOT / "out" / "accuracy", help="weights (out/accuracy)")
    parser.add_argument("--block", nargs="+", metavar="NAME", help="only these structures")
    parser.add_argument("--seeds", nargs="+", type=int, metavar="N", help="only these seeds")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (cpu)")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (1: the same numbers on every run)")
    parser.add_argument(
        "--docs", type=Path, metavar="PAGE", help="write the table there, between markers: docs/accuracy.md"
    )
    options = parser.parse_args(argv)
    try:
        out = options.out or _latest_log()
        refuse_folder(out)
        if options.recipes:
            _train(options, out)
        rows = record.read(out)
        if not rows:
            raise UsageError(f"{out} holds no training", hint="name a recipe: python -m benchmarks.accuracy scratch")
        text = tables.render(rows)
        print(text)
        if options.docs is not None:
            tables.write(options.docs, f"{text}\n- Log: `benchmarks/results/{out.name}`.", "accuracy")
    except KeyboardInterrupt:
        _say("stopped; nothing that is finished is lost, and the same command goes on")
        return INTERRUPTED
    except Edge4dError as error:
        _say(f"error: {error}")
        return error.exit_code
    return 0


def _train(options: argparse.Namespace, out: Path) -> None:
    from dataclasses import replace

    import torch

    if options.threads < 1:
        raise UsageError(f"--threads {options.threads}: at least 1")
    if options.device == "cuda" and not torch.cuda.is_available():
        raise UsageError("--device cuda: torch finds no GPU")
    torch.set_num_threads(options.threads)
    configs = [
        replace(
            config,
            structures=tuple(blocks.get(name).name for name in options.block or config.structures),
            seeds=tuple(options.seeds or config.seeds),
        )
        for config in map(load_config, options.recipes)
    ]
    run(configs, out, options.folder, options.device)


def _latest_log() -> Path:
    """The latest one, so that the same command goes on another day too; today's when there is none."""
    there = sorted(RESULTS.glob("accuracy-*-digits.jsonl"))
    return there[-1] if there else RESULTS / f"accuracy-{date.today():%Y-%m-%d}-digits.jsonl"


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
