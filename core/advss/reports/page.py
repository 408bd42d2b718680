"""A report as one HTML page: nothing is fetched, nothing runs, and it prints."""

from __future__ import annotations

import re
from importlib.resources import files

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup, escape

from advss.reports.document import Drawing, Report

OWN_NAMES = (('id="', 'id="{}-'), ("url(#", "url(#{}-"), ('href="#', 'href="#{}-'))  # two figures have the same ones


def page(report: Report) -> str:
    """The page's text."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, keep_trailing_newline=True)
    template = environment.from_string((files("advss") / "reports" / "page.html").read_text("utf-8"))
    return template.render(report=report, inlined=inlined)


def inlined(drawing: Drawing) -> Markup:
    """A figure's SVG as an element of the page, its names made its own."""
    svg = drawing.svg[drawing.svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    for name, own in OWN_NAMES:
        svg = svg.replace(name, own.format(drawing.name))
    return Markup("<svg role='img' aria-label='{}' ").format(escape(drawing.caption)) + Markup(svg.removeprefix("<svg"))
