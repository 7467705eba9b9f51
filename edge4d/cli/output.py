"""What the verbs print: results to stdout, everything for a person to stderr."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from edge4d.errors import Edge4dError

if TYPE_CHECKING:
    from rich.console import Console

__all__ = [
    "StdoutError",
    "emit_json",
    "emit_text",
    "flush",
    "note",
    "print_error",
    "progress",
    "stage",
    "stderr_console",
]


class StdoutError(Edge4dError):
    """Results cannot be written to stdout, e.g. because it is a file on a full disk."""


def stderr_console() -> Console:
    """A console on stderr that takes text as it is: no markup, no guessed colours, no wrapping.

    It is made anew on each call, for a console keeps the stream that was stderr when it was made.
    """
    from rich.console import Console

    return Console(stderr=True, markup=False, highlight=False, soft_wrap=True)


def emit_json(payload: Mapping[str, Any]) -> None:
    """Write one JSON document to stdout; NaN and infinities, which JSON lacks, become strings."""
    _write(json.dumps(_jsonable(payload), indent=2, allow_nan=False))


def emit_text(text: str) -> None:
    """Write a result for people to stdout, whatever the terminal's encoding."""
    encoding = sys.stdout.encoding or "utf-8"
    _write(text.rstrip("\n").encode(encoding, "backslashreplace").decode(encoding))


def flush() -> None:
    """Have the system take what was written to stdout.

    Raises:
        StdoutError: it does not.
        BrokenPipeError: nobody reads it any more.
    """
    _write("", end="")


def note(text: str) -> None:
    """A line for the person at the terminal, on stderr."""
    stderr_console().print(text)


def print_error(message: str, hint: str | None = None) -> None:
    """``error: MESSAGE`` and a line that says what to do, on stderr."""
    console = stderr_console()
    console.print("error: ", style="bold red", end="")
    console.print(message)
    if hint:
        console.print("  hint: ", style="bold", end="")
        console.print(hint)


@contextmanager
def stage(label: str) -> Iterator[None]:
    """Announce a step and how long it took, on stderr; a spinner turns meanwhile only on a terminal.

    A step that fails leaves no line: the error that follows says what happened.
    """
    console = stderr_console()
    start = time.perf_counter()
    if console.is_terminal:
        with console.status(label):
            yield
    else:
        yield
    console.print(f"{label:<28} {time.perf_counter() - start:6.1f} s", style="dim")


_REPORT_S = 10.0
"""Seconds between two lines of progress where no bar can be drawn."""


@contextmanager
def progress(label: str) -> Iterator[Callable[[float, str], None]]:
    """Something to tell how far long work is: a bar with the time left on a terminal, else a line now and then.

    Yields:
        Takes the share that is done (0 to 1) and one line about where it stands.
    """
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    console = stderr_console()
    if console.is_terminal:
        columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
        with Progress(*columns, console=console, transient=True) as bar:
            task = bar.add_task(label, total=1.0, start=False)

            def draw(share: float, text: str) -> None:
                if not bar.tasks[0].started:
                    bar.start_task(task)
                bar.update(task, completed=share, description=text)

            yield draw
        return
    begun = last = time.monotonic()

    def say(share: float, text: str) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= _REPORT_S:
            last = now
            left = f", {(now - begun) * (1 - share) / share:.0f} s left" if share > 0 else ""
            console.print(f"{label}: {text} ({share:.0%}{left})", style="dim")

    yield say


def _write(text: str, end: str = "\n") -> None:
    try:
        sys.stdout.write(text + end)
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise StdoutError(f"cannot write the result to standard output: {error.strerror}") from error


def _jsonable(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): _jsonable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_jsonable(item) for item in value]
    return value
