"""``minboost report``: a results file as a page to read, Markdown, and a sheet of figures."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import click

from .. import __version__
from ..errors import InputError
from ..output import check_apart, check_writable, write_text
from .options import CONTEXT

if TYPE_CHECKING:
    from ..comparison.results import Results
    from ..comparison.summary import Summary

PNG = ".png"
EXAMPLES = """
\b
Examples:
  A page beside the results file, demo.html, to open in a browser:
    minboost report results/demo.jsonl
  Markdown for a pull request, with a sheet of figures:
    minboost report results/demo.jsonl --markdown report.md --png figures.png
  What was found, and every number, as JSON:
    minboost report results/demo.jsonl --html report.html --json
\b
Exit codes: 0 done, 1 output not writable, 2 usage.
"""


@click.command(
    "report",
    short_help="Write a report of a results file.",
    epilog=EXAMPLES,
    context_settings=CONTEXT,
)
@click.argument("results", type=click.Path(path_type=Path))
@click.option("--html", type=click.Path(path_type=Path), help="Write a self-contained page here.  "
              "[default: beside RESULTS, unless another is asked for]")  # fmt: skip
@click.option("--markdown", type=click.Path(path_type=Path), help="Write Markdown here.")
@click.option("--png", type=click.Path(path_type=Path), help="Write the figures here, on one "
              "sheet; the Markdown links to it.")  # fmt: skip
@click.option("--json", is_flag=True, help="One JSON object on stdout.")
def command(results: Path, **options: Any) -> None:
    """Write what the results file of minboost compare or sweep says: findings, tables with
    intervals and tests, curves over the strength, success against its cost, maps of heads, and
    every answer beside the plain one."""
    outputs: dict[str, Path | None] = {name: options[name] for name in ("html", "markdown", "png")}
    if not any(outputs.values()):
        outputs["html"] = results.with_suffix(".html")
    check_outputs(results, outputs)
    from ..comparison.results import read_results
    from ..comparison.summary import summarise
    from ..report.page import findings_of

    read = read_results(results)
    summary = summarise(read)
    written = write_report(read, summary, **outputs)
    findings = findings_of(read, summary)
    if options["json"]:
        found = {
            "version": __version__,
            "results": str(results),
            **{name: None if path is None else str(path) for name, path in outputs.items()},
            "findings": [finding.as_json() for finding in findings],
            **summary.as_json(),
        }
        click.echo(json.dumps(found, ensure_ascii=False, indent=2))
    else:
        from .describe import echo

        for finding in findings:
            echo(f"{finding.suite}, {finding.split}: {finding.text} {finding.beside}".strip())
        for note in summary.notes:
            echo(f"note: {note}", err=True)
    for path in written:
        click.echo(f"wrote {path}", err=True)


def check_outputs(results: Path, outputs: dict[str, Path | None]) -> None:
    """Refuse, before any work, what could not be written, or would go over the results.

    Args:
        outputs: the files by "html", "markdown" and "png"; None where there is none.

    Raises:
        InputError: a folder that is not there or not writable, two that are the same file, a --png
            of another ending, or no matplotlib where it is needed.
    """
    flags = {f"--{name}": path for name, path in outputs.items()}
    for flag, path in flags.items():
        if path is not None:
            check_writable(flag, path)
    check_apart(flags, {"the results file": results})
    png = outputs.get("png")
    if png is not None and png.suffix.lower() != PNG:
        raise InputError(f"--png must be a file ending in {PNG}, got {png}")
    if png is not None or outputs.get("html") is not None:
        from ..analysis.plots import need_matplotlib

        need_matplotlib()


def write_report(
    results: Results,
    summary: Summary,
    *,
    html: Path | None = None,
    markdown: Path | None = None,
    png: Path | None = None,
) -> list[Path]:
    """Write those of the report's files that are named, each whole or not at all.

    Returns:
        The files that were written: all, but a sheet that would hold no figure.

    Raises:
        InputError: no matplotlib. OSError: a file cannot be written.
    """
    from ..report.page import html_page, markdown_page

    written = []
    if png is not None and _write_sheet(summary, png):
        written.append(png)
    if html is not None:
        write_text(html, html_page(results, summary))
        written.append(html)
    if markdown is not None:
        link = None
        if png is not None and png in written:
            link = quote(Path(os.path.relpath(png, markdown.parent)).as_posix())
        write_text(markdown, markdown_page(results, summary, png=link))
        written.append(markdown)
    return written


def _write_sheet(summary: Summary, png: Path) -> bool:
    from ..analysis.plots import save
    from ..report.data import ordered
    from ..report.figures import panels_of, sheet
    from ..report.svg import quiet_fonts

    groups = [(f"{g.suite}, {g.split}", panels_of(g)) for g in ordered(summary)]
    drawn = sheet(groups)
    if drawn is None:
        click.echo("note: there is no figure to draw: no arm beside plain", err=True)
        return False
    with quiet_fonts():
        save(drawn, png)
    return True
