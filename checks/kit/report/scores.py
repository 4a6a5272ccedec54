"""How many checks pass of each subsystem, in a lesson whose checks say to which one they belong."""

from __future__ import annotations

from dataclasses import dataclass

from checks.kit.lessons.lesson import Lesson
from checks.kit.report.model import Outcome, Report


@dataclass(frozen=True, slots=True)
class Score:
    """So many checks of a subsystem pass, `of` so many; one that did not run does not pass."""

    subsystem: str
    passed: int
    of: int


def scores(lesson: Lesson, report: Report) -> list[Score]:
    """A score for each subsystem, in the order of lesson.toml; none in a lesson without subsystems."""
    passed = {result.name for result in report.results if result.outcome is Outcome.PASSED}
    checks: dict[str, list[str]] = {}
    for entry in lesson.checks:
        if entry.subsystem:
            checks.setdefault(entry.subsystem, []).append(entry.name)
    return [Score(name, len(passed.intersection(of)), len(of)) for name, of in checks.items()]


def score_lines(lesson: Lesson, report: Report) -> list[str]:
    """The scores in columns; none unless all checks of the lesson were to run."""
    found = scores(lesson, report)
    if not found or len(report.results) < len(lesson.checks):
        return []
    width = max(len(score.subsystem) for score in found)
    return [f"  {score.subsystem:<{width}}  {score.passed} of {score.of}" for score in found]
