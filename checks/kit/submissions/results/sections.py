"""What an HTML file shows of a learner, with texts that are safe to show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from checks.kit.lessons.lesson import Lesson
from checks.kit.report.model import Outcome, Result
from checks.kit.report.safe_text import display_line, display_text
from checks.kit.report.terminal import SYMBOL
from checks.kit.submissions.model import Grade, Gradebook
from checks.kit.submissions.results.html import moment
from checks.kit.submissions.results.text import (
    NOT_GRADED,
    NOT_SUBMITTED,
    WAITING,
    VerdictText,
    VerdictTexts,
    absence,
)

WITHOUT_GRADE = {NOT_SUBMITTED: "not submitted", NOT_GRADED: "not graded", WAITING: "not graded yet"}
"""What is shown in place of a grade."""

MAX_NAME_CHARACTERS = 300
MAX_TIP_CHARACTERS = 160
"""Characters of a tooltip, and of a note in a list."""


@dataclass(frozen=True, slots=True)
class Cell:
    """A check of a learner in the heat map. If it does not pass, `href` is the anchor of its verdict."""

    state: str
    symbol: str
    href: str = ""
    tip: str = ""


@dataclass(frozen=True, slots=True)
class LessonSection:
    """A lesson of a learner. `id` is its anchor; without a grade, `absence` says why, as in WITHOUT_GRADE."""

    id: str
    lesson: Lesson
    grade: Grade | None
    absence: str
    cells: Sequence[Cell]
    text: VerdictText | None

    @property
    def shares(self) -> list[tuple[Outcome, float]]:
        """Percent of the lesson's checks with each outcome."""
        report, total = (self.grade.report, max(self.grade.total, 1)) if self.grade else (None, 1)
        return [(outcome, 100 * report.count(outcome) / total) for outcome in Outcome] if report else []

    def anchor(self, name: str) -> str:
        """The anchor of a check's verdict."""
        return f"{self.id}-{[entry.name for entry in self.lesson.checks].index(name) + 1}"


@dataclass(frozen=True, slots=True)
class LearnerSection:
    """A learner's part of the page, with texts that are safe to show; `id` is its anchor."""

    id: str
    name: str
    source: str
    handed_in: str
    notes: Sequence[str]
    for_instructor: Sequence[str]
    passed: int
    seconds: float
    lessons: Sequence[LessonSection]

    @property
    def stopped(self) -> list[LessonSection]:
        return [section for section in self.lessons if section.grade and section.grade.stopped]

    @property
    def errors(self) -> list[LessonSection]:
        return [section for section in self.lessons if section.grade and section.grade.has_error]

    @property
    def ungraded(self) -> list[LessonSection]:
        return [section for section in self.lessons if section.absence == "not graded"]

    @property
    def submitted(self) -> int:
        """How many lessons were submitted."""
        return sum(section.absence != "not submitted" for section in self.lessons)


def learner_section(gradebook: Gradebook, index: int, texts: VerdictTexts) -> LearnerSection:
    """What there is to show of the learner at this place of the gradebook."""
    learner = gradebook.learners[index]
    submission = learner.submission
    id = f"l{index + 1}"
    lessons = []
    for lesson in gradebook.lessons:
        grade = learner.grades.get(lesson.number)
        anchor = f"{id}-{lesson.number}"
        why = "" if grade else WITHOUT_GRADE[absence(learner, lesson)]
        text = texts.get((index, lesson.number))
        lessons.append(LessonSection(anchor, lesson, grade, why, _cells(anchor, grade), text))
    return LearnerSection(
        id,
        display_text(submission.learner, MAX_NAME_CHARACTERS),
        display_text(submission.source),
        f"{moment(submission.handed_in.at)} ({submission.handed_in.known_by})" if submission.handed_in else "",
        [display_text(note) for note in submission.notes],
        [display_text(note) for note in submission.for_instructor],
        learner.passed,
        learner.seconds,
        lessons,
    )


def _cells(anchor: str, grade: Grade | None) -> list[Cell]:
    results = grade.report.results if grade else []
    return [_cell(anchor, number, result) for number, result in enumerate(results, 1)]


def _cell(anchor: str, number: int, result: Result) -> Cell:
    symbol = SYMBOL[result.outcome]
    if result.outcome is Outcome.PASSED:
        return Cell("passed", symbol)
    if result.outcome is Outcome.BLOCKED:
        why = f"not run; it needs: {display_line(result.blocked_by, MAX_TIP_CHARACTERS)}"
        return Cell("blocked", symbol, anchor, f"{display_text(result.title)}\n{why}")
    happened = display_line(result.finding.happened, MAX_TIP_CHARACTERS) if result.finding else ""
    return Cell(str(result.outcome), symbol, f"{anchor}-{number}", f"{display_text(result.title)}\n{happened}")
