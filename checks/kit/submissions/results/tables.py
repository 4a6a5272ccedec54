"""The results as tables for a spreadsheet or a gradebook: a row per learner, per lesson, per check.

RFC 4180, with a byte order mark at the beginning: without it, Excel does not read UTF-8. Numbers are whole, because in
half of the world a decimal point makes a date. An empty cell means that a lesson has no grade (it was not submitted,
or the grader failed); 0 means that it has one.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator

from checks.kit.report.model import Outcome, Report, Result
from checks.kit.report.safe_text import display_text
from checks.kit.report.scores import scores
from checks.kit.submissions.model import Gradebook
from checks.kit.submissions.results.text import NOT_GRADED, absence

FORMULA = re.compile(r"(^|;)(?=\s*[=+\-@\t\r＝＋－＠])")
"""Where a spreadsheet takes text for a formula; after a semicolon, too, which separates cells where commas do not."""

MAX_CELL_CHARACTERS = 2_000

Row = list[str | int]


def by_learner(gradebook: Gradebook) -> bytes:
    """results.csv: `learner, source, passed, of, lesson_00 ... lesson_NN, stopped, notes, seconds`.

    The column of a lesson has the number of its checks that pass. `stopped` has the numbers of the lessons whose
    grading was stopped by a limit.
    """
    numbers = [lesson.number for lesson in gradebook.lessons]
    head = ["learner", "source", "passed", "of", *(lesson.name for lesson in gradebook.lessons)]
    rows: list[Row] = [[*head, "stopped", "notes", "seconds"]]
    for learner in gradebook.learners:
        submission, grades = learner.submission, learner.grades
        passed: Row = [grades[number].passed if number in grades else "" for number in numbers]
        stopped = " ".join(f"{number:02}" for number in numbers if number in grades and grades[number].stopped)
        row: Row = [_text(submission.learner), _text(submission.source), learner.passed, gradebook.total, *passed]
        rows.append([*row, stopped, _line(" | ".join(submission.notes)), round(learner.seconds)])
    return _csv(rows)


def by_lesson(gradebook: Gradebook) -> bytes:
    """lessons.csv: `learner, source, lesson, title, found, passed, of, stopped, seconds`; `found` is yes or no.

    If a lesson was found and the grader failed, `passed` is empty and `stopped` says so.
    """
    rows: list[Row] = [["learner", "source", "lesson", "title", "found", "passed", "of", "stopped", "seconds"]]
    for learner in gradebook.learners:
        of_learner: Row = [_text(learner.submission.learner), _text(learner.submission.source)]
        for lesson in gradebook.lessons:
            grade = learner.grades.get(lesson.number)
            start: Row = [*of_learner, lesson.number, lesson.title]
            if grade:
                rows.append([*start, "yes", grade.passed, grade.total, _line(grade.stopped), round(grade.seconds)])
            else:
                ungraded = absence(learner, lesson) == NOT_GRADED
                found, reason = ("yes", NOT_GRADED) if ungraded else ("no", "")
                rows.append([*start, found, "", len(lesson.checks), reason, ""])
    return _csv(rows)


def by_subsystem(gradebook: Gradebook) -> bytes:
    """subsystems.csv: `learner, source, lesson, subsystem, passed, of`; without a grade, `passed` is empty."""
    rows: list[Row] = [["learner", "source", "lesson", "subsystem", "passed", "of"]]
    for learner in gradebook.learners:
        for lesson in gradebook.lessons:
            grade = learner.grades.get(lesson.number)
            for score in scores(lesson, grade.report if grade else Report(lesson.number, lesson.title, "")):
                who: Row = [_text(learner.submission.learner), _text(learner.submission.source), lesson.number]
                rows.append([*who, score.subsystem, score.passed if grade else "", score.of])
    return _csv(rows)


def by_check(gradebook: Gradebook) -> bytes:
    """checks.csv: `learner, lesson, check, name, title, outcome, happened`.

    `check` counts from 1 within the lesson; `outcome` is an Outcome, or missing or ungraded for a lesson without a
    grade.
    """
    return _csv(_checks(gradebook))


def _checks(gradebook: Gradebook) -> Iterator[Row]:
    yield ["learner", "lesson", "check", "name", "title", "outcome", "happened"]
    for learner in gradebook.learners:
        name = _text(learner.submission.learner)
        for lesson in gradebook.lessons:
            grade = learner.grades.get(lesson.number)
            without_grade = "ungraded" if absence(learner, lesson) == NOT_GRADED else "missing"
            results = {result.name: result for result in grade.report.results} if grade else {}
            for number, entry in enumerate(lesson.checks, 1):
                row: Row = [name, lesson.number, number, entry.name, lesson.titles[entry.name]]
                result = results.get(entry.name)
                yield [*row, str(result.outcome) if result else without_grade, _happened(result)]


def _happened(result: Result | None) -> str:
    if result is None:
        return ""
    if result.outcome is Outcome.BLOCKED:
        return _line(f"needs: {result.blocked_by}")
    return _line(result.finding.happened) if result.finding else ""


def _line(text: str) -> str:
    """A text as a cell of one line."""
    return _text(" ".join(text.split()))


def _text(text: str) -> str:
    """A text of a learner as a cell that no spreadsheet takes for a formula."""
    return FORMULA.sub(r"\1'", display_text(text, MAX_CELL_CHARACTERS))


def _csv(rows: Iterable[Row]) -> bytes:
    out = io.StringIO(newline="")
    csv.writer(out).writerows(rows)
    return out.getvalue().encode("utf-8-sig")
