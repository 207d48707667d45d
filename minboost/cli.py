"""The ``minboost`` command: one subcommand a job."""

from __future__ import annotations

import sys

import click

from . import __version__
from .commands.compare import command as compare
from .commands.directions import command as directions
from .commands.influence import command as influence
from .commands.inspect import command as inspect
from .commands.profile import command as profile
from .commands.program import run_command
from .commands.report_page import command as report
from .commands.sweep import command as sweep
from .commands.tune import command as tune
from .generate import command as generate


@click.group()
@click.version_option(__version__)
def program() -> None:
    """Language models whose attention can be told where to look."""


program.add_command(generate)
program.add_command(compare)
program.add_command(influence)
program.add_command(directions)
program.add_command(inspect)
program.add_command(profile)
program.add_command(report)
program.add_command(sweep)
program.add_command(tune)


def main(argv: list[str] | None = None) -> int:
    return run_command(program, argv, "minboost")


if __name__ == "__main__":
    sys.exit(main())
