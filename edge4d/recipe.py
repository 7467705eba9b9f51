"""The JSON that lies beside each artifact: enough to make it again, and to tell whether it was."""

from __future__ import annotations

import json
import platform
from importlib import metadata
from typing import TYPE_CHECKING, Any

from edge4d.files import sha256_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

__all__ = ["SCHEMA", "recipe_bytes", "recipe_path", "versions"]

SCHEMA = 1
"""Version of the recipe's own layout; raised when a field changes its meaning."""


def recipe_path(artifact: Path) -> Path:
    """Where the recipe of an artifact lies: ``model.onnx`` has ``model.onnx.json``."""
    return artifact.with_name(artifact.name + ".json")


def recipe_bytes(
    step: str,
    sources: Iterable[Path],
    options: Mapping[str, Any],
    files: Mapping[str, Path],
    packages: Iterable[str],
    *,
    engine: Mapping[str, Any] | None = None,
    build_s: float | None = None,
) -> bytes:
    """The recipe of one artifact.

    Args:
        step: what made it, e.g. ``export`` or ``build onnxruntime``.
        sources: the files it was made from; their names and hashes are kept, not their folders.
        options: every option, JSON-ready.
        files: what was made: final name, and where its bytes lie now.
        packages: distributions whose versions matter.
        engine: what is known of an engine, JSON-ready: its description, devices, layers…
        build_s: seconds that a runtime's compiler took; left out when None, so that an export's recipe is the same
            every time.
    """
    document = {
        "schema": SCHEMA,
        "step": step,
        "sources": [{"name": source.name, "sha256": sha256_of(source)} for source in sources],
        "options": dict(options),
        "files": {name: {"sha256": sha256_of(path), "bytes": path.stat().st_size} for name, path in files.items()},
        "versions": versions(("edge4d", *packages)),
        "machine": {"system": platform.system(), "architecture": platform.machine()},
    }
    if build_s is not None:
        document["build_s"] = round(build_s, 3)
    if engine is not None:
        document["engine"] = dict(engine)
    return (json.dumps(document, indent=2) + "\n").encode()


def versions(packages: Iterable[str]) -> dict[str, str | None]:
    """Installed versions by name, None for what is not installed; nothing is imported."""
    return {"python": platform.python_version()} | {package: _version(package) for package in packages}


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
