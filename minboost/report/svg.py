"""A figure as SVG within a page: no fonts, files or styles of its own, in the page's colours."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from ..analysis.plots import BLUE, GREEN, GREY, ORANGE, PINK

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLOURS = {
    "#000000": "currentColor",
    "#ffffff": "var(--paper)",
    "#e6e6e6": "var(--line)",
    **{colour.lower(): f"var(--{name})" for colour, name in (
        (BLUE, "blue"), (ORANGE, "orange"), (GREEN, "green"), (PINK, "pink"), (GREY, "muted"),
    )},
}  # fmt: skip
"""What stands for the colours of a figure, so that they follow light and dark."""
LEAST = 360
"""Pixels below which a figure is not made smaller: its letters would be too small."""
XLINK = "{http://www.w3.org/1999/xlink}"


@contextmanager
def quiet_fonts() -> Iterator[None]:
    """Draw without a word on characters that the font lacks: nothing that a user can change."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)
        yield


def inline_svg(drawn: Figure, name: str, described: str) -> str:
    """``drawn`` as an <svg> element for a page, the same figure to the same text.

    Args:
        name: in front of every id, which must be one of a kind on the page.
        described: what it shows, for screen readers.
    """
    from matplotlib import rc_context

    buffer = io.BytesIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with rc_context({"svg.hashsalt": "minboost", "svg.fonttype": "none"}), quiet_fonts():
        drawn.savefig(buffer, format="svg", metadata=nothing, transparent=True)
    root = ElementTree.fromstring(buffer.getvalue())
    for element in root.iter():
        _plain(element, name)
    root.attrib.update({"role": "img", "aria-label": described})
    for size in ("width", "height", "version"):
        root.attrib.pop(size, None)
    width = round(float(root.attrib["viewBox"].split()[2]) / 72 * 96)
    least = min(width, max(LEAST, round(0.72 * width)))
    root.attrib["style"] = f"max-width: {width}px; min-width: {least}px"
    for defs in list(root.iter("defs")):
        for child in list(defs):
            if child.tag == "style":
                defs.remove(child)
    return ElementTree.tostring(root, encoding="unicode")


def _plain(element: ElementTree.Element, name: str) -> None:
    """Rid an element of namespaces, and make its ids and colours the page's."""
    element.tag = element.tag.rsplit("}", 1)[-1]
    element.tail = (element.tail or "").strip() or None
    for key, value in list(element.attrib.items()):
        del element.attrib[key]
        if key == "id":
            value = f"{name}-{value}"
        elif key in ("href", XLINK + "href"):
            key, value = "href", value.replace("#", f"#{name}-", 1)
        elif key.startswith("{"):
            continue
        else:
            value = value.replace("url(#", f"url(#{name}-")
        if key in ("style", "fill", "stroke"):
            value = re.sub("#[0-9a-f]{6}", lambda found: COLOURS.get(found[0], found[0]), value)
            value = re.sub(r"font: (?:[a-z]+ )*([\d.]+)px [^;]*", r"font-size: \1px", value)
        element.attrib[key] = value
