"""What a whole class's marks say: where the room is stuck, what each lesson took, who is worth a look."""

from __future__ import annotations

import re
import textwrap
from collections import Counter
from dataclasses import dataclass
from itertools import chain
from statistics import median

from checks.kit.catalogue import Lesson
from checks.kit.report.model import Outcome
from checks.kit.submissions.model import Gradebook, Mark
from checks.kit.submissions.text import visible

BEGINNING, ALIKE, MOST_SEEN = 160, 60, 3
"""Characters of a finding that are quoted, that must agree but for numbers, and how many findings are quoted."""

NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
CAUTION = 1.96
"""Standard deviations by which chance may have moved a share; it moves one in twenty further than that."""


@dataclass(frozen=True, slots=True)
class Stuck:
    """A check that somebody fails: `failed` of `of` learners who handed the lesson in, and `blocked` did not get to it.

    `seen` quotes the commonest findings, with how many learners had one that begins like it.
    """

    lesson: Lesson
    name: str
    failed: int
    blocked: int
    of: int
    seen: tuple[tuple[str, int], ...]

    @property
    def share(self) -> float:
        return self.failed / self.of

    @property
    def weight(self) -> float:
        """The share, less what chance may have done to it: Wilson's lower bound. One of one is less than 19 of 20."""
        n, p, z = self.of, self.share, CAUTION
        middle, spread = p + z * z / (2 * n), z * (p * (1 - p) / n + z * z / (4 * n * n)) ** 0.5
        return float((middle - spread) / (1 + z * z / n))


@dataclass(frozen=True, slots=True)
class Effort:
    """A lesson over the whole class, among the `handed_in` learners who did hand it in.

    `whole` learners pass all of it; `share` is the average share of its checks that pass, 0 to 1. Times are seconds
    of grading; `whose` is the index of the learner with the `longest`, -1 where there is none.
    """

    lesson: Lesson
    handed_in: int
    whole: int
    share: float
    median: float
    longest: float
    whose: int
    total: float


def stuck(book: Gradebook) -> list[Stuck]:
    """The checks that somebody fails, those first that hold up most of the room."""
    found = chain.from_iterable(_stuck(lesson, _marks(book, lesson)) for lesson in book.lessons)
    return sorted(found, key=lambda one: -one.weight)


def _stuck(lesson: Lesson, marks: dict[int, Mark]) -> list[Stuck]:
    failed: Counter[str] = Counter()
    blocked: Counter[str] = Counter()
    happened: dict[str, list[str]] = {}
    for result in chain.from_iterable(mark.report.results for mark in marks.values()):
        failed[result.name] += result.outcome is Outcome.FAILED
        blocked[result.name] += result.outcome is Outcome.BLOCKED
        if result.outcome is Outcome.FAILED and result.finding:
            happened.setdefault(result.name, []).append(result.finding.happened)
    return [
        Stuck(lesson, its.name, failed[its.name], blocked[its.name], len(marks), _seen(happened.get(its.name, [])))
        for its in lesson.checks
        if failed[its.name]
    ]


def _seen(happened: list[str]) -> tuple[tuple[str, int], ...]:
    """The commonest beginnings; the first of those that are alike stands for all."""
    quoted: dict[str, str] = {}
    count: Counter[str] = Counter()
    for text in happened:
        beginning = shortened(text, BEGINNING)
        alike = NUMBER.sub("0", beginning)[:ALIKE]
        quoted.setdefault(alike, beginning)
        count[alike] += 1
    return tuple((quoted[alike], times) for alike, times in count.most_common(MOST_SEEN))


def shortened(text: str, width: int) -> str:
    """The beginning of a text as one line of at most `width` characters, safe to show."""
    line = " ".join(visible(text[: 4 * width]).split())
    if len(line) <= width:
        return line
    return textwrap.shorten(line, width, placeholder="…") if " " in line[:width] else line[: width - 1] + "…"


def efforts(book: Gradebook) -> list[Effort]:
    """All lessons of the run, in order."""
    return [_effort(lesson, _marks(book, lesson)) for lesson in book.lessons]


def _effort(lesson: Lesson, marks: dict[int, Mark]) -> Effort:
    if not marks:
        return Effort(lesson, 0, 0, 0.0, 0.0, 0.0, -1, 0.0)
    times = {index: mark.seconds for index, mark in marks.items()}
    whose = max(times, key=lambda index: times[index])
    return Effort(
        lesson,
        handed_in=len(marks),
        whole=sum(mark.report.passed for mark in marks.values()),
        share=sum(mark.passed / max(mark.total, 1) for mark in marks.values()) / len(marks),
        median=median(times.values()),
        longest=times[whose],
        whose=whose,
        total=sum(times.values()),
    )


def behind(book: Gradebook) -> list[int]:
    """Who handed something in and passes less than half of what the middle one passes: indices, worst first."""
    there = {index: graded.passed for index, graded in enumerate(book.graded) if graded.marks}
    bar = median(there.values()) / 2 if there else 0
    return sorted((index for index, passed in there.items() if passed < bar), key=lambda index: there[index])


def _marks(book: Gradebook, lesson: Lesson) -> dict[int, Mark]:
    """The lesson's marks by the learner's index, in the book's order."""
    every = ((index, graded.marks.get(lesson.number)) for index, graded in enumerate(book.graded))
    return {index: mark for index, mark in every if mark is not None}
