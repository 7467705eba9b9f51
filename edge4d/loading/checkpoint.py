"""Finds the network or its weights in what `torch.save` wrote, and fits weights to a network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from edge4d.errors import LoadError

if TYPE_CHECKING:
    from pathlib import Path

    import torch
    from torch import nn

__all__ = ["fit", "unwrap"]

# Where training scripts keep the model, the usual first.
_KEYS = (
    "state_dict",
    "model_state_dict",
    "model",
    "net",
    "model_state",
    "network",
    "module",
    "weights",
    "ema",
    "model_ema",
)
# What DataParallel and torch.compile put before every name.
_WRAPPERS = ("module", "_orig_mod")
_SHOWN = 6


def unwrap(loaded: Any, path: Path) -> nn.Module | dict[str, torch.Tensor]:
    """The `nn.Module` or the state_dict inside `loaded`: the object itself, or one value of a training checkpoint.

    Args:
        loaded: what was unpickled.
        path: the file, for the message.

    Returns:
        A module without its DataParallel or torch.compile wrapper, or a state_dict without their prefixes.

    Raises:
        LoadError: neither is found; says what the file holds.
    """
    found = _find(loaded, depth=2)
    if found is None:
        raise LoadError(
            f"{path}: no model in it: {_describe(loaded)}", hint="save model.state_dict(), or the whole model"
        )
    return found if not isinstance(found, dict) else _strip_wrappers(found)


def _find(value: Any, depth: int) -> nn.Module | dict[str, torch.Tensor] | None:
    import torch
    from torch import nn

    if isinstance(value, nn.Module):
        return _unwrap_module(value)
    if not isinstance(value, Mapping) or not value:
        return None
    named = all(isinstance(key, str) for key in value)
    tensors = {key for key, item in value.items() if isinstance(item, torch.Tensor)}
    # `_extra_state` is what a module adds to its state_dict of its own accord.
    if named and tensors and all(key in tensors or key.endswith("_extra_state") for key in value):
        return dict(value)
    if depth:
        for key in _KEYS:
            if key in value and (found := _find(value[key], depth - 1)) is not None:
                return found
    return None


def _unwrap_module(module: nn.Module) -> nn.Module:
    from torch import nn

    while True:
        inner = module.module if isinstance(module, nn.DataParallel) else getattr(module, "_orig_mod", None)
        if not isinstance(inner, nn.Module):
            return module
        module = inner


def _describe(value: Any) -> str:
    if isinstance(value, Mapping):
        keys = [repr(key) for key in list(value)[:8]]
        more = f" and {len(value) - 8} more" if len(value) > 8 else ""
        return f"a dict with the keys {', '.join(keys)}{more}" if keys else "an empty dict"
    return f"a {type(value).__name__}"


def _strip_wrappers(state: dict[str, Any]) -> dict[str, Any]:
    while state and any(all(key.startswith(f"{prefix}.") for key in state) for prefix in _WRAPPERS):
        state = _without_first(state)
    return state


def _without_first(state: dict[str, Any]) -> dict[str, Any]:
    return {key.partition(".")[2]: value for key, value in state.items()}


def fit(module: nn.Module, state: dict[str, torch.Tensor], path: Path) -> None:
    """Put the weights `state` into `module`, in place.

    A prefix that every key shares (``model.`` of a Lightning checkpoint) is dropped when that makes more keys fit.

    Args:
        module: a network the caller owns, freshly built.
        state: weights by name.
        path: the file, for the message.

    Raises:
        LoadError: names the missing and unexpected keys and the sizes that differ.
    """
    own = module.state_dict()
    tops = {key.partition(".")[0] for key in own}
    if len(tops) == 1 and (top := tops.pop()) in _WRAPPERS:
        # The network itself has an attribute of that name: `unwrap` took it for a wrapper's.
        state = {f"{top}.{key}": value for key, value in state.items()}
    while len({key.partition(".")[0] for key in state}) == 1 and all("." in key for key in state):
        shorter = _without_first(state)
        if len(shorter.keys() & own.keys()) <= len(state.keys() & own.keys()):
            break
        state = shorter
    try:
        module.load_state_dict(state, strict=True)
    except Exception as error:
        lines = _differences(own, state) or [f"{type(error).__name__}: {error}"]
        counts = f"{len(state)} tensors in the file, {len(own)} in the network"
        raise LoadError(
            "\n  ".join([f"{path}: its weights do not fit the network of --factory ({counts})", *lines]),
            hint="check that the factory builds the same network, with the same number of classes and channels",
        ) from None


def _differences(own: Mapping[str, Any], state: Mapping[str, Any]) -> list[str]:
    # Old files lack this counter, and torch fills it in.
    missing = [key for key in own if key not in state and not key.endswith("num_batches_tracked")]
    unexpected = [key for key in state if key not in own]
    sizes = [
        f"{key} (file {_size(state[key])}, network {_size(own[key])})"
        for key in own
        if key in state and getattr(state[key], "shape", None) != getattr(own[key], "shape", None)
    ]
    groups = (("missing from the file", missing), ("not in the network", unexpected), ("of another size", sizes))
    return [f"{title}: {_some(items)}" for title, items in groups if items]


def _size(value: Any) -> str:
    shape = getattr(value, "shape", None)
    return type(value).__name__ if shape is None else "x".join(map(str, shape)) or "scalar"


def _some(items: list[str]) -> str:
    rest = len(items) - _SHOWN
    return ", ".join(items[:_SHOWN]) + (f" and {rest} more" if rest > 0 else "")
