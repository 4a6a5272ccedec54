"""The results as tables for a spreadsheet or a gradebook: a row per learner, per lesson, per check.

RFC 4180, with a byte order mark at the beginning: without it, Excel does not read UTF-8. Numbers are whole, because in
half of the world a decimal point makes a date. An empty cell means that there is no final grade: nothing was submitted,
the grader failed, a check ended with an error of its own, or the run was interrupted. 0 means that there is one.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator

from checks.kit.report.model import Outcome, Report, Result
from checks.kit.report.safe_text import display_text
from checks.kit.report.scores import scores
from checks.kit.submissions.model import Gradebook, Submission, timestamp
from checks.kit.submissions.results.text import NOT_FINAL, NOT_GRADED, NOT_SUBMITTED, WAITING, absence

FORMULA = re.compile(r"(^|;)(?=\s*[=+\-@\t\r＝＋－＠])")
"""Where a spreadsheet takes text for a formula; after a semicolon, too, which separates cells where commas do not."""

MAX_CELL_CHARACTERS = 2_000

WITHOUT_GRADE = {NOT_SUBMITTED: "missing", NOT_GRADED: "ungraded", WAITING: "waiting"}
"""What checks.csv says of the checks of a lesson without a grade."""

Row = list[str | int]


def by_learner(gradebook: Gradebook) -> bytes:
    """results.csv: `learner, source, handed_in, known_by, passed, of, lesson_NN ..., open, stopped`, and so on.

    The column of a lesson has the number of its checks that pass. `open` has the numbers of the lessons that were
    submitted and have no final grade; `passed` is then empty. `stopped` has those whose grading was stopped by a limit.
    `handed_in` is in UTC, and `known_by` says how it is known. `made` is when the newest grade of the class was given.
    """
    numbers = [lesson.number for lesson in gradebook.lessons]
    head = ["learner", "source", "handed_in", "known_by", "passed", "of"]
    lessons = [lesson.name for lesson in gradebook.lessons]
    rows: list[Row] = [[*head, *lessons, "open", "stopped", "notes", "for_instructor", "seconds", "made"]]
    for learner in gradebook.learners:
        submission, grades = learner.submission, learner.grades
        final = [number for number in numbers if number in grades and number not in learner.open]
        passed: Row = [grades[number].passed if number in final else "" for number in numbers]
        stopped = [number for number in numbers if number in grades and grades[number].stopped]
        total = "" if learner.open else learner.passed
        rows.append(
            [
                *(cell(submission.learner), cell(submission.source), *handed_in(submission)),
                *(total, gradebook.total, *passed),
                *(_numbers(learner.open), _numbers(stopped)),
                *(line(" | ".join(notes)) for notes in (submission.notes, submission.for_instructor)),
                round(learner.seconds),
                timestamp(gradebook.made),
            ]
        )
    return to_csv(rows)


def by_lesson(gradebook: Gradebook) -> bytes:
    """lessons.csv: `learner, source, lesson, title, found, passed, of, stopped, seconds, handed_in, known_by, graded`.

    `found` is yes or no. `handed_in` and `graded` are times in UTC.

    If a lesson was found and has no final grade, `passed` is empty and `stopped` says why.
    """
    head = ["learner", "source", "lesson", "title", "found", "passed", "of", "stopped", "seconds"]
    rows: list[Row] = [[*head, "handed_in", "known_by", "graded"]]
    for learner in gradebook.learners:
        when = handed_in(learner.submission)
        of_learner: Row = [cell(learner.submission.learner), cell(learner.submission.source)]
        for lesson in gradebook.lessons:
            grade = learner.grades.get(lesson.number)
            start: Row = [*of_learner, lesson.number, lesson.title]
            if grade and grade.has_error:
                row: Row = ["yes", "", grade.total, NOT_FINAL, round(grade.seconds)]
            elif grade:
                row = ["yes", grade.passed, grade.total, line(grade.stopped), round(grade.seconds)]
            else:
                reason = absence(learner, lesson)
                found, reason = ("no", "") if reason == NOT_SUBMITTED else ("yes", reason)
                row = [found, "", len(lesson.checks), reason, ""]
            rows.append([*start, *row, *when, timestamp(grade.at if grade else None)])
    return to_csv(rows)


def by_subsystem(gradebook: Gradebook) -> bytes:
    """subsystems.csv: `learner, source, lesson, subsystem, passed, of, handed_in, known_by, graded`.

    `passed` is empty without a final grade. `handed_in` and `graded` are times in UTC.
    """
    rows: list[Row] = [["learner", "source", "lesson", "subsystem", "passed", "of", "handed_in", "known_by", "graded"]]
    for learner in gradebook.learners:
        submission = learner.submission
        for lesson in gradebook.lessons:
            grade = learner.grades.get(lesson.number)
            final = grade is not None and not grade.has_error
            when: Row = [*handed_in(submission), timestamp(grade.at if grade else None)]
            for score in scores(lesson, grade.report if grade else Report(lesson.number, lesson.title, "")):
                who: Row = [cell(submission.learner), cell(submission.source), lesson.number]
                rows.append([*who, score.subsystem, score.passed if final else "", score.of, *when])
    return to_csv(rows)


def by_check(gradebook: Gradebook) -> bytes:
    """checks.csv: `learner, lesson, check, name, title, outcome, happened`.

    `check` counts from 1 within the lesson; `outcome` is an Outcome, or missing, ungraded or waiting for a lesson
    without a grade.
    """
    return to_csv(_checks(gradebook))


def _checks(gradebook: Gradebook) -> Iterator[Row]:
    yield ["learner", "lesson", "check", "name", "title", "outcome", "happened"]
    for learner in gradebook.learners:
        name = cell(learner.submission.learner)
        for lesson in gradebook.lessons:
            grade = learner.grades.get(lesson.number)
            without_grade = WITHOUT_GRADE[absence(learner, lesson)]
            results = {result.name: result for result in grade.report.results} if grade else {}
            for number, entry in enumerate(lesson.checks, 1):
                row: Row = [name, lesson.number, number, entry.name, lesson.titles[entry.name]]
                result = results.get(entry.name)
                yield [*row, str(result.outcome) if result else without_grade, _happened(result)]


def _happened(result: Result | None) -> str:
    if result is None:
        return ""
    if result.outcome is Outcome.BLOCKED:
        return line(f"needs: {result.blocked_by}")
    return line(result.finding.happened) if result.finding else ""


def handed_in(submission: Submission) -> tuple[str, str]:
    """When it was handed in, and how that is known."""
    known = submission.handed_in
    return (timestamp(known.at), known.known_by) if known else ("", "")


def _numbers(numbers: Iterable[int]) -> str:
    return " ".join(f"{number:02}" for number in numbers)


def line(text: str) -> str:
    """A text as a cell of one line."""
    return cell(" ".join(text.split()))


def cell(text: str) -> str:
    """A text of a learner as a cell that no spreadsheet takes for a formula."""
    return FORMULA.sub(r"\1'", display_text(text, MAX_CELL_CHARACTERS))


def to_csv(rows: Iterable[Row]) -> bytes:
    out = io.StringIO(newline="")
    csv.writer(out).writerows(rows)
    return out.getvalue().encode("utf-8-sig")
