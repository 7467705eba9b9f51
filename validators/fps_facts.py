"""What a model file costs before it runs: its bytes, and how long a runtime's compiler took to make it."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge4d.errors import Edge4dError
from edge4d.exporters import has_runtime
from edge4d.files import sha256_of
from edge4d.recipe import recipe_path

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["facts_of", "no_copies"]


def facts_of(path: Path) -> dict[str, Any]:
    """Size and build time of a file; never raises for a file that is broken, which loading it tells better.

    Returns:
        ``size_bytes`` (weights and engine files beside it included, recipes not), ``build_s``, and in place of one that
        is not known (None) its reason, ``size_unknown``, ``build_unknown``.
    """
    recipe = _recipe(path)
    size, why_size = _size(path, recipe)
    build, why_build = _build(path, recipe)
    return {"size_bytes": size, "size_unknown": why_size, "build_s": build, "build_unknown": why_build}


def no_copies(details: Mapping[str, Any]) -> str:
    """Why a runtime has no time of copies to tell, given what it says of itself (runtime, providers)."""
    runtime, places = str(details.get("runtime")), [str(place) for place in details.get("providers", ())]
    if places and all(place.lower().startswith("cpu") for place in places):
        return "on the CPU a runtime works in the host's memory, nothing is copied to a device"
    return f"{runtime} on {', '.join(places) or 'its device'} does not tell them apart, they are part of the latency"


def _recipe(path: Path) -> dict[str, Any] | None:
    """The recipe beside a file; None without one that is this very file's."""
    try:
        recipe = json.loads(recipe_path(path).read_text(encoding="utf-8"))
        own = recipe["files"][path.name]
        same = own["bytes"] == path.stat().st_size and own["sha256"] == sha256_of(path)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return recipe if same else None


def _size(path: Path, recipe: Mapping[str, Any] | None) -> tuple[int | None, str | None]:
    try:
        if path.suffix.lower() == ".onnx":
            from edge4d.exporters.sources import model_files

            files = model_files(path)
        else:
            files = (path, *_beside(path, recipe))
        return sum(file.stat().st_size for file in dict.fromkeys(files)), None
    except (Edge4dError, OSError) as error:
        return None, error.message if isinstance(error, Edge4dError) else str(error)


def _beside(path: Path, recipe: Mapping[str, Any] | None) -> list[Path]:
    """Files that an engine consists of besides itself: those of its recipe, and the weights of OpenVINO's IR."""
    names = [name for name in (recipe or {}).get("files", ()) if name != path.name and not name.endswith(".json")]
    if path.suffix.lower() == ".xml":
        names.append(path.with_suffix(".bin").name)
    # A recipe may come from a stranger: a name that leads out of the folder is not followed.
    places = [path.parent / name for name in names if Path(name).name == name]
    return [place for place in places if place.is_file()]


def _build(path: Path, recipe: Mapping[str, Any] | None) -> tuple[float | None, str | None]:
    if not has_runtime(path):
        return None, "PyTorch runs it as it is"
    step = str((recipe or {}).get("step", ""))
    if recipe is None or not step.startswith("build "):
        onnx = path.suffix.lower() == ".onnx"
        why = "the runtime compiles it while it loads" if onnx else "no recipe of this very file lies beside it"
        return None, why
    seconds = recipe.get("build_s")
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds < math.inf:
        return None, "its recipe does not say (an earlier edge4d built it)"
    return float(seconds), None
