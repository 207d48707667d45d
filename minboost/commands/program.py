"""Running a command: every expected failure becomes a message and an exit code."""

from __future__ import annotations

import io
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

import click

from .. import settings
from ..errors import InputError, ModelError

EXIT_OUTPUT, EXIT_USAGE, EXIT_MODEL, EXIT_MEMORY, EXIT_INTERRUPTED = 1, 2, 3, 4, 130


@dataclass(frozen=True)
class Invocation:
    """How the running command was called; click has it as ``ctx.obj``."""

    command: str
    """The command line as a shell takes it."""
    from_dotenv: set[str]
    """The environment variables that .env brought in."""


def run_command(program: click.Command, argv: list[str] | None, name: str) -> int:
    """Run a click command; returns the exit code."""
    for stream in (sys.stdout, sys.stderr):
        # An encoding that lacks a character must not end the command: it is escaped.
        if isinstance(stream, io.TextIOWrapper) and "utf" not in stream.encoding.lower():
            stream.reconfigure(errors="backslashreplace")
    try:
        arguments = sys.argv[1:] if argv is None else argv
        called = Invocation(
            _printable(shlex.join([*name.split(), *arguments])), settings.read_dotenv(Path("."))
        )
        code = program.main(argv, prog_name=name, standalone_mode=False, obj=called)
        return code if isinstance(code, int) else 0
    except click.ClickException as error:
        error.show()
        return EXIT_USAGE
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        return EXIT_INTERRUPTED
    except InputError as error:
        click.echo(f"error: {error}", err=True)
        return EXIT_USAGE
    except ModelError as error:
        click.echo(f"error: {error}", err=True)
        return EXIT_MODEL
    except OSError as error:  # a full disk or a closed pipe behind stdout
        click.echo(f"error: the output could not be written: {error}", err=True)
        return EXIT_OUTPUT
    except (MemoryError, RuntimeError) as error:
        if not _out_of_memory(error):
            raise
        click.echo(
            f"error: out of memory: {str(error).splitlines()[0] if str(error) else 'no detail'}; "
            "try a smaller --dtype, fewer --max-new-tokens or a shorter prompt",
            err=True,
        )
        return EXIT_MEMORY


def _printable(text: str) -> str:
    """``text`` with bytes that are no UTF-8, as paths may have, escaped."""
    return text.encode(errors="backslashreplace").decode()


def _out_of_memory(error: BaseException) -> bool:
    import torch

    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or (
        "can't allocate memory" in str(error) or "not enough memory" in str(error)
    )
