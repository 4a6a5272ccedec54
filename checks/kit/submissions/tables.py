"""The results as tables for a spreadsheet or a gradebook: one line per learner, per lesson, per check.

RFC 4180, with a byte order mark in front: without it Excel takes UTF-8 for something else. Numbers are whole, because
a decimal point is a date in half of the world. An empty cell is a lesson without a mark: it was not handed in, or our
own grader failed; 0 is a lesson that has one.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator

from checks.kit.report.model import Outcome, Result
from checks.kit.submissions.model import Gradebook
from checks.kit.submissions.text import NOT_GRADED, absence, visible

FORMULA = re.compile(r"(^|;)(?=\s*[=+\-@\t\r＝＋－＠])")
"""Where a spreadsheet would begin to calculate; after a semicolon too, which separates cells where commas do not."""

Row = list[str | int]


def by_learner(book: Gradebook) -> bytes:
    """results.csv: `learner, source, passed, of, lesson_00 ... lesson_NN, stopped, notes, seconds`.

    Under a lesson is how many of its checks pass; `stopped` names the lessons whose grading was.
    """
    numbers = [lesson.number for lesson in book.lessons]
    head = ["learner", "source", "passed", "of", *(lesson.name for lesson in book.lessons)]
    rows: list[Row] = [[*head, "stopped", "notes", "seconds"]]
    for graded in book.graded:
        its, marks = graded.submission, graded.marks
        passed: Row = [marks[number].passed if number in marks else "" for number in numbers]
        stopped = " ".join(f"{number:02}" for number in numbers if number in marks and marks[number].stopped)
        row: Row = [_text(its.learner), _text(its.source), graded.passed, book.total, *passed]
        rows.append([*row, stopped, _line(" | ".join(its.notes)), round(graded.seconds)])
    return _csv(rows)


def by_lesson(book: Gradebook) -> bytes:
    """lessons.csv: `learner, source, lesson, title, found, passed, of, stopped, seconds`; `found` is yes or no.

    Where a lesson was found and could not be graded, `passed` is empty and `stopped` says so.
    """
    rows: list[Row] = [["learner", "source", "lesson", "title", "found", "passed", "of", "stopped", "seconds"]]
    for graded in book.graded:
        who: Row = [_text(graded.submission.learner), _text(graded.submission.source)]
        for lesson in book.lessons:
            mark = graded.marks.get(lesson.number)
            what: Row = [*who, lesson.number, lesson.title]
            if mark:
                rows.append([*what, "yes", mark.passed, mark.total, _line(mark.stopped), round(mark.seconds)])
            else:
                ungraded = absence(graded, lesson) == NOT_GRADED
                found, why = ("yes", NOT_GRADED) if ungraded else ("no", "")
                rows.append([*what, found, "", len(lesson.checks), why, ""])
    return _csv(rows)


def by_check(book: Gradebook) -> bytes:
    """checks.csv: `learner, lesson, check, name, title, outcome, happened`.

    `check` counts from 1 within the lesson; `outcome` is passed, failed, blocked, missing or ungraded.
    """
    return _csv(_checks(book))


def _checks(book: Gradebook) -> Iterator[Row]:
    yield ["learner", "lesson", "check", "name", "title", "outcome", "happened"]
    for graded in book.graded:
        learner = _text(graded.submission.learner)
        for lesson in book.lessons:
            mark = graded.marks.get(lesson.number)
            none = "ungraded" if absence(graded, lesson) == NOT_GRADED else "missing"
            results = {result.name: result for result in mark.report.results} if mark else {}
            for number, entry in enumerate(lesson.checks, 1):
                row: Row = [learner, lesson.number, number, entry.name, lesson.titles[entry.name]]
                result = results.get(entry.name)
                yield [*row, str(result.outcome) if result else none, _happened(result)]


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
    """A learner's text as a cell that is read and never calculated."""
    return FORMULA.sub(r"\1'", visible(text, 2_000))


def _csv(rows: Iterable[Row]) -> bytes:
    out = io.StringIO(newline="")
    csv.writer(out).writerows(rows)
    return out.getvalue().encode("utf-8-sig")
