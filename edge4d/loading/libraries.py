"""Networks of well-known libraries by their names there: ``torchvision:r3d_18``, without weights and downloads."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from edge4d.errors import RuntimeUnavailable, UsageError

__all__ = ["LIBRARIES", "find_in_library", "is_library"]

Builders = Callable[[Any], Mapping[str, Callable[..., Any]]]


def _torchvision(_: Any) -> Mapping[str, Callable[..., Any]]:
    models = importlib.import_module("torchvision.models")
    # A builder with a backbone would fetch that one's weights unless told not to.
    known = {name: models.get_model_builder(name) for name in models.list_models()}
    return {name: partial(_without_weights, builder) for name, builder in known.items()}


def _without_weights(builder: Callable[..., Any], **arguments: Any) -> Any:
    import inspect

    none = {name: None for name in ("weights", "weights_backbone") if name in inspect.signature(builder).parameters}
    return builder(**{**none, **arguments})


def _pytorchvideo(_: Any) -> Mapping[str, Callable[..., Any]]:
    found: dict[str, Callable[..., Any]] = {}
    creators = ("csn", "r2plus1d", "resnet", "slowfast", "vision_transformers", "x3d")
    for module_name in (*(f"pytorchvideo.models.{name}" for name in creators), "pytorchvideo.models.hub"):
        module = importlib.import_module(module_name)
        for name, value in vars(module).items():
            in_hub = module_name.endswith("hub") and not name.startswith("_")
            if callable(value) and not isinstance(value, type) and (in_hub or name.startswith("create_")):
                found[name] = value
    return found


def _timm(timm: Any) -> Mapping[str, Callable[..., Any]]:
    return {name: partial(timm.create_model, name, pretrained=False) for name in timm.list_models()}


LIBRARIES: dict[str, Builders] = {"torchvision": _torchvision, "pytorchvideo": _pytorchvideo, "timm": _timm}
"""By name: what builds each of their networks, given the imported library."""

_FETCHING = ("weights", "weights_backbone", "pretrained", "pretrained_backbone")


def is_library(factory: str) -> bool:
    """Whether `factory` is the short form, without a module in a library."""
    library, _, name = factory.partition(":")
    return library in LIBRARIES and "." not in name and bool(name)


def find_in_library(factory: str, arguments: Mapping[str, Any]) -> Callable[..., Any]:
    """What builds the network.

    Args:
        factory: ``library:name``.
        arguments: that it will be called with.

    Raises:
        UsageError: no network of that name (says the nearest), the library does not import, or `arguments` would make
            it fetch weights.
        RuntimeUnavailable: the library is not installed.
    """
    library, _, name = factory.partition(":")
    for argument in _FETCHING:
        if arguments.get(argument):
            raise UsageError(
                f"--factory {factory}: {argument}={arguments[argument]!r} fetches weights, which come from MODEL here",
                hint=f"leave {argument} out",
            )
    try:
        known = LIBRARIES[library](importlib.import_module(library))
    except ModuleNotFoundError as error:
        missing = (error.name or library).partition(".")[0]
        raise RuntimeUnavailable(
            f"--factory {factory}: {missing} is not installed"
            + (f", which {library} needs" if missing != library else ""),
            hint=f"pip install {missing}",
        ) from None
    except (Exception, SystemExit) as error:
        raise UsageError(
            f"--factory {factory}: importing {library} raised {type(error).__name__}: {error}",
            hint="torchvision is built for another torch (one with CUDA, another version): install both from one index"
            if "torchvision::" in str(error)
            else f"see that it works by itself: python -c 'import {library}'",
        ) from error
    if name not in known:
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
        raise UsageError(
            f"--factory {factory}: {library} has no network {name!r}",
            hint=f"did you mean {' or '.join(near)}?" if near else f"it has {len(known)}: {', '.join([*known][:8])}…",
        )
    return known[name]
