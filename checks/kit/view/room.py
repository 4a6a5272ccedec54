"""The page of a class while it is graded: a row for each learner, and the checks that most of them fail."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass

from checks.kit.lessons.lesson import Lesson, find_lesson
from checks.kit.report.model import Outcome, Result
from checks.kit.submissions.model import Grade, Gradebook, LearnerGrades
from checks.kit.submissions.results.statistics import HardCheck, hardest_checks
from checks.kit.view.regions import Regions
from checks.kit.view.render import render

MAX_HARDEST = 5
"""How many checks are listed that most of the class fail."""


@dataclass(frozen=True, slots=True)
class Cell:
    """A lesson of a learner. Without a grade, `absent` says why; a grade that is `old` is that of the files before.

    `key` names what can be unfolded; it is the same each time.
    """

    key: str
    lesson: Lesson
    grade: Grade | None
    old: bool
    absent: str

    @property
    def open(self) -> list[Result]:
        """The checks that do not pass."""
        return [one for one in self.grade.report.results if one.outcome is not Outcome.PASSED] if self.grade else []


class Room:
    """Keeps the regions. A lesson that is being graded shows its last grade until the new one is known."""

    def __init__(self, regions: Regions, numbers: Sequence[int]) -> None:
        self._regions = regions
        self._lessons = [find_lesson(number) for number in numbers]
        self._shown: list[Lesson] = []
        """The lessons that somebody has submitted: a table of all twenty would be hard to read."""
        self._learners: list[LearnerGrades] = []
        self._last: dict[tuple[str, int], Grade] = {}
        self._hardest: list[HardCheck] = []
        self._notice = ""
        self._at = ""
        self._ended = False

    def begins(self, gradebook: Gradebook) -> None:
        """The submissions were read. What has not changed has its grade already."""
        self._notice, self._ended = "", False
        self._learners = list(gradebook.learners)
        submitted = {number for learner in self._learners for number in learner.submission.lessons}
        self._shown = [lesson for lesson in self._lessons if lesson.number in submitted]
        self._regions.drop("learner:")
        rows = [_key(learner.submission.learner) for learner in self._learners]
        self._regions.set("class", render("class.html", lessons=self._shown, rows=rows))
        for learner in self._learners:
            self._show(learner, again=True)
        self._show_hardest(gradebook)
        self._show_head()

    def graded(self, index: int, learner: LearnerGrades, number: int) -> None:
        """The learner at this place has a grade in the lesson with this number, or the grader failed."""
        self._learners[index] = learner
        self._at = time.strftime("%H:%M:%S")
        self._show(learner)
        self._show_head()
        if grade := learner.grades.get(number):
            passes = f"{grade.passed} of {grade.total} checks pass"
            said = f"{learner.submission.learner}, lesson {number:02}: {passes}"
            self._regions.set("said", render("said.html", sentence=said))

    def ended(self, gradebook: Gradebook) -> None:
        """Everything that was read is graded, and the results are written."""
        self._ended = True
        self._show_hardest(gradebook)
        self._show_head()

    def notice(self, sentence: str) -> None:
        """Says what ended a grading, until the next one begins."""
        self._notice, self._ended = sentence, True
        self._show_head()

    def _show(self, learner: LearnerGrades, *, again: bool = False) -> None:
        name = learner.submission.learner
        cells = [self._cell(learner, lesson) for lesson in self._shown]
        self._regions.set(f"learner:{_key(name)}", render("learner.html", name=name, cells=cells), again=again)

    def _cell(self, learner: LearnerGrades, lesson: Lesson) -> Cell:
        name, number = learner.submission.learner, lesson.number
        waiting = number in learner.waiting
        grade = learner.grades.get(number)
        if grade is not None:
            self._last[name, number] = grade
        elif waiting:
            grade = self._last.get((name, number))
        absent = "is graded soon" if waiting else "not graded" if number in learner.submission.lessons else ""
        return Cell(f"{_key(name)}:{number}", lesson, grade, waiting and grade is not None, absent)

    def _show_hardest(self, gradebook: Gradebook) -> None:
        hardest = hardest_checks(gradebook)[:MAX_HARDEST]
        self._regions.set("hardest", render("hardest.html", hardest=hardest))

    def _show_head(self) -> None:
        grades = [grade for learner in self._learners for grade in learner.grades.values()]
        head = render(
            "room_head.html",
            learners=len(self._learners),
            submitted=sum(len(learner.submission.lessons) for learner in self._learners),
            complete=sum(grade.report.passed for grade in grades),
            waiting=sum(len(learner.waiting) for learner in self._learners),
            ended=self._ended,
            at=self._at,
            notice=self._notice,
        )
        self._regions.set("head", head)


def _key(learner: str) -> str:
    """Names a learner's row, whatever characters the name has."""
    return hashlib.sha256(learner.encode(errors="surrogatepass")).hexdigest()[:16]
