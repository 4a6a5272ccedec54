"""What `workbook grade` reads and finds out, as data: submissions, grades, and the gradebook of a class."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from checks.kit.lessons.lesson import Lesson
from checks.kit.report.model import Outcome, Report, Result

Files = Mapping[str, bytes]
"""The submitted files of one lesson: the path below the lesson's folder, with `/`, and the content."""


@dataclass(frozen=True, slots=True)
class HandedIn:
    """When something was handed in, in UTC, and how that is known: "last commit"."""

    at: datetime
    known_by: str


@dataclass(frozen=True, slots=True)
class Submission:
    """The work of one learner.

    `source` is the path that was read, as messages show it. `lessons` has the files by the lesson's number.
    `notes` are sentences that the learner may read as well: what was left out, and why. `for_instructor` are sentences
    about others, such as who has nearly the same code; no file that is meant for a learner has them. `handed_in` is
    None if nothing says when it was.
    """

    learner: str
    source: str
    lessons: Mapping[int, Files]
    notes: tuple[str, ...] = ()
    for_instructor: tuple[str, ...] = ()
    handed_in: HandedIn | None = None


@dataclass(slots=True)
class Grade:
    """The result of one lesson of one submission.

    `report` has a result for every check of the lesson, in the lesson's order. `stopped` says which limit ended the
    grading early, and is empty where none did. `seconds` is wall time. `at` is when it was graded, in UTC.
    """

    report: Report
    seconds: float
    stopped: str = ""
    at: datetime | None = None

    @property
    def passed(self) -> int:
        """How many checks pass."""
        return self.report.count(Outcome.PASSED)

    @property
    def total(self) -> int:
        """How many checks the lesson has."""
        return len(self.report.results)

    @property
    def has_error(self) -> bool:
        """Whether a check ended with an error, which says nothing about the learner's work."""
        return self.report.count(Outcome.ERROR) > 0


@dataclass(slots=True)
class LearnerGrades:
    """One learner's submission and grades, by the lesson's number.

    A lesson has no grade if it was not submitted, if the grader failed, or if it is among those `waiting`: the run was
    interrupted before them.
    """

    submission: Submission
    grades: dict[int, Grade] = field(default_factory=dict)
    waiting: frozenset[int] = frozenset()

    @property
    def passed(self) -> int:
        """How many checks pass, over all lessons."""
        return sum(grade.passed for grade in self.grades.values())

    @property
    def seconds(self) -> float:
        """The wall time of all gradings."""
        return sum(grade.seconds for grade in self.grades.values())

    @property
    def made(self) -> datetime | None:
        """When the newest of these grades was given."""
        return max((grade.at for grade in self.grades.values() if grade.at), default=None)

    @property
    def open(self) -> list[int]:
        """The lessons that were submitted and have no final grade: none at all, or a check ended with an error."""
        return [
            number
            for number in sorted(self.submission.lessons)
            if number not in self.grades or self.grades[number].has_error
        ]


@dataclass(slots=True)
class Gradebook:
    """The results of a whole run.

    `postgres` names the servers, `isolation` is a sentence about what kept the submissions apart, and `kit` is the
    fingerprint of the checks. `learners` is sorted as the submissions were read: by name.
    """

    lessons: list[Lesson]
    postgres: str
    isolation: str
    kit: str
    learners: list[LearnerGrades] = field(default_factory=list)

    @property
    def total(self) -> int:
        """How many checks the lessons of the run have."""
        return sum(len(lesson.checks) for lesson in self.lessons)

    @property
    def made(self) -> datetime | None:
        """When the newest of these grades was given. Without new grades it stays the same, and so do all files."""
        return max((learner.made for learner in self.learners if learner.made), default=None)

    @property
    def submitted(self) -> int:
        """How many lessons the learners submitted, all together."""
        return sum(len(learner.submission.lessons) for learner in self.learners)

    @property
    def waiting(self) -> int:
        """How many of these have no grade because the run was interrupted."""
        return sum(len(learner.waiting) for learner in self.learners)

    @property
    def failed(self) -> int:
        """How many of these have no final grade although the run came to them: perhaps a fault of this machine."""
        return sum(len(learner.open) - len(learner.waiting) for learner in self.learners)


def timestamp(time: datetime | None) -> str:
    """The time for programs, as ISO 8601 in UTC: `2026-11-27T23:05:00Z`; "" for None."""
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ") if time else ""


def complete(report: Report, lesson: Lesson, reason: str) -> Report:
    """The same report with a result for every check of the lesson: a check that did not run is blocked by `reason`."""
    results = {result.name: result for result in report.results}
    report.results = [
        results.get(entry.name) or Result(entry.name, lesson.titles[entry.name], Outcome.BLOCKED, blocked_by=reason)
        for entry in lesson.checks
    ]
    return report
