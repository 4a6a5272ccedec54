"""What the HTML files of a class have in common: the templates, and how a verdict, a time and a duration look in them.

What a learner submitted is shown only as text: jinja2 escapes it, `display_text` replaces what a browser or a terminal
would obey, and each file's Content-Security-Policy forbids every script and every request should both fail.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from markupsafe import Markup, escape

from checks.kit.report.model import Outcome
from checks.kit.report.safe_text import display_text
from checks.kit.report.templates import template_environment
from checks.kit.report.terminal import SYMBOL

FOLDER = Path(__file__).parent
"""Where the templates and page.css are."""

MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
"""In English, whatever the language of this machine is."""

CLASS = {SYMBOL[outcome]: outcome[0] for outcome in Outcome}
SYMBOLS = re.compile(rf"^( {{0,2}})([{''.join(CLASS)}])(?= )", re.MULTILINE)
"""A line of a verdict that starts with an outcome."""

HEADING = re.compile(r"^( {3})(\S.*)$", re.MULTILINE)
"""A heading within a verdict: three blanks in front of it."""


def render(template: str, **variables: Any) -> str:
    """The HTML file that a template gives, with page.css in it."""
    environment = template_environment(FOLDER)
    environment.filters |= {"moment": moment, "duration": duration}
    environment.filters |= {"display_text": display_text, "highlighted": highlighted}
    css = Markup((FOLDER / "page.css").read_text(encoding="utf-8"))
    return environment.get_template(template).render(css=css, **variables)


def highlighted(text: str) -> Markup:
    """A verdict as HTML: its symbols and headings in <b>, everything else escaped."""
    with_symbols = SYMBOLS.sub(
        lambda match: f'{match[1]}<b class="{CLASS[match[2]]}">{match[2]}</b>', str(escape(text))
    )
    return Markup(HEADING.sub(r"\1<b>\2</b>", with_symbols))  # everything of the text was escaped above


def moment(time: datetime | None) -> str:
    """A time for people: `27 Nov 2026, 23:05 UTC`; "" for None."""
    utc = time.astimezone(UTC) if time else None
    return f"{utc.day} {MONTHS[utc.month - 1]} {utc:%Y, %H:%M} UTC" if utc else ""


def duration(seconds: float) -> str:
    """A time for people: `0.8 s`, `42 s`, `3 min 05 s`, `1 h 02 min`."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"
