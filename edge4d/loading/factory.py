"""`--factory package.module:callable`: builds the network that a state_dict belongs to, from the user's own code."""

from __future__ import annotations

import difflib
import importlib
import re
from typing import TYPE_CHECKING, Any

from edge4d.errors import UsageError
from edge4d.loading.pickles import cwd_importable

if TYPE_CHECKING:
    from torch import nn

__all__ = ["build", "find"]

_FORM = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")


def build(factory: str) -> nn.Module:
    """Import `factory` (the current directory counts as importable), call it without arguments and return its module.

    Args:
        factory: ``package.module:callable``; the callable may be a function or an `nn.Module` class.

    Raises:
        UsageError: wrong form, not importable, not callable, raising, or not returning an `nn.Module`.
    """
    from torch import nn

    with cwd_importable():
        target = find(factory)
        if not callable(target):
            raise UsageError(f"--factory {factory}: is a {type(target).__name__}, not something that can be called")
        try:
            module = target()
        except (Exception, SystemExit) as error:
            raise UsageError(
                f"--factory {factory}: calling it without arguments raised {type(error).__name__}: {error}",
                hint="name a function that takes no arguments and returns the network",
            ) from error
    if not isinstance(module, nn.Module):
        raise UsageError(
            f"--factory {factory}: returned a {type(module).__name__}, expected a torch.nn.Module",
            hint="the function must return the network itself",
        )
    return module


def find(name: str, option: str = "--factory") -> Any:
    """What ``package.module:name`` names, imported.

    Args:
        name: as the user gave it.
        option: with which the user gave it, for messages.

    Raises:
        UsageError: wrong form, or not importable.
    """
    if not _FORM.fullmatch(name):
        raise UsageError(
            f"{option} {name!r}: expected package.module:{'callable' if option == '--factory' else 'name'}",
            hint=f"for example {option} my_models.video:{'build' if option == '--factory' else 'clips'}",
        )
    module_name, _, attribute = name.partition(":")
    importlib.invalidate_caches()
    try:
        target: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        missing = error.name or module_name
        if missing == module_name or module_name.startswith(missing + "."):
            raise UsageError(
                f"{option} {name}: there is no module {missing!r} to import",
                hint="run edge4d in the folder that holds it, or put that folder on PYTHONPATH",
            ) from None
        raise UsageError(
            f"{option} {name}: importing {module_name} needs the module {missing!r}, which is not installed",
            hint=f"install {missing} in this environment",
        ) from error
    except (Exception, SystemExit) as error:
        raise UsageError(f"{option} {name}: importing {module_name} raised {type(error).__name__}: {error}") from error
    for part in attribute.split("."):
        if not hasattr(target, part):
            near = difflib.get_close_matches(part, [n for n in dir(target) if not n.startswith("_")], n=3)
            hint = f"did you mean {' or '.join(near)}?" if near else "check the name after the colon"
            raise UsageError(f"{option} {name}: {module_name} has no attribute {part!r}", hint=hint)
        target = getattr(target, part)
    return target
