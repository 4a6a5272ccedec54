"""A class's results as one HTML file that needs nothing else: no script, no network, works from a disk.

What a learner handed in is shown only as text: jinja2 escapes it, `visible` takes what a browser or a terminal
would obey, and the page's own policy forbids every script and every request should both fail.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from checks.kit.catalogue import Lesson
from checks.kit.report.model import Outcome, Result
from checks.kit.report.terminal import SYMBOL
from checks.kit.submissions import insight
from checks.kit.submissions.model import Gradebook, Graded, Mark
from checks.kit.submissions.text import NOT_GRADED, Tellings, Told, absence, tellings, visible

HERE = Path(__file__).parent
LONGEST_NAME, LONGEST_TIP = 300, 160
STUCK_AT_FIRST, NAMES_AT_FIRST = 10, 8

CLASS = {SYMBOL[outcome]: outcome[0] for outcome in Outcome}
SYMBOLS = re.compile(rf"^( {{0,2}})([{''.join(CLASS)}])(?= )", re.MULTILINE)
HEADING = re.compile(r"^( {3})(\S.*)$", re.MULTILINE)
"""How a verdict's lines begin: an outcome, or three blanks before what the lines below are about."""


@dataclass(frozen=True, slots=True)
class Cell:
    """A check of a learner in the heat map; only what does not pass has something to tell, and a place to go to."""

    state: str
    symbol: str
    href: str = ""
    tip: str = ""


@dataclass(frozen=True, slots=True)
class Handed:
    """A lesson of a learner; where it has no mark, `absence` says why. `id` is its anchor."""

    id: str
    lesson: Lesson
    mark: Mark | None
    absence: str
    cells: Sequence[Cell]
    told: Told | None

    @property
    def shares(self) -> list[tuple[Outcome, float]]:
        """Per cent of the lesson's checks with each outcome."""
        report, total = (self.mark.report, max(self.mark.total, 1)) if self.mark else (None, 1)
        return [(outcome, 100 * report.count(outcome) / total) for outcome in Outcome] if report else []

    def anchor(self, name: str) -> str:
        """The anchor of a check's verdict."""
        return f"{self.id}-{[entry.name for entry in self.lesson.checks].index(name) + 1}"


@dataclass(frozen=True, slots=True)
class Learner:
    """A learner with what is worth a look about them; `id` is the anchor of their page."""

    id: str
    name: str
    source: str
    notes: Sequence[str]
    graded: Graded
    lessons: Sequence[Handed]

    @property
    def stopped(self) -> list[Handed]:
        return [handed for handed in self.lessons if handed.mark and handed.mark.stopped]

    @property
    def ungraded(self) -> list[Handed]:
        return [handed for handed in self.lessons if handed.absence == "not graded"]

    @property
    def handed_in(self) -> int:
        return sum(handed.absence != "not handed in" for handed in self.lessons)


def page(book: Gradebook, told: Tellings | None = None) -> str:
    """The whole page. `told` is `tellings(book)`, where it is there already."""
    told = tellings(book) if told is None else told
    learners = [_learner(book, index, graded, told) for index, graded in enumerate(book.graded)]
    stuck = insight.stuck(book)
    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"duration": duration, "visible": visible, "drawn": drawn}
    return environment.get_template("page.html").render(
        book=book,
        css=Markup((HERE / "page.css").read_text(encoding="utf-8")),
        learners=learners,
        rates=[_rates(book, lesson) for lesson in book.lessons],
        stuck=stuck[:STUCK_AT_FIRST],
        stuck_too=stuck[STUCK_AT_FIRST:],
        efforts=insight.efforts(book),
        watch=_watch(book, learners),
        everything=sum(graded.passed == book.total for graded in book.graded) if book.total else 0,
        middle=median(graded.passed for graded in book.graded) if book.graded else 0,
        # the same files are graded once, whoever handed them in
        seconds=sum({id(mark): mark.seconds for one in book.graded for mark in one.marks.values()}.values()),
        unguarded="limits only" in book.isolation.casefold(),
        names_at_first=NAMES_AT_FIRST,
    )


def drawn(text: str) -> Markup:
    """A verdict's text with its symbols and headings marked; nothing else is changed, and what is in it is escaped."""
    marked = SYMBOLS.sub(lambda at: f'{at[1]}<b class="{CLASS[at[2]]}">{at[2]}</b>', str(escape(text)))
    return Markup(HEADING.sub(r"\1<b>\2</b>", marked))  # nothing unescaped is left in it


def duration(seconds: float) -> str:
    """For people: `0.8 s`, `42 s`, `3 min 05 s`, `1 h 02 min`."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"


def _learner(book: Gradebook, index: int, graded: Graded, told: Tellings) -> Learner:
    its = graded.submission
    id = f"l{index + 1}"
    lessons = []
    for lesson in book.lessons:
        mark = graded.marks.get(lesson.number)
        anchor = f"{id}-{lesson.number}"
        why = "" if mark else "not graded" if absence(graded, lesson) == NOT_GRADED else "not handed in"
        lessons.append(Handed(anchor, lesson, mark, why, _cells(anchor, mark), told.get((index, lesson.number))))
    name = visible(its.learner, LONGEST_NAME)
    return Learner(id, name, visible(its.source), [visible(note) for note in its.notes], graded, lessons)


def _cells(anchor: str, mark: Mark | None) -> list[Cell]:
    results = mark.report.results if mark else []
    return [_cell(anchor, number, result) for number, result in enumerate(results, 1)]


def _cell(anchor: str, number: int, result: Result) -> Cell:
    symbol = SYMBOL[result.outcome]
    if result.outcome is Outcome.PASSED:
        return Cell("passed", symbol)
    if result.outcome is Outcome.BLOCKED:
        why = f"not run; it needs: {insight.shortened(result.blocked_by, LONGEST_TIP)}"
        return Cell("blocked", symbol, anchor, f"{visible(result.title)}\n{why}")
    happened = insight.shortened(result.finding.happened, LONGEST_TIP) if result.finding else ""
    return Cell("failed", symbol, f"{anchor}-{number}", f"{visible(result.title)}\n{happened}")


def _rates(book: Gradebook, lesson: Lesson) -> list[int]:
    """Per cent of those who handed the lesson in that pass, by check; -1 where nobody handed it in."""
    reports = [graded.marks[lesson.number].report for graded in book.graded if lesson.number in graded.marks]
    passed = {entry.name: 0 for entry in lesson.checks}
    for report in reports:
        for result in report.results:
            passed[result.name] += result.outcome is Outcome.PASSED
    return [100 * passed[entry.name] // len(reports) if reports else -1 for entry in lesson.checks]


def _watch(book: Gradebook, learners: Sequence[Learner]) -> dict[str, list[tuple[Learner, str]]]:
    """Who is worth a look, by why: the learners with what there is to say about each."""
    behind = [learners[index] for index in insight.behind(book)]
    groups = {
        "Not graded, by no fault of theirs": [
            (one, f"lesson {handed.lesson.number:02}: run the same command again")
            for one in learners
            for handed in one.ungraded
        ],
        "Stopped before the end": [
            (one, f"lesson {handed.lesson.number:02}: {insight.shortened(handed.mark.stopped, LONGEST_TIP)}")
            for one in learners
            for handed in one.stopped
            if handed.mark
        ],
        "Nothing that could be graded": [(one, "") for one in learners if not one.handed_in],
        "Far behind the room": [(one, f"{one.graded.passed} of {book.total}") for one in behind],
        "Notes on what was handed in": [
            (one, insight.shortened(" ".join(one.notes), LONGEST_TIP)) for one in learners if one.notes
        ],
    }
    return {why: members for why, members in groups.items() if members}
