"""The report of a results file: one HTML page, the same as Markdown, and a sheet of figures."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..comparison.results import Results


def html_report(results: Results) -> str:
    """The report of what a results file holds, as one HTML file that loads nothing.

    Raises:
        InputError: no matplotlib.
    """
    from ..comparison.summary import summarise
    from .page import html_page

    return html_page(results, summarise(results))
