"""HTML from the templates. Everything that is put into one is text: jinja2 escapes it, controls become visible."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment
from markupsafe import Markup, escape

from checks.kit.report.known_errors import explain_error
from checks.kit.report.safe_text import display_text
from checks.kit.report.templates import template_environment

CODE = re.compile(r"`([^`\n]+)`")
"""Code in a sentence, as tickets, docstrings and hints write it."""

TEMPLATES = Path(__file__).parent / "templates"


def render(template: str, **values: Any) -> str:
    """The template with these values, of which only a Markup is taken as HTML."""
    return _environment().get_template(template).render(values)


@cache
def _environment() -> Environment:
    environment = template_environment(
        TEMPLATES, finalize=lambda value: display_text(value) if type(value) is str else value
    )
    environment.filters |= {"means": explain_error, "with_code": with_code}
    return environment


def with_code(text: str) -> Markup:
    """A sentence as HTML, with what is between backticks as code."""
    return Markup(CODE.sub(r"<code>\1</code>", str(escape(display_text(text)))))  # all of it was escaped before
