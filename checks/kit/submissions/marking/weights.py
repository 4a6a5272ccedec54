"""What lessons and checks are worth.

Without a file, each check is worth one point, except those that pass in the lesson as handed out: these are worth
nothing, because they would give points for no work. A file changes that:

    given = 1                          # checks that pass as handed out count as well

    [lesson_01]
    points = 20                        # its checks share 20 points
    test_the_dashboard_is_right = 3    # and this one has three times the share of another
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

from checks.kit.lessons.errors import WorkbookError
from checks.kit.lessons.lesson import CheckEntry, Lesson, all_lessons
from checks.kit.report.model import Outcome
from checks.kit.submissions.model import Grade


@dataclass(frozen=True, slots=True)
class Weights:
    """`given` is the weight of checks that pass as handed out; `checks` and `lessons` have the exceptions."""

    given: Fraction = Fraction(0)
    checks: Mapping[tuple[int, str], Fraction] = field(default_factory=dict)
    lessons: Mapping[int, Fraction] = field(default_factory=dict)

    def of_check(self, lesson: Lesson, entry: CheckEntry) -> Fraction:
        """The weight of a check among those of its lesson."""
        usual = self.given if entry.unsolved == "passes" else Fraction(1)
        return self.checks.get((lesson.number, entry.name), usual)

    def of_lesson(self, lesson: Lesson) -> Fraction:
        """The points of a lesson of which all checks pass."""
        return self.lessons.get(lesson.number, self._sum(lesson))

    def points(self, lesson: Lesson, grade: Grade) -> Fraction:
        """The points that a grade is worth."""
        passed = {result.name for result in grade.report.results if result.outcome is Outcome.PASSED}
        earned = sum((self.of_check(lesson, entry) for entry in lesson.checks if entry.name in passed), Fraction(0))
        return earned / total * self.of_lesson(lesson) if (total := self._sum(lesson)) else Fraction(0)

    def _sum(self, lesson: Lesson) -> Fraction:
        return sum((self.of_check(lesson, entry) for entry in lesson.checks), Fraction(0))


def read_weights(path: Path) -> Weights:
    """Reads the TOML file. Raises WorkbookError."""
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise WorkbookError(f"--weights {path} cannot be read: {error.strerror}.") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise WorkbookError(f"--weights {path} is not TOML: {error}.") from None
    try:
        return _weights(raw, all_lessons())
    except WorkbookError as error:
        raise WorkbookError(f"--weights {path}: {error}") from None


def _weights(raw: Mapping[str, Any], known: Sequence[Lesson]) -> Weights:
    lessons = {lesson.name: lesson for lesson in known}
    points: dict[int, Fraction] = {}
    checks: dict[tuple[int, str], Fraction] = {}
    for name, table in raw.items():
        if name == "given":
            continue
        if name not in lessons or not isinstance(table, dict):
            raise WorkbookError(f"{name}: expected given = 1, or the table of a lesson, such as [lesson_01].")
        lesson = lessons[name]
        for key, value in table.items():
            if key == "points":
                points[lesson.number] = _number(f"{name}.{key}", value)
            elif lesson.check(key):
                checks[lesson.number, key] = _number(f"{name}.{key}", value)
            else:
                raise WorkbookError(f"{name} has no check {key}. Its checks are in lessons/{name}/lesson.toml.")
    weights = Weights(_number("given", raw.get("given", 0)), checks, points)
    for lesson in known:
        if points.get(lesson.number) and not any(weights.of_check(lesson, entry) for entry in lesson.checks):
            raise WorkbookError(f"{lesson.name} has points, and none of its checks has a weight.")
    return weights


def _number(what: str, value: object) -> Fraction:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
        raise WorkbookError(f"{what} is {value}. Write a number, 0 or more.")
    return Fraction(str(value))
