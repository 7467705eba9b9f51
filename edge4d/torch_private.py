"""What edge4d uses of torch without being promised it: every such name that a release may take away is here.

Fake tensors (`torch._subclasses`) and `torch.utils._pytree` are not counted: `torch.export`'s own users need them, and
they have kept their names since 2.0. Each function looks its name up when it is called, so that a torch without it
stops what needs it and nothing else.
"""

from __future__ import annotations

import importlib
from contextlib import AbstractContextManager
from typing import Any

from edge4d.errors import RuntimeUnavailable

__all__ = [
    "TESTED",
    "archive_loader",
    "archive_reader",
    "checks_of_decompositions",
    "is_transformed",
    "outside_of_modes",
    "plain_calls",
    "tied_call",
]

TESTED = "2.13"
"""The torch that edge4d is tested with; `constraints.txt` pins it."""


def outside_of_modes() -> AbstractContextManager[Any]:
    """A context in which calls compute at once, also while a capture follows what is computed."""
    found: AbstractContextManager[Any] = _look_up("torch.utils._python_dispatch", "_disable_current_modes")()
    return found


def plain_calls() -> AbstractContextManager[Any]:
    """A context in which no function mode sees what is called."""
    found: AbstractContextManager[Any] = _look_up("torch", "_C.DisableTorchFunction")()
    return found


def archive_reader() -> Any:
    """The class by which torch itself reads its archives; takes a path."""
    return _look_up("torch", "_C.PyTorchFileReader")


def archive_loader() -> Any:
    """What loads all programs of a `torch.export` archive, given a stream."""
    return _look_up("torch.export.pt2_archive._package", "load_pt2")


def is_transformed(value: Any) -> bool:
    """Whether a tensor has axes that it does not tell about, inside of a transform such as `torch.vmap`."""
    return bool(_look_up("torch", "_C._functorch.is_functorch_wrapped_tensor")(value))


def tied_call() -> Any:
    """What a captured graph calls for an operator that is tied to others by a token."""
    return _look_up("torch._higher_order_ops.effects", "with_effects")


def checks_of_decompositions() -> frozenset[Any]:
    """The operators that raise where a matrix has no decomposition, and give no number."""
    return frozenset({_look_up("torch", "ops.aten._linalg_check_errors.default")})


def _look_up(module: str, path: str) -> Any:
    """A name of torch's.

    Raises:
        RuntimeUnavailable: this torch does not have it.
    """
    import torch

    try:
        found: Any = importlib.import_module(module)
        for part in path.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError):
        raise RuntimeUnavailable(
            f"torch {torch.__version__} has no {module}.{path}, which edge4d needs of it",
            hint=f'install the torch that edge4d is tested with: pip install "torch=={TESTED}.*"',
        ) from None
    return found
