"""Which checks have hints, which one a hint is about, and how many the learner had."""

from __future__ import annotations

from checks.kit.lessons.errors import WorkbookError
from checks.kit.lessons.git import restore_advice
from checks.kit.lessons.lesson import Lesson, find_lesson
from checks.kit.lessons.progress import Progress


def has_hints(lesson: int, check: str) -> bool:
    """Whether `workbook hint` has something to say about a check; one that passes as handed out may have no hints."""
    return check in find_lesson(lesson).hints


def choose_check(lesson: Lesson, wanted: str, progress: Progress) -> str:
    """The check whose name contains `wanted`; without it, the first one that failed, else the first that is open."""
    if not lesson.gives_hints:
        raise WorkbookError(
            f"Lesson {lesson.number} has no hints: it is an exam. Each verdict shows in order what happened."
        )
    if not lesson.hints:
        raise WorkbookError(
            f"Lesson {lesson.number} has no hints.{restore_advice(lesson.checks_folder / 'hints.toml')}"
        )
    if wanted:
        matching = [name for name in lesson.hints if wanted in name]
        if not matching:
            if any(wanted in check.name for check in lesson.checks):
                raise WorkbookError(
                    f"{wanted} has no hints: it passes as the lesson is handed out. If it is red, what did you change? "
                    f"See it: workbook diff {lesson.number} --mine"
                )
            names = "\n  ".join(lesson.hints)
            raise WorkbookError(f"No check with hints is called {wanted}. There are:\n  {names}")
        return matching[0]
    outcomes = progress.recent(lesson.name)
    open_ones = [name for name in lesson.hints if outcomes.get(name) != "passed"]
    if not open_ones:
        red = [name for name, outcome in outcomes.items() if outcome == "failed"]
        raise WorkbookError(
            f"{red[0]} is red and has no hints: it passes as the lesson is handed out. What did you change? "
            f"See it: workbook diff {lesson.number} --mine"
            if red
            else f"At the last run every check of lesson {lesson.number} passed. "
            f"To read the hints of one: workbook hint {lesson.number} CHECK"
        )
    failed = [name for name in open_ones if outcomes.get(name) == "failed"]
    return (failed or open_ones)[0]


def give_hint(lesson: Lesson, check: str, progress: Progress) -> None:
    """Notes that the learner has the next hint about a check, if there is one more."""
    if progress.hints(lesson.name, check) < len(lesson.hints[check]):
        progress.give_hint(lesson.name, check)
