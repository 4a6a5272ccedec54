"""What an instructor's run is about, as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from checks.kit.catalogue import Lesson
from checks.kit.report.model import STUMBLED, Outcome, Report, Result

Files = Mapping[str, bytes]
"""A lesson's files as they were handed in: the path below the lesson's folder, with `/`, and the content."""


@dataclass(frozen=True, slots=True)
class Submission:
    """One learner's work. `source` is what was handed in; `notes` say what was left out of it, and why."""

    learner: str
    source: str
    lessons: Mapping[int, Files]
    notes: tuple[str, ...] = ()


@dataclass(slots=True)
class Mark:
    """One lesson of one submission, graded.

    `report` has a result for every check of the lesson, in the lesson's order. `stopped` says why the grading
    ended before its time, and is empty where it did not. `seconds` is wall time.
    """

    report: Report
    seconds: float
    stopped: str = ""

    @property
    def passed(self) -> int:
        return self.report.count(Outcome.PASSED)

    @property
    def total(self) -> int:
        return len(self.report.results)

    @property
    def stumbled(self) -> bool:
        """Whether a check met what it has no words for."""
        findings = [result.finding for result in self.report.results]
        return any(finding is not None and finding.happened.startswith(STUMBLED) for finding in findings)


@dataclass(slots=True)
class Graded:
    """One learner's marks, by the lesson's number; a lesson that was not handed in has none."""

    submission: Submission
    marks: dict[int, Mark] = field(default_factory=dict)

    @property
    def passed(self) -> int:
        return sum(mark.passed for mark in self.marks.values())

    @property
    def seconds(self) -> float:
        return sum(mark.seconds for mark in self.marks.values())


@dataclass(slots=True)
class Gradebook:
    """A whole run: what was asked for, on what it ran, and everybody's marks, by learner.

    `isolation` is a sentence about what kept the submissions apart; `kit` identifies the checks and the kit.
    """

    lessons: list[Lesson]
    postgres: str
    isolation: str
    kit: str
    graded: list[Graded] = field(default_factory=list)

    @property
    def total(self) -> int:
        """The checks that there are, whoever handed in what."""
        return sum(len(lesson.checks) for lesson in self.lessons)


def complete(report: Report, lesson: Lesson, why: str) -> Report:
    """The report with a result for every check of the lesson: what did not run is blocked by `why`."""
    there = {result.name: result for result in report.results}
    report.results = [
        there.get(entry.name) or Result(entry.name, lesson.titles[entry.name], Outcome.BLOCKED, blocked_by=why)
        for entry in lesson.checks
    ]
    return report
