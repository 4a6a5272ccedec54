"""From what was handed in to a gradebook: what has a mark from before keeps it, the rest is graded."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace

from checks.kit import catalogue
from checks.kit.submissions.desk import GraderFailed
from checks.kit.submissions.model import Gradebook, Graded, Mark, Submission
from checks.kit.submissions.store import Store
from checks.kit.submissions.units import Rules, Unit, files_of, unit, units

Tell = Callable[[Unit, Mark | GraderFailed], None]
Scheduler = Callable[[Sequence[Unit], Rules, Tell], Awaitable[None]]
"""Grades units, in any order, and tells of each one that has ended."""


@dataclass(slots=True)
class Marking:
    """A run: `todo` are the units without a mark, `failed` those to which our own grader came to no verdict."""

    submissions: list[Submission]
    rules: Rules
    store: Store
    todo: list[Unit] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    _units: dict[tuple[int, int], Unit] = field(default_factory=dict)
    _marks: dict[str, Mark] = field(default_factory=dict)

    def plan(self, *, again: bool = False) -> None:
        """Finds out what is to be graded; with `again` everything is."""
        self._units = units(self.submissions, self.rules)
        for one in {one.key: one for one in self._units.values()}.values():
            mark = None if again else self.store.load(one)
            if mark is None:
                self.todo.append(one)
            else:
                self._marks[one.key] = mark
        self._twins()

    @property
    def left(self) -> int:
        """How many of `todo` have not ended."""
        return sum(unit.key not in self._marks and unit.key not in self.failed for unit in self.todo)

    @property
    def known(self) -> int:
        """How many units had a mark already."""
        return len(self._marks)

    async def grade(self, scheduler: Scheduler, tell: Callable[[Unit], None]) -> None:
        """Grades what is to be graded; each mark is kept as it comes."""

        def ended(unit: Unit, mark: Mark | GraderFailed) -> None:
            if isinstance(mark, Mark):
                self.store.save(unit, mark)
                self._marks[unit.key] = mark
            else:
                self.failed[unit.key] = str(mark)
            tell(unit)

        if self.todo:
            await scheduler(self.todo, self.rules, ended)

    def gradebook(self, numbers: Sequence[int], isolation: str) -> Gradebook:
        """Everybody's marks; a unit that could not be graded has none."""
        lessons = [catalogue.lesson(number) for number in numbers]
        servers = sorted({mark.report.postgres for mark in self._marks.values()} - {""})
        book = Gradebook(lessons, ", ".join(servers), isolation, self.rules.kit)
        for place, submission in enumerate(self.submissions):
            graded = Graded(submission)
            for number in submission.lessons:
                if mark := self._marks.get(self._units[place, number].key):
                    graded.marks[number] = mark
            book.graded.append(graded)
        return book

    def _twins(self) -> None:
        """Notes whose files are those of somebody else, or of the solution."""
        theirs = {unit.key: f"solutions/lesson_{unit.lesson:02}" for unit in self._solutions()}
        for place, submission in enumerate(self.submissions):
            notes = []
            for number in sorted(submission.lessons):
                key = self._units[place, number].key
                others = [name for name in self.learners(key) if name != submission.learner]
                if same := [*([theirs[key]] if key in theirs else []), *others]:
                    notes.append(f"lesson_{number:02} has the same files as {_few(same)}.")
            if notes:
                self.submissions[place] = replace(submission, notes=(*submission.notes, *notes))

    def _solutions(self) -> list[Unit]:
        numbers = {number for _, number in self._units}
        lessons = [lesson for number in numbers if (lesson := catalogue.lesson(number)).solution.is_dir()]
        return [unit(lesson, files_of(lesson.solution), self.rules) for lesson in lessons]

    def learners(self, key: str) -> list[str]:
        """Who handed in this unit."""
        return [self.submissions[place].learner for (place, _), unit in self._units.items() if unit.key == key]


def _few(names: list[str], most: int = 5) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
