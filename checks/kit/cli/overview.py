"""The map: every lesson, what passes, what is next."""

from __future__ import annotations

import os

from checks.kit import catalogue
from checks.kit.catalogue import ROOT, Lesson
from checks.kit.progress import Progress
from checks.kit.report import terminal


def show() -> None:
    out = terminal.console()
    progress = Progress()
    lessons = catalogue.lessons()
    following = next((lesson for lesson in lessons if not _done(lesson, progress)), None)
    out.print("The Bookshop workbook\n", style="bold")
    for lesson in lessons:
        outcomes = progress.outcomes(lesson.name)
        passed = sum(outcomes.get(entry.name) == "passed" for entry in lesson.checks)
        done = _done(lesson, progress)
        symbol = "✓" if done else "▸" if lesson is following else " "
        score = f"{passed}/{len(lesson.checks)}" if outcomes else f"{len(lesson.checks)} checks"
        text = f"  {symbol} {lesson.number:02}  {lesson.title:<28} {score:>10}  about {lesson.minutes} min"
        out.print(text, style="green" if done else "bold" if lesson is following else "")
    left = sum(lesson.minutes for lesson in lessons if not _done(lesson, progress))
    out.print()
    if following is None:
        out.print("Every lesson passes.", style="bold green")
    else:
        ticket = (following.folder / "README.md").relative_to(ROOT)
        out.print(f"Next: {ticket}, then  pytest checks/{following.name}   ({left} minutes to go)")
    out.print(f"PostgreSQL: {_postgres()}", style="dim")


def _done(lesson: Lesson, progress: Progress) -> bool:
    return progress.passed(lesson.name, [entry.name for entry in lesson.checks])


def _postgres() -> str:
    """Which server a run would use; nothing is started to find out."""
    if os.environ.get("DATABASE_URL"):
        return "the server of DATABASE_URL"
    source = os.environ.get("WORKBOOK_POSTGRES", "embedded")
    return {"compose": "the server of compose.yaml", "docker": "a container of its own"}.get(source, "embedded")
