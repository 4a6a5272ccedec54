"""Verdicts for a terminal: 80 columns, symbols beside colours, colours only where wanted.

With WORKBOOK_PLAIN=1 (or TERM=dumb) words stand in place of symbols and rules, for screen readers and logs.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from checks.kit import catalogue
from checks.kit.report.model import Outcome, Report, Result

if TYPE_CHECKING:
    from rich.console import Console

SYMBOL = {Outcome.PASSED: "✓", Outcome.FAILED: "✗", Outcome.BLOCKED: "–"}
WORD = {Outcome.PASSED: "passed:", Outcome.FAILED: "failed:", Outcome.BLOCKED: "not run:"}
STYLE = {Outcome.PASSED: "green", Outcome.FAILED: "bold red", Outcome.BLOCKED: "dim"}
MOST_STATEMENTS = 12
CONTROL = dict.fromkeys(range(127, 160), 0xFFFD) | {code: 0x2400 + code for code in range(32) if code not in (9, 10)}
INDENT = 5


def console(file: object = None, width: int | None = None, *, styled: bool | None = None) -> Console:
    """A rich console that never breaks words into markup; honours NO_COLOR.

    `styled` says whether there are colours and links at all; by default the file's kind and the environment do.
    """
    from rich.console import Console

    options = {"highlight": False, "markup": False, "emoji": False, "force_jupyter": False, "force_terminal": styled}
    return Console(file=file, width=width, **options)  # type: ignore[arg-type]


def plain() -> bool:
    """Whether words are wanted in place of symbols, and nothing that moves or decorates."""
    return bool(os.environ.get("WORKBOOK_PLAIN")) or os.environ.get("TERM") == "dumb"


def mark(outcome: Outcome) -> str:
    """How an outcome begins its line."""
    return WORD[outcome] if plain() else SYMBOL[outcome]


def printable(text: str) -> str:
    """Text of strangers, such as a log, without what would command the terminal: control characters are shown."""
    return text.translate(CONTROL)


def rule(out: Console) -> None:
    """A line between two parts."""
    out.print()
    if not plain():
        out.rule(style="dim")


@contextmanager
def under_way(out: Console, result: Result) -> Iterator[None]:
    """While the block lasts, a terminal says which check is waited for."""
    moves = out.is_terminal and not plain()
    if moves:
        text = f"  … {result.title}"
        out.print(text, style="dim", end="\r", no_wrap=True, overflow="ellipsis", width=out.width - 1)
    try:
        yield
    finally:
        if moves:
            from rich.control import Control
            from rich.segment import ControlType

            out.control(Control((ControlType.ERASE_IN_LINE, 2)))


def line(out: Console, result: Result) -> None:
    """One line for one check, as it ends."""
    import textwrap

    text = result.title
    if result.outcome is Outcome.BLOCKED:
        text += f"  (not run; it needs: {textwrap.shorten(result.blocked_by, 50, placeholder='…')})"
    begin = mark(result.outcome)
    room = max(out.width - 3 - len(begin), 40)
    rows = textwrap.wrap(text, room, break_long_words=False, break_on_hyphens=False)
    for number, row in enumerate(rows):
        lead = f"  {begin} " if number == 0 else " " * (3 + len(begin))
        out.print(lead + row, style=STYLE[result.outcome], soft_wrap=True)


def header(out: Console, report: Report) -> None:
    """Which lesson, whose code, which server."""
    out.print(f"Bookshop · lesson {report.lesson:02} · {report.title}", style="bold")
    out.print(f"{report.target} on {report.postgres}\n", style="dim", soft_wrap=True)


def verdicts(out: Console, report: Report, *, in_full: bool) -> None:
    """The first failed check as a whole story and the others in short; `in_full` tells all of them."""
    failed = [result for result in report.results if result.outcome is Outcome.FAILED]
    for number, result in enumerate(failed):
        if number == 0 or in_full:
            verdict(out, report, result)
        else:
            if number == 1:
                rule(out)
                out.print("Then, in short (-v tells all in full):", style="bold")
            out.print(f"\n{mark(result.outcome)} {result.title}", style="bold red")
            if result.finding:
                _text(out, result.finding.happened)


def verdict(
    out: Console, report: Report, result: Result, *, steps: int = 100, statements: int = MOST_STATEMENTS
) -> None:
    """The whole story of one failed check, with at most so many of the last steps and statements."""
    rule(out)
    out.print(f"{mark(result.outcome)} {result.title}", style="bold red")
    if result.did:
        _heading(out, "What we did")
        hidden = max(len(result.did) - steps, 0)
        if hidden:
            _text(out, f"… {hidden} earlier steps", style="dim")
        for number, step in enumerate(result.did[hidden:], hidden + 1):
            _text(out, f"{number}. {step}")
    if result.finding:
        _heading(out, "What happened")
        _text(out, result.finding.happened)
    if result.wire:
        _heading(out, "On the wire")
        _crossings(out, result, statements)
    if result.finding:
        _heading(out, "Why it matters")
        _text(out, result.finding.because)
    _heading(out, "Where to look")
    for place in result.places:
        _text(out, f"{place.path}:{place.line}  in {place.function}", style=f"cyan {link(place.path)}")
        if place.error:
            _text(out, f"  {place.error}")
    if result.log:
        _text(out, "The last lines that were printed:")
        for row in printable(result.log).splitlines():
            out.print(" " * (INDENT + 2) + row, style="dim", soft_wrap=True)
    if result.finding and result.finding.read and report.notebook:
        _text(out, f"{report.notebook}, section “{result.finding.read}”", style="cyan")
    _text(out, f"workbook hint {report.lesson} {result.name}", style="cyan")


def summary(out: Console, report: Report, next_file: str, total: int = 0) -> None:
    """The last line: how many of `total` pass (of those that ran, if left out), and what to open next."""
    out.print()
    style = "bold green" if report.passed else "bold"
    out.print(f"Lesson {report.lesson:02} · {report.tally(total)}", style=style)
    label = "Next" if report.passed else "Open"
    out.print(f"{label}: {next_file}", style=link(next_file.partition(":")[0]), soft_wrap=True)
    if report.passed:
        number = report.lesson
        if report.notebook:
            out.print(f"Read: {report.notebook}, section “Going further”", soft_wrap=True)
        out.print(f"Compare with the solution: workbook diff {number}")
        if catalogue.lesson(number).tour:
            out.print(f"What it costs on the wire, before and after: workbook cost {number}")


def link(path: str) -> str:
    """The style that makes a path clickable where the terminal can."""
    return f"link {(catalogue.ROOT / path).as_uri()}"


def _heading(out: Console, text: str) -> None:
    out.print(f"\n   {text}", style="bold")


def _text(out: Console, text: str, style: str = "") -> None:
    """A paragraph, wrapped between words, each line indented; no blanks at the ends, so that it copies well."""
    import textwrap

    for part in printable(text).splitlines() or [""]:
        indent = " " * (INDENT + len(part) - len(part.lstrip()))
        options = {"initial_indent": indent, "subsequent_indent": indent, "break_on_hyphens": False}
        for row in textwrap.wrap(part.strip(), max(out.width, 40), break_long_words=False, **options) or [""]:  # type: ignore[arg-type]
            out.print(row, style=style, soft_wrap=True)


def _crossings(out: Console, result: Result, most: int) -> None:
    """A line each: connection, statement, result; the statement gives way when the line is too narrow."""
    hidden = len(result.wire) - most
    if hidden > 0:
        _text(out, f"… {hidden} earlier statements", style="dim")
    for crossing in result.wire[-most:]:
        room = max(out.width - INDENT - 6, 30)
        outcome = _fit(crossing.result, max(room // 2, room - len(crossing.text) - 2))
        statement = middle_out(crossing.text, room - len(outcome) - 2)
        _text(out, f"#{crossing.connection:<3} {statement}{outcome:>{room - len(statement)}}")


def _fit(text: str, width: int) -> str:
    return text if len(text) <= width else text[: max(width - 1, 0)] + "…"


def middle_out(text: str, width: int) -> str:
    """A long statement without its middle: the tables and what limits them stand at the end."""
    if len(text) <= width:
        return text
    end = width // 2
    return f"{text[: width - end - 3].rstrip()} … {text[-end:].lstrip()}"
