"""What the grades of a whole class say: the hardest checks, the numbers of each lesson, learners who need attention."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from itertools import chain
from statistics import median

from checks.kit.lessons.lesson import Lesson
from checks.kit.report.model import Outcome
from checks.kit.report.safe_text import display_line
from checks.kit.submissions.model import Grade, Gradebook

QUOTE_CHARACTERS = 160
"""Characters of a finding that are quoted."""

SAME_START_CHARACTERS = 60
"""Findings whose first characters agree, apart from numbers, count as the same."""

MAX_QUOTES = 3
"""Findings quoted for each check."""

NUMBER = re.compile(r"\d+(?:[.,]\d+)*")

CONFIDENCE_Z = 1.96
"""Width of the confidence interval in standard deviations: 95 % of all samples lie within."""


@dataclass(frozen=True, slots=True)
class HardCheck:
    """A check that somebody fails: `failed` of `submitted` learners fail it, and for `blocked` it was not run.

    `quotes` has the most frequent findings, with the number of learners who have one that starts like it.
    """

    lesson: Lesson
    name: str
    failed: int
    blocked: int
    submitted: int
    quotes: tuple[tuple[str, int], ...]

    @property
    def share(self) -> float:
        """The share of learners who fail it, 0 to 1."""
        return self.failed / self.submitted

    @property
    def weight(self) -> float:
        """Wilson's lower bound of the share, so that 1 of 1 counts for less than 19 of 20."""
        n, p, z = self.submitted, self.share, CONFIDENCE_Z
        center, spread = p + z * z / (2 * n), z * (p * (1 - p) / n + z * z / (4 * n * n)) ** 0.5
        return float((center - spread) / (1 + z * z / n))


@dataclass(frozen=True, slots=True)
class LessonStatistics:
    """A lesson over the `submitted` learners who submitted it and have a grade.

    `complete` learners pass all of its checks; `share` is the mean share of its checks that pass, 0 to 1. `median`,
    `longest` and `total` are seconds of grading; `slowest` is the index of the learner with the longest, -1 if none.
    """

    lesson: Lesson
    submitted: int
    complete: int
    share: float
    median: float
    longest: float
    slowest: int
    total: float


def hardest_checks(gradebook: Gradebook) -> list[HardCheck]:
    """All checks that somebody fails, the hardest for the class first."""
    checks = chain.from_iterable(_hard_checks(lesson, _grades(gradebook, lesson)) for lesson in gradebook.lessons)
    return sorted(checks, key=lambda check: -check.weight)


def _hard_checks(lesson: Lesson, grades: dict[int, Grade]) -> list[HardCheck]:
    failed: Counter[str] = Counter()
    blocked: Counter[str] = Counter()
    happened: dict[str, list[str]] = {}
    for result in chain.from_iterable(grade.report.results for grade in grades.values()):
        failed[result.name] += result.outcome is Outcome.FAILED
        blocked[result.name] += result.outcome is Outcome.BLOCKED
        if result.outcome is Outcome.FAILED and result.finding:
            happened.setdefault(result.name, []).append(result.finding.happened)
    return [
        HardCheck(lesson, name, failed[name], blocked[name], len(grades), _quotes(happened.get(name, [])))
        for name in (entry.name for entry in lesson.checks)
        if failed[name]
    ]


def _quotes(happened: list[str]) -> tuple[tuple[str, int], ...]:
    """The most frequent findings; of those that start alike, the first is quoted."""
    quoted: dict[str, str] = {}
    count: Counter[str] = Counter()
    for text in happened:
        quote = display_line(text, QUOTE_CHARACTERS)
        start = NUMBER.sub("0", quote)[:SAME_START_CHARACTERS]
        quoted.setdefault(start, quote)
        count[start] += 1
    return tuple((quoted[start], times) for start, times in count.most_common(MAX_QUOTES))


def lesson_statistics(gradebook: Gradebook) -> list[LessonStatistics]:
    """One for each lesson of the run, in order."""
    return [_statistics(lesson, _grades(gradebook, lesson)) for lesson in gradebook.lessons]


def _statistics(lesson: Lesson, grades: dict[int, Grade]) -> LessonStatistics:
    if not grades:
        return LessonStatistics(lesson, 0, 0, 0.0, 0.0, 0.0, -1, 0.0)
    times = {index: grade.seconds for index, grade in grades.items()}
    slowest = max(times, key=lambda index: times[index])
    return LessonStatistics(
        lesson,
        submitted=len(grades),
        complete=sum(grade.report.passed for grade in grades.values()),
        share=sum(grade.passed / max(grade.total, 1) for grade in grades.values()) / len(grades),
        median=median(times.values()),
        longest=times[slowest],
        slowest=slowest,
        total=sum(times.values()),
    )


def far_below_median(gradebook: Gradebook) -> list[int]:
    """The indices of learners who pass fewer than half as many checks as the median learner, lowest first.

    Learners without any grade count neither way.
    """
    passed = {index: learner.passed for index, learner in enumerate(gradebook.learners) if learner.grades}
    limit = median(passed.values()) / 2 if passed else 0
    return sorted((index for index in passed if passed[index] < limit), key=lambda index: passed[index])


def _grades(gradebook: Gradebook, lesson: Lesson) -> dict[int, Grade]:
    """The grades of a lesson by the learner's index, in the gradebook's order."""
    grades = ((index, learner.grades.get(lesson.number)) for index, learner in enumerate(gradebook.learners))
    return {index: grade for index, grade in grades if grade is not None}
