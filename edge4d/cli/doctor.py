"""`edge4d doctor`: what is installed, what is missing, and the commands that mend it."""

import platform
from typing import Any

from edge4d.cli.options import Json
from edge4d.cli.output import emit_json, emit_text
from edge4d.tables import table

_REQUIRED = ("edge4d", "torch", "numpy", "einops", "onnx", "onnx-ir", "onnxscript", "onnxsim", "typer", "rich")


def command(as_json: Json = False) -> None:
    """Show what is installed and what each runtime needs.

    Nothing is changed and nothing is missing that would stop this command: its exit code is always 0.

    Examples:
        edge4d doctor
        edge4d doctor --json
    """
    found = examine()
    if as_json:
        emit_json(found)
    else:
        emit_text(_text(found))


def examine() -> dict[str, Any]:
    """Versions of what edge4d needs, and each runtime's probe."""
    from edge4d import exporters
    from edge4d.recipe import versions

    installed = versions(_REQUIRED)
    packages = [
        {"name": name, "version": installed[name], "install": None if installed[name] else f"pip install {name}"}
        for name in _REQUIRED
    ]
    runtimes = [{"name": name, **exporters.get(name).probe().to_dict()} for name in exporters.names()]
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "packages": packages,
        "runtimes": runtimes,
    }


def _state(runtime: dict[str, Any]) -> str:
    if not runtime["ok"]:
        return f"not usable: {runtime['why_not']}"
    return "ready" if runtime["why_not_run"] is None else f"builds, cannot run: {runtime['why_not_run']}"


def _text(found: dict[str, Any]) -> str:
    packages = [[p["name"], p["version"] or "missing", p["install"] or ""] for p in found["packages"]]
    runtimes = [[r["name"], r["version"] or "-", _state(r), r["install"] or ""] for r in found["runtimes"]]
    return "\n".join(
        [
            f"Python {found['python']} on {found['system']}",
            "",
            table(["package", "version", "install with"], packages),
            "",
            table(["runtime", "version", "state", "install with"], runtimes),
        ]
    )
