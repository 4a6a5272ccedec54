"""Plans side by side, as a picture and as text: the steps of each, and bars of the blocks that each step touched.

All bars of a picture have one scale. The frame beside a title is the size of the largest table that the plan reads.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape

from checks.kit.report.terminal import middle_out
from checks.kit.testbed.plan import Node, Plan, counted, draw, summary

WIDTH, LABEL, NUMBER, STEP, NOTE, HEAD = 900, 500, 90, 20, 15, 44
"""Pixels: the whole, the column of steps, the numbers after the bars, the height of a step, of a note, of a title."""

BAR, TOTAL, FRAME, TEXT, NOTES = "#3b6ea5", "#a5651a", "#80807a", "#1c1c1a", "#5a5a55"

DEEPEST = 10
"""Steps below this are no further indented."""


@dataclass(frozen=True, slots=True)
class PlanPicture:
    """A picture in a notebook, text elsewhere. `plans` are drawn below each other, under their names."""

    plans: Mapping[str, Plan]

    def _repr_html_(self) -> str:
        data = base64.b64encode(svg(self).encode()).decode()  # as an image, for the same reasons as a waterfall
        return f'<img src="data:image/svg+xml;base64,{data}" alt="{escape(words(self))}" style="max-width:100%">'

    def __repr__(self) -> str:
        return words(self)


def words(picture: PlanPicture) -> str:
    """The picture as text."""
    drawn = ("\n".join([*([name] if name else []), *draw(plan, 100)]) for name, plan in picture.plans.items())
    return "\n\n".join(drawn)


def svg(picture: PlanPicture) -> str:
    """The picture as an SVG document, 900 pixels wide; it scales with the page."""
    most = max([1, *(max(plan.buffers, _frame(plan)) for plan in picture.plans.values())])
    scale = (WIDTH - LABEL - NUMBER - 14) / most
    parts: list[str] = []
    y = 10.0
    for name, plan in picture.plans.items():
        parts += _title(name, plan, y, scale)
        y += HEAD
        for depth, node in plan.root.walk():
            parts += _step(depth, node, y, scale)
            y += STEP + NOTE * len(_notes(node))
        y += 10
    begin = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y:.0f}" width="{WIDTH}" height="{y:.0f}" '
        'font-family="system-ui, sans-serif" font-size="12">'
        f"<title>{escape(' / '.join(filter(None, picture.plans)) or 'A plan')}</title>"
        f"<desc>{escape(words(picture))}</desc>"
        f'<rect width="{WIDTH}" height="{y:.0f}" rx="6" fill="#fdfdfb" stroke="#c9c9c4"/>'
    )
    return "".join([begin, *parts, "</svg>"])


def _frame(plan: Plan) -> int:
    """Blocks of the largest table that the plan reads."""
    return max(plan.tables.values(), default=0)


def _title(name: str, plan: Plan, y: float, scale: float) -> list[str]:
    frame = _frame(plan)
    return [
        f'<text x="14" y="{y + 14:.0f}" font-weight="600" fill="{TEXT}">{escape(middle_out(name, 76))}</text>',
        _text(14, y + 30, summary(plan), NOTES),
        f'<rect x="{LABEL}" y="{y + 4:.0f}" width="{max(plan.buffers * scale, 1):.1f}" height="12" fill="{TOTAL}"/>',
        f'<rect x="{LABEL}" y="{y + 2:.0f}" width="{max(frame * scale, 1):.1f}" height="16" fill="none" '
        f'stroke="{FRAME}" stroke-dasharray="3 2"><title>the size of the table: {frame:,} blocks</title></rect>',
        _text(LABEL + max(plan.buffers, frame) * scale + 6, y + 14, counted(plan.buffers, "block"), TOTAL),
    ]


def _step(depth: int, node: Node, y: float, scale: float) -> list[str]:
    x = 14 + 16 * min(depth, DEEPEST)
    room = (LABEL - x) // 7
    own = node.own_buffers
    title = f"{'→ ' if depth else ''}{node.title}, {counted(node.rows, 'row')}"
    parts = [_text(x, y + 13, middle_out(title, room), TEXT, 12)]
    if own:
        parts.append(
            f'<rect x="{LABEL}" y="{y + 3:.0f}" width="{max(own * scale, 1):.1f}" height="{STEP - 8}" fill="{BAR}">'
            f"<title>{escape(title)}</title></rect>"
        )
        parts.append(_text(LABEL + own * scale + 6, y + 13, f"{own:,}", NOTES))
    for number, note in enumerate(_notes(node)):
        parts.append(_text(x + 16, y + STEP + NOTE * number + 9, middle_out(note, room - 1), NOTES))
    return parts


def _notes(node: Node) -> list[str]:
    return [f"{name}: {text}" for name, text in node.conditions] + (
        [f"read and dropped: {counted(node.removed, 'row')}"] if node.removed else []
    )


def _text(x: float, y: float, text: str, colour: str, size: int = 11) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" fill="{colour}" font-size="{size}">{escape(text)}</text>'
