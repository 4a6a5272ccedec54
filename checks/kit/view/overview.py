"""The map of the lessons as the page shows it."""

from __future__ import annotations

from dataclasses import dataclass

from checks.kit.lessons.lesson import Lesson, all_lessons
from checks.kit.lessons.progress import Progress
from checks.kit.lessons.unfinished import missing


@dataclass(frozen=True, slots=True)
class Row:
    """A lesson: how many of its checks passed in the last run of all of them, None if there was no such run."""

    lesson: Lesson
    passed: int | None
    done: bool
    skipped: bool


def rows(progress: Progress) -> list[Row]:
    """All lessons that can be worked on."""
    return [_row(lesson, progress) for lesson in all_lessons() if not missing(lesson)]


def _row(lesson: Lesson, progress: Progress) -> Row:
    names = [entry.name for entry in lesson.checks]
    outcomes = progress.outcomes(lesson.name)
    passed = sum(outcomes.get(name) == "passed" for name in names) if outcomes else None
    return Row(lesson, passed, progress.passed(lesson.name, names), progress.skipped(lesson.name))
