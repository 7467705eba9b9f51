"""The verbs, imported only when called, and the one place where errors become messages and exit codes."""

from __future__ import annotations

import contextlib
import errno
import importlib
import os
import re
import signal
import sys
import threading
import traceback
from importlib import metadata
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer
from typer.core import TyperCommand, TyperGroup

from edge4d.cli.output import StdoutError, emit_json, emit_text, flush, print_error
from edge4d.errors import Edge4dError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from types import FrameType

__all__ = ["VERBS", "run"]

VERBS = {
    "export": "Rewrite a trained 3-D network as an ONNX graph of rank 4.",
    "verify": "Check that no value in a model exceeds rank 4.",
    "build": "Build a runtime's engine from an ONNX file.",
    "parity": "Compare the numbers that models give on the same inputs.",
    "bench": "Measure frames per second, latency and memory.",
    "plan": "Show what each 5-D operator would become, or why not.",
    "blocks": "List the structures that replace a Conv3d; compare them in a network.",
    "tune": "Bring accuracy back: a network with a structure learns from the original.",
    "eval": "Count right answers on labelled clips, whatever runs the model.",
    "doctor": "Show what is installed and what each runtime needs.",
}
"""Each verb is `edge4d.cli.VERB`, a module with a function `command`; here is its line in ``edge4d --help``."""

_USAGE, _BUG, _INTERRUPTED, _TERMINATED, _BROKEN_PIPE = 2, 70, 130, 143, 141

_PLACES = frozenset(
    {errno.ENAMETOOLONG, errno.EACCES, errno.EPERM, errno.ELOOP, errno.EROFS, errno.ENOSPC, errno.EDQUOT}
)
"""What is wrong with a path that the user gave, or with the disk that it is on, wherever it is first touched."""

_LONGEST = 200
"""Characters of a path that are shown."""

# typer has shipped its own copy of click since 0.26, so the common base of its usage errors has no stable import path.
_ClickException = cast("type[Exception]", typer.BadParameter.__mro__[2])


class _EscapedError(Exception):
    """Carries an exception that typer would otherwise turn into an exit code of its own."""


class _Group(TyperGroup):
    """Knows its verbs by name and one line of help; imports the one that is called."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        # Stand-ins: the help page lists them and a misspelt verb is compared with them.
        self.commands = {name: TyperCommand(name, help=line) for name, line in VERBS.items()}

    def list_commands(self, ctx: Any) -> list[str]:
        """In the order in which they are used, not of the alphabet."""
        return list(VERBS)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Import the verb that is about to run."""
        if args and args[0] in VERBS:
            self.commands[args[0]] = _load(args[0])
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except (KeyboardInterrupt, OSError, EOFError) as error:
            raise _EscapedError from error


def _load(verb: str) -> Any:
    """The command of one verb; its docstring is its help, the part from ``Examples:`` on kept line by line."""
    function: Callable[..., Any] = importlib.import_module(f"edge4d.cli.{verb}").command
    text = re.split(r"\n\s*(?:Args|Raises|Returns):\n", function.__doc__ or VERBS[verb])[0]
    text, _, examples = text.partition("Examples:")
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich")
    paragraphs = [" ".join(part.split()) for part in text.strip().split("\n\n")]
    help_text = "\n\n".join(paragraphs).replace("[", r"\[")
    if examples:
        lines = [line.strip() for line in examples.strip().splitlines()]
        help_text += "\n\n\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines).replace("[", r"\[")
    app.command(verb, help=help_text, context_settings={"help_option_names": ["-h", "--help"]})(function)
    command: Any = typer.main.get_command(app)
    return command


def _print_version(wanted: bool) -> None:
    if wanted:
        emit_text(f"edge4d {metadata.version('edge4d')}")
        raise typer.Exit


def _root(
    version: Annotated[  # noqa: ARG001, RUF100 - typer calls the callback
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


_HELP = """Trained 3-D networks in, exact ONNX graphs of rank 4 or less out.

\b
Examples:
  edge4d export model.pt2 -o model.onnx
  edge4d verify model.onnx
  edge4d bench model.pt2 model.onnx

Exit codes: 0 ok, 1 a finding or a failed parity, 2 usage or unreadable input, 3 a runtime is missing, 70 our bug.
"""


def _command() -> Any:
    app = typer.Typer(
        name="edge4d",
        cls=_Group,
        help=_HELP,
        pretty_exceptions_enable=False,
        rich_markup_mode="rich",
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_root)
    return typer.main.get_command(app)


def run(argv: Sequence[str] | None = None) -> int:
    """Run one command; every way it can end is turned into an exit code here and nowhere else.

    Args:
        argv: the words after the program's name; those of the process when None.

    Returns:
        The exit code.
    """
    args = list(sys.argv[1:] if argv is None else argv) or ["--help"]
    as_json = "--json" in (args[: args.index("--")] if "--" in args else args)
    with _terminating_like_interrupt():
        return _run(args, as_json)


def _run(args: list[str], as_json: bool) -> int:
    try:
        try:
            code = _command().main(args=args, prog_name="edge4d", standalone_mode=False)
            if code == _INTERRUPTED:  # how typer tells of an interruption before the verb runs, while it is imported
                raise KeyboardInterrupt
            flush()
        except _EscapedError as escaped:
            raise escaped.__cause__ or escaped from None
    except StdoutError as error:
        _abandon_stdout()
        return _fail(error.exit_code, type(error).__name__, error.message, error.hint, as_json=False)
    except Edge4dError as error:
        return _fail(error.exit_code, type(error).__name__, error.message, error.hint, as_json)
    except _ClickException as error:
        return _fail(_USAGE, "UsageError", *_usage(error, args), as_json)
    except KeyboardInterrupt:
        print_error("interrupted; nothing was left half-written")
        return _INTERRUPTED
    except _TerminatedError:
        print_error("terminated; nothing was left half-written")
        return _TERMINATED
    except (BrokenPipeError, SystemExit) as error:
        if isinstance(error, SystemExit) and not error.code:
            return 0  # how shell completion ends
        # Whoever read stdout has gone (`| head`). While it prints help, typer itself exits on that and on nothing else.
        _abandon_stdout()
        return _BROKEN_PIPE
    except typer.Abort:
        return _fail(_USAGE, "Abort", "aborted: no answer was given", None, as_json)
    except MemoryError:
        hint = "use a smaller batch, a shorter clip or a machine with more memory"
        return _fail(_USAGE, "MemoryError", "out of memory", hint, as_json)
    except Exception as error:
        if isinstance(error, OSError) and error.errno in _PLACES and error.filename is not None:
            message = f"{_shown(error.filename)}: {(error.strerror or str(error)).lower()}"
            return _fail(
                _USAGE, "UsageError", message, "check the path, and that you may read and write there", as_json
            )
        traceback.print_exc()
        hint = "please report it with the lines above and what `edge4d doctor` prints"
        return _fail(
            _BUG, type(error).__name__, f"this is a bug in edge4d: {type(error).__name__}: {error}", hint, as_json
        )
    return code if isinstance(code, int) else 0


def _shown(name: Any) -> str:
    """A path as text; of a long one both ends."""
    text = os.fsdecode(name) if isinstance(name, bytes) else str(name)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST // 2]}…{text[-_LONGEST // 2 :]}"


class _TerminatedError(BaseException):
    """SIGTERM, raised where the program stands so that temporary files are removed."""


@contextlib.contextmanager
def _terminating_like_interrupt() -> Iterator[None]:
    """For as long as the command runs; the caller's own handler is back afterwards."""

    def handler(_signal: int, _frame: FrameType | None) -> None:
        raise _TerminatedError

    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may set a handler
        return
    before = signal.signal(signal.SIGTERM, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL if before is None else before)


def _abandon_stdout() -> None:
    """Python flushes stdout once more at exit, and would complain again; what is left has nowhere to go."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _fail(code: int, kind: str, message: str, hint: str | None, as_json: bool) -> int:
    print_error(message, hint)
    if as_json:
        emit_json({"error": {"type": kind, "message": message, "hint": hint, "exit_code": code}})
        flush()
    return code


def _usage(error: BaseException, args: Sequence[str]) -> tuple[str, str]:
    """What typer says of a wrong command line, and the help page that answers it."""
    message: str = error.format_message() if hasattr(error, "format_message") else str(error)
    verb = next((word for word in args if not word.startswith("-")), "")
    page = f"edge4d {verb} --help" if verb in VERBS else "edge4d --help"
    return message.rstrip("."), f"see `{page}`"
