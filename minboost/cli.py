"""The ``minboost`` command: one subcommand a job."""

from __future__ import annotations

import sys

import click

from . import __version__
from .commands.program import run_command
from .generate import command as generate


@click.group()
@click.version_option(__version__)
def program() -> None:
    """Language models whose attention can be told where to look."""


program.add_command(generate)


def main(argv: list[str] | None = None) -> int:
    return run_command(program, argv, "minboost")


if __name__ == "__main__":
    sys.exit(main())
