"""How every page of the workbook is made from templates: what is put into one is text, unless it is a Markup."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined


def template_environment(folder: Path, **options: Any) -> Environment:
    """For the templates in a folder; `options` are jinja2's. A name that nobody has given is an error."""
    return Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        **options,
    )
