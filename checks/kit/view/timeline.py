"""A timeline as rows of a list: text for everybody, and a bar beside it, whose places are percent of the width."""

from __future__ import annotations

from dataclasses import dataclass

from checks.kit.report.timeline import Span, Timeline

COLORS = 6
"""Colors of the style sheet for connections; a seventh connection has the first one again."""


@dataclass(frozen=True, slots=True)
class Row:
    """A span with the percents of its bar, and of its transaction's band if it has one."""

    span: Span
    begins: float
    ends: float
    band: tuple[float, float] | None

    @property
    def who(self) -> str:
        """The connection of a statement: `#2`, or `app.worker #2`."""
        name = f"#{self.span.connection}" if self.span.connection else ""
        return f"{self.span.process} {name}".strip()

    @property
    def color(self) -> int:
        return (self.span.connection - 1) % COLORS

    @property
    def took(self) -> str:
        """Its time in words; for an event, when it happened."""
        if self.span.kind == "event":
            return f"at {duration(self.span.start)}"
        if self.span.end is None:
            return f"from {duration(self.span.start)} on"
        return duration(self.span.end - self.span.start)


@dataclass(frozen=True, slots=True)
class Drawing:
    """The rows, the percents at which an event happened, and the length of the whole in words."""

    rows: list[Row]
    moments: list[float]
    length: str
    hidden: int


def drawing(timeline: Timeline) -> Drawing:
    """The timeline as a page draws it."""

    def percent(at: float) -> float:
        return round(min(max(at / timeline.length, 0), 1) * 100, 2)

    rows = [
        Row(
            span,
            percent(span.start),
            percent(timeline.length if span.end is None else span.end),
            (percent(span.transaction[0]), percent(span.transaction[1])) if span.transaction else None,
        )
        for span in timeline.spans
    ]
    moments = [row.begins for row in rows if row.span.kind == "event"]
    return Drawing(rows, moments, duration(timeline.length), timeline.hidden)


def duration(milliseconds: float) -> str:
    """`0.4 ms`, `12 ms`, `3.2 s`."""
    if milliseconds < 9.95:
        return f"{milliseconds:.1f} ms"
    return f"{milliseconds:.0f} ms" if milliseconds < 999.5 else f"{milliseconds / 1000:.1f} s"
