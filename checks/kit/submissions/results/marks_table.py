"""marks.csv: the points and the mark of each learner, for a person who looks before anything is imported."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import ROUND_HALF_UP, Decimal
from fractions import Fraction

from checks.kit.submissions.marking.marks import Mark, Rules
from checks.kit.submissions.model import Gradebook, timestamp
from checks.kit.submissions.results.tables import Row, cell, handed_in, line, to_csv

PLACES = Decimal("0.01")


def number(value: Fraction | None) -> str:
    """With at most two decimals and a point: `7.5`, `8`; "" for None."""
    if value is None:
        return ""
    rounded = (Decimal(value.numerator) / Decimal(value.denominator)).quantize(PLACES, ROUND_HALF_UP)
    return f"{rounded.normalize():f}"


def table(gradebook: Gradebook, marks: Sequence[Mark], rules: Rules) -> bytes:
    """`learner, name, handed_in, known_by, days_late, lesson_NN ..., points, taken_off, mark, of, percent, remarks`.

    The column of a lesson has its points, and `points` their sum. `taken_off` is in percent of it, and `mark` what is
    left. An empty cell means that there is no final mark. `name` is that of the roster. `made` is when the newest
    grade of the class was given.
    """
    lessons = [lesson.name for lesson in gradebook.lessons]
    head = ["learner", "name", "handed_in", "known_by", "days_late"]
    rows: list[Row] = [[*head, *lessons, "points", "taken_off", "mark", "of", "percent", "remarks", "made"]]
    for mark in marks:
        submission = mark.learner.submission if mark.learner else None
        days = "" if mark.days is None else mark.days
        rows.append(
            [
                cell(submission.learner) if submission else "",
                cell(mark.person.name) if mark.person else "",
                *(handed_in(submission) if submission else ("", "")),
                days,
                *(number(mark.points.get(lesson.number)) for lesson in gradebook.lessons),
                number(mark.earned),
                "" if mark.days is None or rules.late is None else rules.late.taken_off(mark.days),
                number(mark.mark),
                number(mark.of),
                number(mark.percent),
                line("; ".join(mark.remarks)),
                timestamp(gradebook.made),
            ]
        )
    return to_csv(rows)
