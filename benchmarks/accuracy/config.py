"""What is trained on what: one TOML file a recipe."""

from __future__ import annotations

import sys
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

from edge4d import blocks, models
from edge4d.errors import UsageError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["Config", "Network", "SetSpec", "Stage", "Start", "load_config"]

HOME = Path(__file__).parent


@dataclass(frozen=True)
class Network:
    """What is trained.

    Attributes:
        model: a name of `edge4d.models`.
        frames, size: T, and H = W, of its clips.
        freeze_2d: whether the 2D-Net keeps the weights that it starts with.
        cache_2d: whether a frozen 2D-Net sees each clip only once, in its middle view: many times as fast, in memory,
            and without augmentation.
    """

    model: str
    frames: int
    size: int
    freeze_2d: bool = False
    cache_2d: bool = False


@dataclass(frozen=True)
class Start:
    """What the 2D-Net starts from; with neither, from random weights.

    Attributes:
        weights: a state_dict of the 2D-Net, or torchvision's of Inception-V3.
        stills: how many frames of digits it learns to name first.
        epochs, batch, rate: of that.
    """

    weights: str | None = None
    stills: int = 0
    epochs: int = 10
    batch: int = 32
    rate: float = 5e-3


@dataclass(frozen=True)
class SetSpec:
    """Clips to train on and to be tested on.

    Attributes:
        train, test: what `edge4d.data.open_source` opens, or ``digits:NAME``, a generated set.
        train_split, test_split: split files of UCF-101.
        train_clips, test_clips: how many, for a generated set.
        video: fields of `edge4d.data.ClipSpec`: how videos become clips.
    """

    train: str
    test: str
    train_split: str | None = None
    test_split: str | None = None
    train_clips: int = 0
    test_clips: int = 0
    video: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Stage:
    """Training on one set.

    Attributes:
        epochs: passes over the training clips.
        batch: clips a step.
        rate: peak learning rate of AdamW; it rises for a tenth of the steps, then follows half a cosine down to 0.
        finetune_rate: where the network comes from another set; `rate` when None.
        decay: weight decay.
        workers: processes that read clips.
        views, crops: of each test clip, averaged.
    """

    epochs: int
    batch: int
    rate: float
    finetune_rate: float | None = None
    decay: float = 1e-2
    workers: int = 0
    views: int = 1
    crops: int = 1


@dataclass(frozen=True)
class Config:
    """One recipe.

    Attributes:
        recipe: ``scratch`` or ``finetune``: the table that its results go to.
        seeds: of weights and order; each is a training of its own.
        chains: names of sets, trained on one after the other; the last one is tested on.
        structures: names of `edge4d.blocks`.
        network, start, sets, stages: see there; the last two by the set's name.
    """

    recipe: str
    seeds: tuple[int, ...]
    chains: tuple[tuple[str, ...], ...]
    structures: tuple[str, ...]
    network: Network
    start: Start
    sets: dict[str, SetSpec]
    stages: dict[str, Stage]

    def identity(self, chain: tuple[str, ...], structure: str, seed: int) -> dict[str, Any]:
        """All that decides a training's numbers, JSON-ready."""
        free = ("workers",)
        stages = [{k: v for k, v in asdict(self.stages[name]).items() if k not in free} for name in chain]
        return {
            "structure": structure,
            "seed": seed,
            "chain": list(chain),
            "network": asdict(self.network),
            "start": asdict(self.start),
            "sets": [asdict(self.sets[name]) for name in chain],
            "stages": stages,
        }


_KEYS = {"recipe", "seeds", "chains", "structures", "network", "start", "sets", "stages"}
_MAY_BE_ZERO = ("stills", "train_clips", "test_clips", "workers", "decay", "freeze_2d", "cache_2d")
_T = TypeVar("_T")


def load_config(name: str | Path) -> Config:
    """Read a recipe.

    Args:
        name: of a file, or of one beside this module without its ending.

    Raises:
        UsageError: there is none, it is not TOML, or holds what it should not.
    """
    path = HOME / f"{name}.toml" if (HOME / f"{name}.toml").is_file() else Path(name)
    try:
        entries = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        known = ", ".join(sorted(p.stem for p in HOME.glob("*.toml")))
        raise UsageError(f"{path}: cannot be read: {error}", hint=f"a .toml file, or one of: {known}") from error
    if odd := sorted(set(entries) - _KEYS):
        raise UsageError(f"{path}: unknown keys: {', '.join(odd)}", hint=f"known: {', '.join(sorted(_KEYS))}")
    structures = tuple(blocks.get(each).name for each in entries.get("structures", blocks.names()))
    config = Config(
        recipe=_one_of(path, "recipe", entries.get("recipe"), ("scratch", "finetune")),
        seeds=tuple(entries.get("seeds", (0,))),
        chains=tuple(tuple(chain) for chain in entries.get("chains", ())),
        structures=structures,
        network=_read(Network, f"{path}: [network]", entries.get("network", {})),
        start=_read(Start, f"{path}: [start]", entries.get("start", {})),
        sets={k: _read(SetSpec, f"{path}: [sets.{k}]", v) for k, v in entries.get("sets", {}).items()},
        stages={k: _read(Stage, f"{path}: [stages.{k}]", v) for k, v in entries.get("stages", {}).items()},
    )
    models.get(config.network.model)
    if not config.chains or not config.seeds or not all(isinstance(seed, int) for seed in config.seeds):
        raise UsageError(f"{path}: seeds and chains must not be empty", hint='seeds = [0], chains = [["source"]]')
    if config.network.cache_2d and not config.network.freeze_2d:
        raise UsageError(f"{path}: [network]: cache_2d needs freeze_2d", hint="what is trained cannot be kept")
    for chain in config.chains:
        if lost := [each for each in chain if each not in config.sets or each not in config.stages] or not chain:
            raise UsageError(f"{path}: chains name {lost}, which have no [sets.…] and [stages.…]")
    return config


def _read(kind: type[_T], where: str, entry: dict[str, Any]) -> _T:
    known = {f.name: f for f in fields(kind)}  # type: ignore[arg-type]
    if odd := sorted(set(entry) - set(known)):
        raise UsageError(f"{where}: unknown keys: {', '.join(odd)}", hint=f"known: {', '.join(known)}")
    needed = [n for n, f in known.items() if f.default is MISSING and f.default_factory is MISSING]
    if lost := [n for n in needed if n not in entry]:
        raise UsageError(f"{where}: missing keys: {', '.join(lost)}")
    for name, value in entry.items():
        wanted = str(known[name].type).split(" | ")[0].split("[")[0]
        kinds = {"int": (int,), "float": (int, float), "str": (str,), "bool": (bool,), "dict": (dict,)}[wanted]
        if not isinstance(value, kinds) or (isinstance(value, bool) and wanted != "bool"):
            raise UsageError(f"{where}: {name} is {value!r}, expected {wanted}")
        if isinstance(value, int | float) and not (value > 0 or (value == 0 and name in _MAY_BE_ZERO)):
            raise UsageError(f"{where}: {name} is {value}, expected more than 0")
    return kind(**entry)


def _one_of(path: Path, name: str, value: object, known: tuple[str, ...]) -> str:
    if value not in known:
        raise UsageError(f"{path}: {name} is {value!r}", hint=f"one of: {', '.join(known)}")
    return str(value)
