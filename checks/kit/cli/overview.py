"""The map: every lesson, what passes, what is next."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from checks.kit.lessons.lesson import Lesson, all_lessons
from checks.kit.lessons.paths import ROOT
from checks.kit.lessons.progress import Progress
from checks.kit.lessons.unfinished import missing
from checks.kit.report import terminal
from checks.kit.report.model import Outcome

if TYPE_CHECKING:
    from rich.console import Console


def show() -> None:
    """All lessons in a line each, the next one check by check."""
    out = terminal.console()
    progress = Progress()
    lessons = all_lessons()
    following = next((lesson for lesson in lessons if not _done(lesson, progress) and not missing(lesson)), None)
    out.print("The Bookshop workbook\n", style="bold")
    for lesson in lessons:
        _line(out, lesson, progress, lesson is following)
        if lesson is following:
            _checks(out, lesson, progress.outcomes(lesson.name))
    out.print()
    if following is None:
        out.print("Every lesson passes.", style="bold green")
    else:
        left = sum(_minutes_left(lesson, progress) for lesson in lessons if not missing(lesson))
        ticket = (following.folder / "README.md").relative_to(ROOT)
        out.print(f"Next: {ticket}", style=terminal.link(str(ticket)), soft_wrap=True)
        out.print(f"Then: workbook watch {following.number}, or pytest checks/{following.name}")
        out.print(f"About {left} minutes to go. Know it already? workbook skip {following.number}")
    out.print(f"PostgreSQL: {_postgres()}", style="dim")


def _line(out: Console, lesson: Lesson, progress: Progress, following: bool) -> None:
    if missing(lesson):
        out.print(
            f"    {lesson.number:02}  {lesson.title:<28} unfinished: workbook dev verify {lesson.number}", style="dim"
        )
        return
    outcomes = progress.outcomes(lesson.name)
    passed = sum(outcomes.get(entry.name) == "passed" for entry in lesson.checks)
    done = _done(lesson, progress)
    if terminal.plain():
        symbol = "passed" if done else "next" if following else "open"
    else:
        symbol = "✓" if done else "▸" if following else " "
    score = f"{passed}/{len(lesson.checks)}" if outcomes else f"{len(lesson.checks)} checks"
    time = "straight away" if progress.skipped(lesson.name) else f"about {lesson.minutes} min"
    text = f"  {symbol} {lesson.number:02}  {lesson.title:<28} {score:>10}  {time}"
    out.print(text, style="green" if done else "bold" if following else "")


def _checks(out: Console, lesson: Lesson, outcomes: dict[str, str]) -> None:
    """The checks of the next lesson, once some of them ran."""
    for entry in lesson.checks if outcomes else []:
        outcome = outcomes.get(entry.name)
        mark = terminal.mark(Outcome(outcome)) if outcome else "not yet:" if terminal.plain() else "·"
        style = terminal.STYLE[Outcome(outcome)] if outcome else "dim"
        out.print(f"         {mark} {entry.name.removeprefix('test_').replace('_', ' ')}", style=style, soft_wrap=True)


def _minutes_left(lesson: Lesson, progress: Progress) -> int:
    """The lesson's minutes, less the share of its checks that pass."""
    outcomes = progress.outcomes(lesson.name)
    open_ones = sum(outcomes.get(entry.name) != "passed" for entry in lesson.checks)
    return round(lesson.minutes * open_ones / max(len(lesson.checks), 1))


def _done(lesson: Lesson, progress: Progress) -> bool:
    return progress.passed(lesson.name, [entry.name for entry in lesson.checks])


def _postgres() -> str:
    """Which server a run would use; nothing is started to find out."""
    if os.environ.get("DATABASE_URL"):
        return "the server of DATABASE_URL"
    source = os.environ.get("WORKBOOK_POSTGRES", "embedded")
    return {"compose": "the server of compose.yaml", "docker": "a container of its own"}.get(source, "embedded")
