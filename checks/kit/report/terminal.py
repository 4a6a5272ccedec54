"""Verdicts for a terminal: 80 columns, symbols beside colours, colours only where wanted.

With WORKBOOK_PLAIN=1 (or TERM=dumb) there are words in place of symbols and rules, for screen readers and logs.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from checks.kit.lessons.hints import has_hints
from checks.kit.lessons.lesson import find_lesson
from checks.kit.lessons.paths import ROOT
from checks.kit.lessons.unfinished import missing
from checks.kit.lessons.words import plural
from checks.kit.report.encoding import can_print
from checks.kit.report.known_errors import explain_error
from checks.kit.report.model import Outcome, Report, Result
from checks.kit.report.safe_text import escape_controls
from checks.kit.report.scores import score_lines
from checks.kit.testbed.evidence import Evidence, Line

if TYPE_CHECKING:
    from rich.console import Console

SYMBOL = {Outcome.PASSED: "✓", Outcome.FAILED: "✗", Outcome.BLOCKED: "–", Outcome.ERROR: "!"}
WORD = {Outcome.PASSED: "passed:", Outcome.FAILED: "failed:", Outcome.BLOCKED: "not run:", Outcome.ERROR: "error:"}
STYLE = {Outcome.PASSED: "green", Outcome.FAILED: "bold red", Outcome.BLOCKED: "dim", Outcome.ERROR: "bold red"}

MAX_SHOWN_LINES = 12
"""Lines of one section of evidence that are shown; the last ones."""

COLUMNS = re.compile(r"\A\s*(SELECT)\s.*?\sFROM\s", re.IGNORECASE | re.DOTALL)
"""A query up to its tables."""

VALUES = re.compile(r"\A\s*(INSERT INTO [\w.\"]+) \([^()]*\) VALUES \([^()]*\)", re.IGNORECASE)
"""A simple INSERT up to what follows its values."""

MAX_LINES_IN_FULL = 100
"""Lines of one section with -v; more would hide what comes after them."""

OTHER_IDS = "Ids are those of the check's own database. With `workbook serve {}`, use ids from 1 on."

INDENT = 5
"""Columns before the text of a verdict."""

MAX_LABEL = 16
"""Columns of the labels of evidence."""


def console(file: object = None, width: int | None = None, *, styled: bool | None = None) -> Console:
    """A rich console that never breaks words into markup; honours NO_COLOR.

    `styled` says whether there are colours and links at all; by default the file's kind and the environment do.
    """
    from rich.console import Console

    if width is None and os.environ.get("COLUMNS") == "0":  # as in some editors; rich would print nothing at all
        width = shutil.get_terminal_size().columns
    options = {"highlight": False, "markup": False, "emoji": False, "force_jupyter": False, "force_terminal": styled}
    return Console(file=file, width=width, **options)  # type: ignore[arg-type]


def plain() -> bool:
    """Whether there are words in place of symbols, without anything that moves or decorates.

    The environment asks for it, or the output's encoding does not have the symbols.
    """
    asked = bool(os.environ.get("WORKBOOK_PLAIN")) or os.environ.get("TERM") == "dumb"
    return asked or not can_print("".join(SYMBOL.values()) + "▸")


def mark(outcome: Outcome, words: bool | None = None) -> str:
    """The symbol or word at the beginning of a check's line.

    `words`, here and below: whether there are words in place of symbols and rules; by default `plain` says so.
    """
    return WORD[outcome] if _plain(words) else SYMBOL[outcome]


def _plain(words: bool | None) -> bool:
    return plain() if words is None else words


def rule(out: Console, words: bool | None = None) -> None:
    """A line between two parts."""
    out.print()
    if not _plain(words):
        out.rule(style="dim")


@contextmanager
def under_way(out: Console, result: Result) -> Iterator[None]:
    """While the block lasts, a terminal shows which check is running."""
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


def line(out: Console, result: Result, words: bool | None = None) -> None:
    """One line for one check: how it ended, and its title."""
    import textwrap

    text = result.title
    if result.outcome is Outcome.BLOCKED:
        text += f"  (not run; it needs: {textwrap.shorten(result.blocked_by, 50, placeholder='…')})"
    begin = mark(result.outcome, words)
    room = max(out.width - 3 - len(begin), 40)
    rows = textwrap.wrap(text, room, break_long_words=False, break_on_hyphens=False)
    for number, row in enumerate(rows):
        lead = f"  {begin} " if number == 0 else " " * (3 + len(begin))
        out.print(lead + row, style=STYLE[result.outcome], soft_wrap=True)


def header(out: Console, report: Report) -> None:
    """The first two lines: lesson, whose code, which server."""
    unfinished = f" · unfinished: workbook dev verify {report.lesson}" if missing(find_lesson(report.lesson)) else ""
    out.print(f"Bookshop · lesson {report.lesson:02} · {report.title}{unfinished}", style="bold")
    out.print(f"{report.target} on {report.postgres}\n", style="dim", soft_wrap=True)


def verdicts(out: Console, report: Report, *, in_full: bool) -> None:
    """The first check that did not pass with all that is known of it, the others in short, or `in_full` as well."""
    failed = [result for result in report.results if result.outcome.is_red]
    for number, result in enumerate(failed):
        if number == 0 or in_full:
            verdict(out, report, result, in_full=in_full)
        else:
            if number == 1:
                rule(out)
                out.print("The other failures, in short (-v shows all of them in full):", style="bold")
            out.print(f"\n{mark(result.outcome)} {result.title}", style="bold red")
            if result.finding:
                _text(out, result.finding.happened)


def verdict(
    out: Console,
    report: Report,
    result: Result,
    *,
    steps: int = 100,
    lines: int = MAX_SHOWN_LINES,
    words: bool | None = None,
    in_full: bool = False,
) -> None:
    """All that is known of one failed check, with at most so many of the last steps and of each section's lines.

    With `in_full` there are all lines, statements as they were sent but for long lists of values, and the requests in
    full.
    """
    rule(out, words)
    out.print(f"{mark(result.outcome, words)} {result.title}", style="bold red")
    if result.finding:
        _heading(out, "What happened")
        _text(out, result.finding.happened)
        _heading(out, "Why it matters")
        _text(out, result.finding.because)
    if result.steps:
        details = any("\n" in step for step in result.steps)
        _heading(out, "What the check did" + (" (-v: the requests in full)" if details and not in_full else ""))
        if details and in_full:
            _text(out, OTHER_IDS.format(report.lesson), style="dim")
        hidden = max(len(result.steps) - steps, 0)
        if hidden:
            _text(out, f"… {plural(hidden, 'earlier step')}", style="dim")
        for number, step in enumerate(result.steps[hidden:], hidden + 1):
            summary_line, _, detail = step.partition("\n")
            _text(out, f"{number}. {summary_line}")
            for row in escape_controls(detail).splitlines() if in_full else ():
                out.print(" " * (INDENT + 3) + row, style="dim", soft_wrap=True)  # one line, so that it can be copied
    for section in result.evidence:
        _heading(out, escape_controls(section.title))
        _evidence(out, section, MAX_LINES_IN_FULL if in_full else lines, in_full=in_full)
    _heading(out, "Where to look")
    for place in result.places:
        where = f"{place.path}:{place.line}" + (f"  in {place.function}" if place.function else "")
        _text(out, where, style=f"cyan {link(place.path)}")
        if place.error:
            _text(out, f"  {place.error}")
        if means := explain_error(place.error):
            _text(out, f"  In other words: {means}")
    if result.finding and result.finding.section and report.notebook:
        _text(out, f"{report.notebook}, section “{result.finding.section}”", style="cyan")
    if has_hints(report.lesson, result.name):
        _text(out, f"workbook hint {report.lesson} {result.name}", style="cyan")


def summary(out: Console, report: Report, next_file: str, total: int = 0) -> None:
    """The last line: how many of `total` pass (of those that ran, if left out), and what to open next."""
    out.print()
    style = "bold green" if report.passed else "bold"
    out.print(f"Lesson {report.lesson:02} · {report.tally(total)}", style=style)
    for row in score_lines(find_lesson(report.lesson), report):
        out.print(row)
    if report.changed:
        out.print("The code was edited while the checks ran, so this run does not count.")
    if report.all_green and not report.passed:  # a part says nothing about the lesson
        out.print(f"Run all of them: {next_file}", soft_wrap=True)
        return
    label = "Next" if report.passed else "Open"
    out.print(f"{label}: {next_file}", style=link(next_file.partition(":")[0]), soft_wrap=True)
    if report.passed:
        number = report.lesson
        if report.notebook:
            out.print(f"Read: {report.notebook}, section “Going further”", soft_wrap=True)
        if find_lesson(number).solution.is_dir():
            out.print(f"Compare with the solution: workbook diff {number}")
        if find_lesson(number).cost_requests:
            out.print(f"What it costs on the wire, before and after: workbook cost {number}")


def link(path: str) -> str:
    """The style that makes a path clickable where the terminal can."""
    return f"link {(ROOT / path).as_uri()}"


def _heading(out: Console, text: str) -> None:
    out.print(f"\n   {text}", style="bold", soft_wrap=True)


def _text(out: Console, text: str, style: str = "") -> None:
    """A paragraph, wrapped between words, each line indented; no blanks at the ends, so that it copies well."""
    import textwrap

    for part in escape_controls(text).splitlines() or [""]:
        indent = " " * (INDENT + len(part) - len(part.lstrip()))
        options = {"initial_indent": indent, "subsequent_indent": indent, "break_on_hyphens": False}
        for row in textwrap.wrap(part.strip(), max(out.width, 40), break_long_words=False, **options) or [""]:  # type: ignore[arg-type]
            out.print(row, style=style, soft_wrap=True)


def _evidence(out: Console, section: Evidence, most: int, *, in_full: bool = False) -> None:
    """A row for each of the last lines. Labels and results are in columns; a line of text only is never cut."""
    hidden = len(section.lines) - most
    if hidden > 0:
        _text(out, f"… {plural(hidden, 'earlier line')}" + ("" if in_full else " (-v shows more)"), style="dim")
    shown = section.lines[-most:]
    widest = min(max([3, *(len(line.label) for line in shown)]), MAX_LABEL)
    for line in shown:
        if line.result and in_full:
            _text(out, f"{_fit(line.label, widest):<{widest}}  {line.text}  → {line.result}")
        elif line.result:
            _text(out, _columns(line, widest, max(out.width - INDENT - widest - 3, 30)))
        else:
            label = f"{line.label:<{widest + 1}} " if line.label else ""
            for row in escape_controls(line.text).splitlines():
                out.print(" " * INDENT + label + row, style="dim", soft_wrap=True)


def _columns(line: Line, widest: int, room: int) -> str:
    """Label, text and result; the text gives way, in its middle, when the page is too narrow."""
    outcome = _fit(line.result, max(room // 2, room - len(line.text) - 2))
    text = shorten_statement(line.text, room - len(outcome) - 2)
    return f"{_fit(line.label, widest):<{widest}}  {text}{outcome:>{room - len(text)}}"


def _fit(text: str, width: int) -> str:
    return text if len(text) <= width else text[: max(width - 1, 0)] + "…"


def shorten_statement(text: str, width: int) -> str:
    """A long statement without its columns, then without its middle: tables and conditions tell the most."""
    if len(text) > width:
        text = VALUES.sub(r"\1 (…) VALUES (…)", COLUMNS.sub(r"\1 … FROM ", text, count=1), count=1)
    return middle_out(text, width)


def middle_out(text: str, width: int) -> str:
    """A long text without its middle."""
    if len(text) <= width:
        return text
    end = width // 2
    return f"{text[: width - end - 3].rstrip()} … {text[-end:].lstrip()}"
