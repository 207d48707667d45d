"""The report of a results file as one HTML page, and as Markdown."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from .. import __version__
from ..comparison.arms import PLAIN
from ..comparison.results import Results
from ..comparison.summary import CaseSummary, Group, Summary
from . import formats, tables
from .data import cases_json, ordered, provenance_of, title_of
from .figures import Panel, panels_of
from .finding import ALPHA, Finding, finding_of, floor_of
from .svg import inline_svg
from .words import GONE, NEW, differing

if TYPE_CHECKING:
    from jinja2 import Environment

CONTENT_POLICY = (
    "default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; "
    "base-uri 'none'; form-action 'none'"
)
"""The page may load nothing at all, and run no script but its own. Its styles are in it."""
EXAMPLES = 3
"""Cases of each group that the Markdown shows that were gained, and that were lost."""


@dataclass(frozen=True)
class Block:
    """One suite and split, with what the templates show of it."""

    name: str
    group: Group
    counts: str
    main: tables.Table
    more: tables.Table
    more_legend: str
    matrices: tuple[tables.Matrix, ...]
    legend: tuple[str, ...]
    figures: tuple[tuple[Panel, str], ...] = ()
    """Each with its SVG, on the HTML page."""

    def of_kind(self, kind: str) -> list[tuple[Panel, str]]:
        return [(panel, svg) for panel, svg in self.figures if panel.kind == kind]


def findings_of(results: Results, summary: Summary) -> list[Finding]:
    """What was found, test before validation."""
    floor = floor_of(results)
    return [finding_of(group, floor=floor) for group in ordered(summary)]


def html_page(results: Results, summary: Summary) -> str:
    """The whole report in one file that loads nothing; the same results give the same bytes.

    Raises:
        InputError: no matplotlib.
    """
    from markupsafe import Markup

    findings = findings_of(results, summary)
    blocks = []
    for number, group in enumerate(ordered(summary)):
        drawn = [
            (panel, Markup(inline_svg(panel.figure(), f"g{number}f{k}", panel.described)))
            for k, panel in enumerate(panels_of(group))
        ]
        blocks.append(_block(group, tuple(drawn)))
    script = _resource("words.js") + _resource("report.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return _environment(html=True).from_string(_resource("page.html.j2")).render(
        **_shared(results, summary, findings, blocks),
        policy=CONTENT_POLICY.format(digest=digest),
        style=Markup(_resource("report.css")),
        script=Markup(script),
        data=Markup(cases_json(results, [block.group for block in blocks], findings)),
        cases=sum(len(block.group.cases) for block in blocks),
        kinds={panel.kind for block in blocks for panel, _ in block.figures},
    )  # fmt: skip


def markdown_page(results: Results, summary: Summary, *, png: str | None = None) -> str:
    """The report as Markdown: all but the figures, and a few of the answers.

    Args:
        png: where the sheet of figures is, as a link from the Markdown.
    """
    blocks = [_block(group) for group in ordered(summary)]
    return _environment(html=False).from_string(_resource("page.md.j2")).render(
        **_shared(results, summary, findings_of(results, summary), blocks), png=png
    )  # fmt: skip


def _shared(
    results: Results, summary: Summary, findings: Sequence[Finding], blocks: Sequence[Block]
) -> dict[str, Any]:
    return {
        "title": title_of(results),
        "source": results.path.name,
        "version": __version__,
        "alpha": ALPHA,
        "floor": floor_of(results),
        "findings": findings,
        "provenance": provenance_of(results),
        "blocks": blocks,
        "notes": summary.notes,
        "examples": _examples,
    }


def _block(group: Group, figures: tuple[tuple[Panel, str], ...] = ()) -> Block:
    matrices = [tables.matrix(group), tables.matrix(group, control=True)]
    more = tables.more_table(group)
    return Block(
        name=f"{formats.visible(group.suite)}, {group.split}",
        group=group,
        counts=tables.counts_of(group),
        main=tables.main_table(group),
        more=more,
        more_legend=tables.more_legend(more),
        matrices=tuple(one for one in matrices if one is not None),
        legend=tuple(tables.legend(group)),
        figures=figures,
    )


def _environment(*, html: bool) -> Environment:
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    def finalize(value: Any) -> Any:
        if isinstance(value, str) and not isinstance(value, Markup):
            return formats.visible(value)
        return value

    environment = Environment(
        autoescape=html,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        finalize=finalize if html else None,
    )
    for name in ("share", "signed", "interval", "p_value", "markdown", "code"):
        environment.filters[name] = getattr(formats, name)
    environment.globals["state"] = _state
    environment.globals["marked"] = _marked
    return environment


def _state(group: Group, **filters: str) -> str:
    """The page's address with filters set: "#suite=demo&split=test&outcome=gained"."""
    values = {"suite": group.suite, "split": group.split, **filters}
    return "#" + urlencode({key: formats.visible(value) for key, value in values.items()})


def _examples(group: Group, finding: Finding) -> list[CaseSummary]:
    """A few cases that the finding's arm gained and lost, for the Markdown."""
    arm = finding.arm
    told = [case for case in group.cases if not case.control]
    gained = [case for case in told if arm in case.gained][:EXAMPLES]
    return gained + [case for case in told if arm in case.lost][:EXAMPLES]


def _marked(case: CaseSummary, arm: str) -> Mapping[str, str]:
    """The answers of the plain model and of ``arm``, with what differs in <del> and <ins>.

    Of several runs, the first that both have and in which they differ in passing.
    """
    plain = {record.run: record for record in case.answers[PLAIN]}
    pairs = [(plain[r.run], r) for r in case.answers[arm] if r.run in plain]
    before, after = next((p for p in pairs if p[0].passed != p[1].passed), pairs[0])
    parts = differing(formats.visible(before.text), formats.visible(after.text))
    if parts is None:
        return {"plain": formats.markdown(before.text), "arm": formats.markdown(after.text)}
    sides: dict[str, list[str]] = {"plain": [], "arm": []}
    for part in parts:
        for side, text, kind, mark in (
            ("plain", part.before, GONE, "del"),
            ("arm", part.after, NEW, "ins"),
        ):
            if not text:
                continue
            shown = formats.markdown(text)
            if part.kind == kind:
                sides[side].append(f"<{mark}>{shown}</{mark}>")
            else:
                lead = " " if text[0].isspace() else ""
                tail = " " if shown and text[-1].isspace() else ""
                sides[side].append(f"{lead}{shown}{tail}")
    return {side: "".join(texts).strip() or "(empty)" for side, texts in sides.items()}


def _resource(name: str) -> str:
    return (files(__package__) / name).read_text(encoding="utf-8")
