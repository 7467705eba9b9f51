"""The steps that every build has in common: the gate, staged files, a compiler in a child process, the recipe."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from edge4d.errors import UsageError, ValidationError
from edge4d.exporters.child import call, check_timeout
from edge4d.exporters.gating import gate_model
from edge4d.exporters.protocol import BuildResult
from edge4d.exporters.sources import model_files
from edge4d.files import refuse_folder, sha256_of, staged
from edge4d.recipe import recipe_bytes, recipe_path

__all__ = ["Compiler", "assemble", "description_beside", "refuse_suffix"]


class Compiler(NamedTuple):
    """What turns a model into an engine, in a process of its own.

    Attributes:
        runtime: the exporter's name.
        target: ``package.module:function``, or ``/path/file.py:function`` for an interpreter without edge4d. It gets
            ``{"runtime", "model", "files", "options", "max_rank"}``, writes all of the files, and returns
            ``{"engine": …, "notes": […]}``: facts for the recipe, and sentences for the user.
        packages: distributions whose versions matter.
        python: its interpreter; this one's own when None.
        finish: makes of what the compiler returned, and of the model's path, what it should have returned: for one
            that cannot read the model itself. Runs in this process. May add a ``summary`` for the user.
    """

    runtime: str
    target: str
    packages: tuple[str, ...]
    python: str | None = None
    finish: Callable[[Mapping[str, Any], Path], Mapping[str, Any]] | None = None


def assemble(
    compiler: Compiler,
    model_path: Path,
    outputs: Sequence[Path],
    options: Mapping[str, Any],
    *,
    max_rank: int | None,
    timeout: float | None,
) -> BuildResult:
    """Build an engine, whole or not at all, and a recipe beside it.

    Args:
        compiler: what builds it.
        model_path: an ONNX file.
        outputs: the engine first, then the files beside it.
        options: of the runtime, JSON-ready; kept in the recipe.
        max_rank: the limit for the model and for what the runtime makes of it; None for no gate.
        timeout: seconds; None for the default, 0 for no limit and no process of its own.

    Raises:
        ValidationError: the model cannot be read.
        GateError: it, or what the runtime made of it, breaks the limit.
        RuntimeFailed: the compiler hangs or dies.
        ExportError: the files cannot be written.
    """
    limit = check_timeout(timeout)
    sources = model_files(model_path)
    if outputs[0].exists() and outputs[0].samefile(model_path):
        raise UsageError(f"{outputs[0]} is the model itself", hint="choose another name with -o")
    refuse_folder(outputs[0])
    if max_rank is not None:
        gate_model(model_path, max_rank)
    start = time.perf_counter()
    targets = [outputs[0], recipe_path(outputs[0]), *outputs[1:]]
    with staged(*targets) as (engine, recipe, *beside):
        order = {
            "runtime": compiler.runtime,
            "model": str(model_path.absolute()),
            "files": [str(engine), *map(str, beside)],
            "options": dict(options),
            "max_rank": max_rank,
        }
        doing = f"building {outputs[0]} with {compiler.runtime}"
        made = call(compiler.target, order, limit, doing, compiler.python)
        if compiler.finish is not None:
            made = compiler.finish(made, model_path)
        written = {file.name: file for file in (engine, *beside)}
        recipe.write_bytes(
            recipe_bytes(
                f"build {compiler.runtime}",
                sources,
                {**options, "max_rank": max_rank},
                written,
                compiler.packages,
                engine=made["engine"],
                build_s=time.perf_counter() - start,
            )
        )
    return BuildResult(
        outputs[0],
        tuple(targets),
        targets[1],
        compiler.runtime,
        time.perf_counter() - start,
        tuple(made["notes"]),
        made["engine"],
        made.get("summary", ""),
    )


def refuse_suffix(output: Path, runtime: str, suffixes: Sequence[str]) -> None:
    """Refuse an output whose name another runtime would claim.

    Raises:
        UsageError: its suffix is none of the runtime's.
    """
    if output.suffix.lower() not in suffixes:
        raise UsageError(f"cannot build {output}: {runtime} writes {' or '.join(suffixes)}", hint="rename it with -o")


def description_beside(path: Path, runtime: str) -> dict[str, Any]:
    """What the recipe beside an engine says of it; empty where there is none, as with engines of other tools.

    Args:
        path: the engine.
        runtime: which it is about to be opened with.

    Returns:
        The recipe, ``engine`` and ``versions`` among its keys.

    Raises:
        ValidationError: the engine is missing, was built for another runtime, or is not what was built: damaged, or
            replaced since.
    """
    if not path.is_file():
        raise ValidationError(f"{path}: no such file", hint="check the path; `edge4d build` writes engines")
    beside = recipe_path(path)
    if not beside.is_file():
        return {}
    try:
        recipe = json.loads(beside.read_text(encoding="utf-8"))
        step, own = str(recipe["step"]), dict(next(iter(recipe["files"].values())))  # the engine comes first
    except (ValueError, KeyError, TypeError, AttributeError, StopIteration) as error:
        raise ValidationError(f"{beside}: not the recipe of {path.name}", hint="build the engine again") from error
    if step != f"build {runtime}":
        raise ValidationError(
            f"{path} is the work of `{step}`, not of `build {runtime}`",
            hint="open it with the runtime it was built for",
        )
    if path.stat().st_size != own.get("bytes") or sha256_of(path) != own.get("sha256"):
        raise ValidationError(
            f"{path} is not the file that its recipe {beside.name} describes: damaged, or replaced since",
            hint="copy engine and recipe together, or build it again",
        )
    return recipe if isinstance(recipe.get("engine"), dict) else {}
