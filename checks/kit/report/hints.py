"""Hints in tiers: one more each time."""

from __future__ import annotations

from checks.kit.lessons.hints import choose_check, give_hint
from checks.kit.lessons.lesson import Lesson
from checks.kit.lessons.progress import Progress
from checks.kit.report import terminal


def show(lesson: Lesson, wanted: str, again: bool, more: str = "workbook hint {number} {check}") -> None:
    """Prints the hints had so far for a check, and the next one unless `again`; `more` is how to ask for another."""
    progress = Progress()
    name = choose_check(lesson, wanted, progress)
    tiers = lesson.hints[name]
    if not again:
        give_hint(lesson, name, progress)
    had = progress.hints(lesson.name, name)
    out = terminal.console()
    out.print(f"Lesson {lesson.number:02} · {name}", style="bold")
    for number, text in enumerate(tiers[:had], 1):
        out.print(f"\n{number}. {text}")
    if had < len(tiers):
        ask = more.format(number=lesson.number, lesson=lesson.name, check=name)
        out.print(f"\n{len(tiers) - had} more: {ask}", style="dim")
    else:
        there = lesson.solution.is_dir()
        solution = f"The solution: workbook diff {lesson.number} --peek" if there else "This copy has no solutions."
        out.print(f"\nThat was the last one. {solution}", style="dim")
