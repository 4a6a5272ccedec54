"""Statements over time, as a picture and as text.

The picture has a background of its own, so that it can be read on a light page, on a dark one and on paper.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

from checks.kit.lessons.words import plural
from checks.kit.report.terminal import middle_out

if TYPE_CHECKING:
    from checks.kit.wire import Recording
    from checks.kit.wire.statements import Statement

WIDTH, LABEL, RESULT, ROW, TOP = 900, 330, 130, 22, 34
"""Pixels: the whole, the column of statements, the column of results, the height of a row, of the title."""

COLOURS = ("#3b6ea5", "#a5651a", "#2b7a4b", "#7a4fa3", "#8a6d00", "#4a6670")
HELD, FAILED, MOMENT = "#b3261e", "#b3261e", "#1b6e2c"


@dataclass(frozen=True, slots=True)
class Bar:
    """A statement. Times are milliseconds since the beginning; `end` is None while there is no response."""

    connection: int
    text: str
    start: float
    end: float | None
    result: str
    held: bool = False
    failed: bool = False
    transaction: tuple[float, float] | None = None
    """From when to when the explicit transaction was open to which it belongs."""


@dataclass(frozen=True, slots=True)
class Waterfall:
    """A picture in a notebook, text elsewhere. `moments` are (what, milliseconds since the beginning)."""

    title: str
    bars: Sequence[Bar]
    moments: Sequence[tuple[str, float]] = ()

    def _repr_html_(self) -> str:
        # an image scales with the page, has a text alternative, and JupyterLab shows it in a notebook that nobody
        # trusts yet; VS Code shows no HTML at all until the folder is trusted
        data = base64.b64encode(svg(self).encode()).decode()
        return f'<img src="data:image/svg+xml;base64,{data}" alt="{escape(words(self))}" style="max-width:100%">'

    def __repr__(self) -> str:
        return words(self)


def waterfall(title: str, seen: Recording, moments: Sequence[tuple[str, float]]) -> Waterfall:
    """A picture of a recording. `moments` are (what, seconds of time.perf_counter), the clock of the recording."""
    statements = list(seen.for_display)
    start = min([moment for _, moment in moments] + [statement.started for statement in statements])
    numbers: dict[int, int] = {}
    bars = []
    for statement in statements:
        number = numbers.setdefault(statement.connection, len(numbers) + 1)
        spans = [
            (_ms(transaction.began, start), _ms(transaction.ended, start) if transaction.ended else float("inf"))
            for transaction in seen.transactions
            if transaction.connection == statement.connection
            and transaction.began <= statement.started
            and (transaction.ended is None or statement.started <= transaction.ended)
        ]
        bars.append(
            Bar(
                number,
                " ".join(statement.text.split()),
                _ms(statement.started, start),
                None if statement.finished is None else _ms(statement.finished, start),
                _result(statement),
                statement.held,
                statement.error is not None or statement.finished is None,
                spans[-1] if spans else None,
            )
        )
    return Waterfall(title, bars, [(what, _ms(moment, start)) for what, moment in moments])


def _ms(moment: float, start: float) -> float:
    return (moment - start) * 1000


def _result(statement: Statement) -> str:
    if statement.error:
        return statement.error.message
    if statement.finished is None:
        return "no response: cut"
    held = "held, " if statement.held else ""
    return held + (plural(statement.rows, "row") if statement.rows else statement.tag.lower() or "ok")


def words(picture: Waterfall) -> str:
    """The picture as text: one line for each statement and moment, in order."""
    lines = [(at, f"{what}") for what, at in picture.moments]
    for bar in picture.bars:
        took = "no response" if bar.end is None else f"{bar.end - bar.start:.1f} ms"
        lines.append((bar.start, f"#{bar.connection} {middle_out(bar.text, 60)}  ({took}; {bar.result})"))
    rows = [f"{at:9.1f} ms  {text}" for at, text in sorted(lines, key=lambda line: line[0])]
    return "\n".join([picture.title, *rows])


def svg(picture: Waterfall) -> str:
    """The picture as an SVG document, 900 pixels wide; it scales with the page."""
    ends = [bar.end if bar.end is not None else bar.start for bar in picture.bars]
    last = max([*ends, *(at for _, at in picture.moments), 0.1]) * 1.04
    room = WIDTH - LABEL - RESULT - 20
    top = TOP + 14 * len(picture.moments) + 6
    bottom = top + ROW * len(picture.bars)
    height = bottom + 34

    def x(at: float) -> float:
        return LABEL + min(at, last) / last * room

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" '
        'font-family="system-ui, sans-serif" font-size="12">',
        f"<title>{escape(picture.title)}</title><desc>{escape(words(picture))}</desc>",
        f'<rect width="{WIDTH}" height="{height}" rx="6" fill="#fdfdfb" stroke="#c9c9c4"/>',
        f'<text x="14" y="22" font-weight="600" fill="#1c1c1a">{escape(picture.title)}</text>',
    ]
    for number, bar in enumerate(picture.bars):
        parts.append(_row(bar, top + ROW * number, x))
    for number, (what, at) in enumerate(picture.moments):
        y = TOP + 14 * number + 8
        parts.append(
            f'<line x1="{x(at):.1f}" x2="{x(at):.1f}" y1="{y + 3}" y2="{bottom}" stroke="{MOMENT}" '
            'stroke-dasharray="4 3"/>'
            + _text(x(at), y, f"{what}, {at:.1f} ms", MOMENT, "end" if x(at) > LABEL + room / 2 else "start")
        )
    parts.append(f'<line x1="{LABEL}" x2="{LABEL + room}" y1="{bottom + 4}" y2="{bottom + 4}" stroke="#80807a"/>')
    for tick in _ticks(last):
        parts.append(_text(x(tick), bottom + 20, f"{tick:g} ms", "#5a5a55", "middle"))
    return "".join([*parts, "</svg>"])


def _row(bar: Bar, y: float, x: Callable[[float], float]) -> str:
    colour = COLOURS[(bar.connection - 1) % len(COLOURS)]
    end = bar.end if bar.end is not None else float("inf")
    left, width = x(bar.start), max(x(end) - x(bar.start), 2)
    band = ""
    if bar.transaction:
        began, ended = (x(at) for at in bar.transaction)
        band = (
            f'<rect x="{began:.1f}" y="{y}" width="{ended - began:.1f}" height="{ROW}" fill="{colour}" opacity=".13"/>'
        )
    fill = HELD if bar.held else colour
    stroke = f' stroke="{FAILED}" stroke-width="2" fill-opacity=".35"' if bar.failed else ""
    return (
        band
        + f'<text x="14" y="{y + 15}" font-family="ui-monospace, monospace" font-size="11" fill="#1c1c1a">'
        + f'<tspan fill="{colour}" font-weight="700">#{bar.connection}</tspan> '
        + f"{escape(middle_out(bar.text, 42))}</text>"
        + f'<rect x="{left:.1f}" y="{y + 5}" width="{width:.1f}" height="{ROW - 10}" rx="2" fill="{fill}"{stroke}>'
        + f"<title>{escape(bar.text)}</title></rect>"
        + _text(WIDTH - RESULT, y + 15, middle_out(bar.result, 20), FAILED if bar.failed or bar.held else "#5a5a55")
    )


def _text(x: float, y: float, text: str, colour: str, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y}" fill="{colour}" font-size="11" text-anchor="{anchor}">{escape(text)}</text>'


def _ticks(last: float) -> list[float]:
    """Four to nine round numbers from 0 on."""
    step = next(s for s in (a * 10.0**b for b in range(-3, 6) for a in (1, 2, 5)) if last / s < 9)
    return [round(number * step, 6) for number in range(int(last / step) + 1)]
