"""Evidence: what a verdict shows of a failed check beside its finding, as sections with a title and lines."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

ON_THE_WIRE = "On the wire"
"""The title of the section with the statements."""


@dataclass(frozen=True, slots=True)
class Line:
    """One line of evidence.

    `label` is shown before the text and `result` at the right: `#1`, `SELECT …`, `3 rows`. A line with a result is
    shortened in the middle of its text until it fits the page; a line of text only is shown as it is.
    """

    text: str
    label: str = ""
    result: str = ""


@dataclass(frozen=True, slots=True)
class Evidence:
    """A section of a verdict. Renderers show its last lines and say how many come before them."""

    title: str
    lines: list[Line]


Lines = Iterable[str | Line]
"""What a fixture may hand in as evidence: text, or lines with a label and a result."""

Source = Lines | Callable[[], Lines]
"""The lines themselves, or a function that returns them and is called when the check has failed."""


def collect(title: str, source: Source) -> Evidence:
    """A section. A source that fails is a line that says so: it must not hide why the check failed."""
    try:
        lines = source() if callable(source) else source
        return Evidence(title, [line if isinstance(line, Line) else Line(str(line)) for line in lines])
    except Exception as error:
        return Evidence(title, [Line(f"This evidence could not be collected: {type(error).__name__}: {error}")])
