"""The mark of each learner: points by weight, less what being late costs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

from checks.kit.lessons.lesson import Lesson
from checks.kit.submissions.marking.late import LatePolicy
from checks.kit.submissions.marking.match import Matches, match
from checks.kit.submissions.marking.roster import Person, Roster
from checks.kit.submissions.marking.weights import Weights
from checks.kit.submissions.model import Gradebook, LearnerGrades


@dataclass(frozen=True, slots=True)
class Rules:
    """How marks are made. Without a roster there is a mark for each submission; without `late`, nobody is late."""

    weights: Weights = field(default_factory=Weights)
    late: LatePolicy | None = None
    roster: Roster | None = None


@dataclass(frozen=True, slots=True)
class Mark:
    """A learner's points by the lesson's number: None for a lesson without a final grade, 0 for one not submitted.

    `learner` is None for a person who handed in nothing, and `person` for a submission of somebody who is not on the
    roster. `days` is None where nothing says when it was handed in, or nobody asked. `kept` is the part of the points
    that being late leaves. `counts` is False where there is nothing to be marked.
    """

    learner: LearnerGrades | None
    person: Person | None
    points: Mapping[int, Fraction | None]
    of: Fraction
    days: int | None = None
    kept: Fraction = Fraction(1)
    counts: bool = True
    remarks: Sequence[str] = ()

    @property
    def earned(self) -> Fraction | None:
        """The points before what being late costs; None while there is no final mark."""
        points = [points for points in self.points.values() if points is not None]
        return sum(points, Fraction(0)) if self.counts and len(points) == len(self.points) else None

    @property
    def mark(self) -> Fraction | None:
        """The points that are left; None while there is no final mark."""
        return None if self.earned is None else self.earned * self.kept

    @property
    def percent(self) -> Fraction | None:
        """The mark in percent of all points."""
        return 100 * self.mark / self.of if self.mark is not None and self.of else None


def make_marks(gradebook: Gradebook, rules: Rules) -> list[Mark]:
    """The marks in the order of the roster, then those who are not on it; without one, in the gradebook's order."""
    return list(_marks(gradebook, rules))


def _marks(gradebook: Gradebook, rules: Rules) -> Iterator[Mark]:
    if rules.roster is None:
        for learner in gradebook.learners:
            yield _mark(gradebook.lessons, learner, rules)
        return
    matches = match([learner.submission for learner in gradebook.learners], rules.roster)
    of = _of(gradebook.lessons, rules)
    for index, person in enumerate(rules.roster.people):
        if (place := matches.of_person.get(index)) is None:
            yield Mark(None, person, {}, of, counts=False, remarks=("handed in nothing",))
        else:
            yield _mark(gradebook.lessons, gradebook.learners[place], rules, person, _remark(matches, place))
    for place in matches.earlier:
        learner = gradebook.learners[place]
        yield Mark(learner, None, {}, of, counts=False, remarks=_remark(matches, place))
    for place in matches.unknown:
        yield _mark(gradebook.lessons, gradebook.learners[place], rules, None, _remark(matches, place))


def _remark(matches: Matches, place: int) -> tuple[str, ...]:
    return (matches.remarks[place],) if place in matches.remarks else ()


def _of(lessons: Sequence[Lesson], rules: Rules) -> Fraction:
    return sum((rules.weights.of_lesson(lesson) for lesson in lessons), Fraction(0))


def _mark(
    lessons: Sequence[Lesson],
    learner: LearnerGrades,
    rules: Rules,
    person: Person | None = None,
    remarks: tuple[str, ...] = (),
) -> Mark:
    points: dict[int, Fraction | None] = {}
    for lesson in lessons:
        grade = learner.grades.get(lesson.number)
        if lesson.number in learner.open:
            points[lesson.number] = None
        else:
            points[lesson.number] = rules.weights.points(lesson, grade) if grade else Fraction(0)
    if learner.open:
        remarks += (f"not final: lesson {', '.join(f'{number:02}' for number in learner.open)}",)
    if not learner.submission.lessons:
        remarks += ("nothing that can be graded",)
    days, kept, handed_in = None, Fraction(1), learner.submission.handed_in
    if rules.late and handed_in:
        days = rules.late.days(handed_in.at)
        kept = rules.late.kept(days)
    elif rules.late:
        remarks += ("nothing says when it was handed in",)
    counts = bool(learner.submission.lessons)
    return Mark(learner, person, points, _of(lessons, rules), days, kept, counts, remarks)
