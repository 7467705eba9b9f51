"""A Hugging Face folder: `config.json` and weights. Nothing is fetched and no code of the folder's runs.

The class comes from the installed `transformers`, by the name that the config gives, never from the folder or a hub.
"""

from __future__ import annotations

import contextlib
import difflib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge4d.errors import LoadError, RuntimeUnavailable
from edge4d.loading.pickles import TRUST_HINT

if TYPE_CHECKING:
    from torch import nn

__all__ = ["is_folder", "load_folder", "shape_in"]

_LARGEST = 2**24  # bytes of a config or an index
_WEIGHTS = ("model.safetensors", "model.safetensors.index.json")
_PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json")
_SHOWN = 6


def is_folder(path: Path) -> bool:
    """Whether `path` is a folder with a config in it."""
    return path.is_dir() and (path / "config.json").is_file()


def load_folder(folder: Path, *, trust: bool) -> tuple[nn.Module, tuple[int, ...] | None, tuple[Path, ...]]:
    """The network of a folder, with its weights.

    Args:
        folder: with ``config.json`` and ``model.safetensors``, or the shards of an index.
        trust: whether the user vouches for pickles, which older folders have in place of safetensors.

    Returns:
        (the network in evaluation mode, the shape of its input where the config tells it, the files that were read).

    Raises:
        LoadError: no such class, weights that are missing, do not fit or lie elsewhere, pickles without trust.
        RuntimeUnavailable: transformers is not installed.
    """
    config = _read_json(folder / "config.json")
    pickled, weights = _weights(folder, trust)
    _refuse_foreign(folder, config)
    with _still():
        kind = _class_of(folder, config)
        module = _from_files(kind, folder, pickled)
    return module.eval(), shape_in(config), (folder / "config.json", *weights)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > _LARGEST:
            raise ValueError(f"{path.stat().st_size} bytes")
        read = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(read, dict):
            raise ValueError("no object")
    except (OSError, ValueError, RecursionError) as error:
        raise LoadError(f"{path}: cannot be read: {error}", hint="copy or download the folder again") from None
    return read


def _weights(folder: Path, trust: bool) -> tuple[bool, tuple[Path, ...]]:
    """(whether they are pickles, the files)."""
    for pickled, (one, index) in ((False, _WEIGHTS), (True, _PICKLES)):
        if (folder / one).is_file():
            files = [one]
        elif (folder / index).is_file():
            places = _read_json(folder / index).get("weight_map")
            named = sorted({str(place) for place in places.values()}) if isinstance(places, dict) else []
            if not named:
                raise LoadError(f"{folder / index}: names no files of weights", hint="download the folder again")
            files = [index, *named]
        else:
            continue
        for name in files:
            _check_inside(folder, name)
        if pickled and not trust:
            raise LoadError(
                f"{folder}: its weights are pickles ({files[-1]}), which may run code; they were not read",
                hint=f"{TRUST_HINT}; better, fetch the folder's safetensors",
            )
        return pickled, tuple(folder / name for name in files)
    raise LoadError(
        f"{folder}: has a config.json but no weights: none of {', '.join((*_WEIGHTS, *_PICKLES))}",
        hint="download the folder whole; a Git LFS checkout needs git lfs pull",
    )


def _check_inside(folder: Path, name: str) -> None:
    if name != Path(name).name or "\\" in name or name in ("", ".", ".."):
        raise LoadError(
            f"{folder}: its weights are said to lie in {name!r}, outside the folder",
            hint="such a folder is not what transformers writes; do not trust it",
        )
    path = folder / name
    # The cache of the hub keeps its files elsewhere, as links: those within one cache are what the user asked for.
    real = folder.resolve()
    home = real.parents[1] if real.parent.name == "snapshots" else real
    if not os.path.realpath(path).startswith(f"{home}{os.sep}"):
        raise LoadError(
            f"{folder}: {name} is a link that leads out of the folder", hint="put the file itself into the folder"
        )
    if not path.is_file():
        raise LoadError(f"{folder}: the file {name} is missing", hint="download the folder whole")
    with path.open("rb") as stream:
        if stream.read(23) == b"version https://git-lfs":
            raise LoadError(f"{path}: a Git LFS pointer, the weights were not fetched", hint="run git lfs pull")


def _refuse_foreign(folder: Path, config: dict[str, Any]) -> None:
    if (folder / "adapter_config.json").exists():
        raise LoadError(
            f"{folder}: a PEFT adapter, whose network lies elsewhere",
            hint="merge it into its network (merge_and_unload) and save that",
        )
    if config.get("quantization_config"):
        raise LoadError(f"{folder}: a quantized network", hint="give the float network that it was made from")
    if config.get("use_pretrained_backbone"):
        raise LoadError(
            f"{folder}: its backbone would be fetched (use_pretrained_backbone)",
            hint="save the whole network with save_pretrained",
        )


def _class_of(folder: Path, config: dict[str, Any]) -> Any:
    try:
        import transformers  # type: ignore[import-untyped, import-not-found, unused-ignore]
    except ModuleNotFoundError as error:
        missing = (error.name or "transformers").partition(".")[0]
        raise RuntimeUnavailable(
            f"{folder}: a Hugging Face folder, which needs {missing}, not installed here",
            hint=f"pip install {missing}",
        ) from None
    named = config.get("architectures")
    name = named[0] if isinstance(named, list) and named and isinstance(named[0], str) else None
    if name is None:
        raise LoadError(
            f"{folder}: config.json names no class of its network (architectures)",
            hint='add it, for example "architectures": ["VideoMAEForVideoClassification"]',
        )
    kind = None
    if name.isidentifier() and not name.startswith("_"):
        try:
            kind = getattr(transformers, name, None)
        except ImportError as error:  # transformers imports a network when it is asked for
            cause: BaseException = error
            while cause.__cause__ is not None:
                cause = cause.__cause__
            raise RuntimeUnavailable(
                f"{folder}: transformers {transformers.__version__} cannot import {name} here: "
                f"{type(cause).__name__}: {cause}",
                hint="install what it needs, or mend the package that fails",
            ) from None
    if not (isinstance(kind, type) and issubclass(kind, transformers.PreTrainedModel)):
        near = difflib.get_close_matches(name, [one for one in dir(transformers) if one.startswith(name[:2])], n=1)
        own = " it comes with code of its own (auto_map), which is never run;" if config.get("auto_map") else ""
        raise LoadError(
            f"{folder}: {name} is no network of transformers {transformers.__version__};{own} edge4d takes those only",
            hint=f"did you mean {near[0]}?"
            if near
            else "update transformers, or load the network in Python and save a torch.export archive",
        )
    kind_of_model = getattr(kind.config_class, "model_type", None)
    if config.get("model_type") not in (None, kind_of_model):
        raise LoadError(
            f"{folder}: config.json is of a {config['model_type']!r}, but names {name}, a {kind_of_model!r}",
            hint="correct config.json",
        )
    return kind


def _from_files(kind: Any, folder: Path, pickled: bool) -> nn.Module:
    try:
        module, told = kind.from_pretrained(
            str(folder),
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=not pickled,
            output_loading_info=True,
            # A config may name an implementation that would be fetched.
            attn_implementation="eager",
        )
    except (Exception, SystemExit) as error:  # of transformers: a dozen types
        said = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise LoadError(
            f"{folder}: transformers cannot load it: {type(error).__name__}: {said[:300]}",
            hint="check that the folder is whole, and of the installed version of transformers",
        ) from error
    wrong = [
        f"{title}: {_some(told.get(key) or ())}"
        for key, title in (
            ("missing_keys", "missing from the files"),
            ("unexpected_keys", "not in the network"),
            ("mismatched_keys", "of another size"),
            ("error_msgs", "errors"),
        )
        if told.get(key)
    ]
    if wrong:
        raise LoadError(
            "\n  ".join([f"{folder}: its weights do not fit {kind.__name__}", *wrong]),
            hint="the config must be of the very network that was saved; transformers would have filled in random ones",
        )
    network: nn.Module = module
    return network


def _some(items: Any) -> str:
    names = sorted(str(item) for item in items)
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")


def shape_in(config: dict[str, Any]) -> tuple[int, ...] | None:
    """The input's shape as the network takes it: (N, T, C, H, W) of a video network; None where it is not told."""
    size = config.get("image_size", config.get("crop_size"))
    height, width = size if isinstance(size, list) and len(size) == 2 else (size, size)
    frames = config.get("num_frames", config.get("frames_per_clip"))
    channels = config.get("num_channels", config.get("in_chans", 3))
    sizes = (1, frames, channels, height, width) if frames is not None else (1, channels, height, width)
    known = all(isinstance(one, int) and not isinstance(one, bool) and 0 < one < 2**16 for one in sizes)
    return sizes if known and size is not None else None  # type: ignore[return-value]


@contextlib.contextmanager
def _still() -> Iterator[None]:
    """No connections, warnings or bars of transformers for a while."""
    import warnings

    before = {name: os.environ.get(name) for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_VERBOSITY", "TQDM_DISABLE")}
    os.environ.update({"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error", "TQDM_DISABLE": "1"})
    restore: Any = None
    try:
        with contextlib.suppress(Exception):
            from transformers import utils

            logging: Any = utils.logging
            level = logging.get_verbosity()
            logging.set_verbosity_error()
            logging.disable_progress_bar()
            restore = (logging, level)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        if restore is not None:
            restore[0].set_verbosity(restore[1])
            restore[0].enable_progress_bar()
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
