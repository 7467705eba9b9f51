"""Made-up timings and recipes for tests of the benchmark."""

from __future__ import annotations

import json

from edge4d.validators.fps import Samples, summarise
from edge4d.validators.fps_floors import Floors

__all__ = ["MS", "four", "measured", "recipe_for"]

MS = 1_000_000


def measured(*turns, **others):
    """Samples of one candidate: a list of milliseconds for each turn, of 2 clips with 16 frames each."""
    return Samples(run_ns=[[ms * MS for ms in turn] for turn in turns], clips=2, frames=32, **others)


def four(**floors):
    """A reference of 3200 frames/s, one twice and one half as fast, and one whose runtime is missing."""
    dead = Samples(failure="x", exit_code=3)
    gathered = {"ref": measured([10]), "fast": measured([5]), "slow": measured([20]), "dead": dead}
    return summarise(gathered, rounds=1, warmup=0).held_to(Floors(**floors))


def recipe_for(path, **changes):
    """Write the recipe of an engine: of this very file, unless changed."""
    from edge4d.files import sha256_of

    own = {"bytes": path.stat().st_size, "sha256": sha256_of(path)}
    told = {"step": "build fake", "files": {path.name: own}, "build_s": 1.5} | changes
    path.with_name(f"{path.name}.json").write_text(json.dumps(told))
