"""`--factory`: builds the network that a state_dict belongs to, from the user's own code or a library by name.

``package.module:callable``, or ``torchvision:r3d_18``, ``pytorchvideo:x3d_s``, ``timm:NAME``; keyword arguments may
follow, as Python literals: ``torchvision:r3d_18(num_classes=10)``.
"""

from __future__ import annotations

import ast
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
    """Import `factory` (the current directory counts as importable), call it and return its module.

    Args:
        factory: ``package.module:callable``; the callable may be a function or an `nn.Module` class. Or a library's
            name and that of a network in it. Keyword arguments may follow in parentheses.

    Raises:
        UsageError: wrong form, not importable, not callable, raising, or not returning an `nn.Module`.
        RuntimeUnavailable: the library is not installed.
    """
    from torch import nn

    from edge4d.loading.libraries import find_in_library, is_library

    name, arguments = split_arguments(factory)
    called = f"with {', '.join(arguments)}" if arguments else "without arguments"
    with cwd_importable():
        target = find_in_library(name, arguments) if is_library(name) else find(name)
        if not callable(target):
            raise UsageError(f"--factory {factory}: is a {type(target).__name__}, not something that can be called")
        try:
            module = target(**arguments)
        except (Exception, SystemExit) as error:
            raise UsageError(
                f"--factory {factory}: calling it {called} raised {type(error).__name__}: {error}",
                hint="name a function that takes no arguments and returns the network, or give the arguments: "
                f"--factory '{name}(name=value)'",
            ) from error
    if not isinstance(module, nn.Module):
        raise UsageError(
            f"--factory {factory}: returned a {type(module).__name__}, expected a torch.nn.Module",
            hint="the function must return the network itself",
        )
    return module


def split_arguments(factory: str) -> tuple[str, dict[str, Any]]:
    """``"a.b:c(n=10)"`` → ``("a.b:c", {"n": 10})``.

    Raises:
        UsageError: something else than keyword arguments with literal values in the parentheses.
    """
    name, opening, rest = factory.partition("(")
    if not opening:
        return factory, {}
    try:
        call = ast.parse(f"f({rest}", mode="eval").body
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name) or call.args:
            raise ValueError
        found: dict[str, Any] = {}
        for keyword in call.keywords:
            if keyword.arg is None:  # ``**…``
                raise ValueError
            found[keyword.arg] = ast.literal_eval(keyword.value)
        return name.strip(), found
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        raise UsageError(
            f"--factory {factory}: expected keyword arguments with plain values in the parentheses",
            hint=f"for example --factory '{name}(num_classes=10)'",
        ) from None


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
            hint="for example --factory my_models.video:build, or --factory torchvision:r3d_18"
            if option == "--factory"
            else f"for example {option} my_models.video:clips",
        )
    module_name, _, attribute = name.partition(":")
    importlib.invalidate_caches()
    try:
        target: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        missing = error.name or module_name
        if missing == module_name or module_name.startswith(missing + "."):
            from edge4d.loading.libraries import LIBRARIES

            near = difflib.get_close_matches(module_name, LIBRARIES, n=1) if option == "--factory" else []
            raise UsageError(
                f"{option} {name}: there is no module {missing!r} to import",
                hint=f"did you mean {near[0]}:{attribute}?"
                if near
                else "run edge4d in the folder that holds it, or put that folder on PYTHONPATH",
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
