"""Hints in tiers: one more each time."""

from __future__ import annotations

from checks.kit.catalogue import ROOT, CatalogueError, Lesson
from checks.kit.progress import Progress
from checks.kit.report import terminal


def show(lesson: Lesson, wanted: str, again: bool, more: str = "workbook hint {number} {check}") -> None:
    """Prints the hints had so far for a check, and the next one unless `again`; `more` is how to ask for another."""
    progress = Progress()
    name = _choose(lesson, wanted, progress)
    tiers = lesson.hints[name]
    if not again and progress.hints(lesson.name, name) < len(tiers):
        progress.give_hint(lesson.name, name)
    had = progress.hints(lesson.name, name)
    out = terminal.console()
    out.print(f"Lesson {lesson.number:02} · {name}", style="bold")
    for number, text in enumerate(tiers[:had], 1):
        out.print(f"\n{number}. {text}")
    if had < len(tiers):
        ask = more.format(number=lesson.number, lesson=lesson.name, check=name)
        out.print(f"\n{len(tiers) - had} more: {ask}", style="dim")
    else:
        out.print(f"\nThat was the last one. The solution: workbook diff {lesson.number} --peek", style="dim")


def _choose(lesson: Lesson, wanted: str, progress: Progress) -> str:
    if not lesson.hints:
        raise CatalogueError(f"Lesson {lesson.number} has no hints.")
    if wanted:
        matching = [name for name in lesson.hints if wanted in name]
        if not matching:
            if any(wanted in check.name for check in lesson.checks):
                raise CatalogueError(
                    f"{wanted} has no hints: it passes as the lesson is handed out. If it is red, what did you change? "
                    f"See it: git diff {lesson.folder.relative_to(ROOT)}"
                )
            raise CatalogueError(f"No check with hints is called {wanted}. There are: {', '.join(lesson.hints)}.")
        return matching[0]
    outcomes = progress.outcomes(lesson.name)
    open_ones = [name for name in lesson.hints if outcomes.get(name) != "passed"]
    if not open_ones:
        red = [name for name, outcome in outcomes.items() if outcome == "failed"]
        raise CatalogueError(
            f"{red[0]} is red and has no hints: it passed as the lesson was handed out. What did you change?"
            if red
            else f"Every check of lesson {lesson.number} passes. Name one to read its hints."
        )
    failed = [name for name in open_ones if outcomes.get(name) == "failed"]
    return (failed or open_ones)[0]
