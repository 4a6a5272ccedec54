"""A verdict in as many rows as a page has left for it, broken between words."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from checks.kit.lessons.words import plural
from checks.kit.report import terminal
from checks.kit.report.model import Report, Result
from checks.kit.testbed.evidence import Line

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

LEAST_LINES, LEAST_STEPS = 2, 3
"""What is always shown of each section, and of what the check did, unless the page ends before it."""

MAX_PERIOD = 12
"""Lines of a group, such as a short traceback, whose repetitions are noticed."""

VARIES = re.compile(r"127\.0\.0\.1:\d+|\d\d:\d\d:\d\d([.,]\d+)?")
"""What differs between two lines of a log that say the same."""


def verdict_rows(out: Console, report: Report, result: Result, room: int) -> list[Text]:
    """The verdict's rows, at most `room`: first sections and steps get shorter, then the end is left out."""
    from rich.text import Text

    result = replace(result, evidence=[replace(each, lines=folded(each.lines)) for each in result.evidence])
    amounts = list(_amounts(min(len(result.steps), max(room, 0))))
    first = bisect_left(amounts, True, key=lambda amount: len(_rows(out, report, result, *amount)) <= room)
    rows = _rows(out, report, result, *amounts[min(first, len(amounts) - 1)])
    if len(rows) <= room:
        return rows
    kept = rows[: max(room - 1, 1)]
    while len(kept) > 1 and (not kept[-1].plain.strip() or 0 < _indent(kept[-1]) < terminal.INDENT):
        kept.pop()  # a heading, and nothing of what is below it
    left = f"     … {plural(len(rows) - len(kept), 'more line')}: press v"
    return [*kept, Text(left, style="dim")]


def _rows(out: Console, report: Report, result: Result, lines: int, steps: int) -> list[Text]:
    with out.capture() as capture:
        terminal.verdict(out, report, result, lines=lines, steps=steps)
    rows = wrapped(out, capture.get())
    while rows and not rows[0].plain.startswith(terminal.SYMBOL[result.outcome]):
        del rows[0]  # the rule above the verdict; here the page itself sets it off
    return rows


def _amounts(steps: int) -> Iterator[tuple[int, int]]:
    """How many lines of a section and how many steps to show, ever fewer."""
    lines = terminal.MAX_SHOWN_LINES
    yield lines, steps
    while lines > LEAST_LINES + 2:
        lines -= 1
        yield lines, steps
    while steps > LEAST_STEPS:
        steps -= 1
        yield lines, steps
    while lines > LEAST_LINES:
        lines -= 1
        yield lines, steps


def wrapped(out: Console, printed: str) -> list[Text]:
    """What was printed, as rows of the console's width; a long line goes on below its own beginning."""
    from rich.ansi import AnsiDecoder

    rows: list[Text] = []
    for line in AnsiDecoder().decode(printed.rstrip("\n")):
        indent = _indent(line)
        if line.cell_len <= out.width or indent >= out.width // 2:
            rows.append(line)
            continue
        parts = line[indent:].wrap(out, out.width - indent)
        for part in parts:
            part.rstrip()
            part.pad_left(indent)
        rows += parts
    return rows


def _indent(row: Text) -> int:
    return len(row.plain) - len(row.plain.lstrip())


def folded(lines: list[Line]) -> list[Line]:
    """The lines, those that repeat the ones before them only once, with how often they came."""
    shown: list[Line] = []
    at = 0
    keys = [(line.label, VARIES.sub("", line.text), line.result) for line in lines]
    while at < len(lines):
        for period in range(1, MAX_PERIOD + 1):
            group, times = keys[at : at + period], 1
            while keys[at + times * period : at + (times + 1) * period] == group:
                times += 1
            if times > 1:
                break
        else:
            period = times = 1
        block = lines[at : at + period]
        if period == 1 and times > 1:
            block = [replace(block[0], text=f"{block[0].text}  ×{times}")]
        elif times > 1:
            block.append(Line(f"… the {period} lines above, {plural(times - 1, 'more time')}"))
        shown += block
        at += period * times
    return shown
