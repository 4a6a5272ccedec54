"""A class's results as one HTML file that needs nothing else: no script, no network, works from a disk.

What a learner submitted is shown only as text: jinja2 escapes it, `display_text` replaces what a browser or a terminal
would obey, and the page's Content-Security-Policy forbids every script and every request should both fail.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from checks.kit.lessons.lesson import Lesson
from checks.kit.report.model import Outcome, Result
from checks.kit.report.safe_text import display_line, display_text
from checks.kit.report.terminal import SYMBOL
from checks.kit.submissions.model import Grade, Gradebook, LearnerGrades
from checks.kit.submissions.results import statistics
from checks.kit.submissions.results.text import (
    NOT_GRADED,
    NOT_SUBMITTED,
    WAITING,
    VerdictText,
    VerdictTexts,
    absence,
    verdict_texts,
)

FOLDER = Path(__file__).parent
"""Where page.html and page.css are."""

MAX_NAME_CHARACTERS = 300
MAX_TIP_CHARACTERS = 160
"""Characters of a tooltip, and of a note in a list."""

WITHOUT_GRADE = {NOT_SUBMITTED: "not submitted", NOT_GRADED: "not graded", WAITING: "not graded yet"}
"""What the page says in place of a grade."""

MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
"""In English, whatever the language of this machine is."""

HARDEST_AT_FIRST = 10
NAMES_AT_FIRST = 8
"""Entries of a list that are visible before a click."""

CLASS = {SYMBOL[outcome]: outcome[0] for outcome in Outcome}
SYMBOLS = re.compile(rf"^( {{0,2}})([{''.join(CLASS)}])(?= )", re.MULTILINE)
"""A line of a verdict that starts with an outcome."""

HEADING = re.compile(r"^( {3})(\S.*)$", re.MULTILINE)
"""A heading within a verdict: three blanks in front of it."""


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


def page(gradebook: Gradebook, texts: VerdictTexts | None = None) -> str:
    """The whole page. `texts` are the `verdict_texts` of the gradebook, if the caller has them."""
    texts = verdict_texts(gradebook) if texts is None else texts
    learners = [_learner(gradebook, index, learner, texts) for index, learner in enumerate(gradebook.learners)]
    hardest = statistics.hardest_checks(gradebook)
    environment = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"moment": moment, "duration": duration}
    environment.filters |= {"display_text": display_text, "highlighted": highlighted}
    # learners who submitted the same files share a Grade, which took its time once
    seconds = {id(grade): grade.seconds for learner in gradebook.learners for grade in learner.grades.values()}
    return environment.get_template("page.html").render(
        gradebook=gradebook,
        css=Markup((FOLDER / "page.css").read_text(encoding="utf-8")),
        learners=learners,
        rates=[_rates(gradebook, lesson) for lesson in gradebook.lessons],
        hardest=hardest[:HARDEST_AT_FIRST],
        less_hard=hardest[HARDEST_AT_FIRST:],
        statistics=statistics.lesson_statistics(gradebook),
        attention=_attention(gradebook, learners),
        complete=sum(learner.passed == gradebook.total for learner in gradebook.learners) if gradebook.total else 0,
        median=median(learner.passed for learner in gradebook.learners) if gradebook.learners else 0,
        seconds=sum(seconds.values()),
        not_isolated="limits only" in gradebook.isolation.casefold(),
        names_at_first=NAMES_AT_FIRST,
    )


def highlighted(text: str) -> Markup:
    """A verdict as HTML: its symbols and headings in <b>, everything else escaped."""
    with_symbols = SYMBOLS.sub(
        lambda match: f'{match[1]}<b class="{CLASS[match[2]]}">{match[2]}</b>', str(escape(text))
    )
    return Markup(HEADING.sub(r"\1<b>\2</b>", with_symbols))  # everything of the text was escaped above


def moment(time: datetime | None) -> str:
    """A time for people: `27 Nov 2026, 23:05 UTC`; "" for None."""
    utc = time.astimezone(UTC) if time else None
    return f"{utc.day} {MONTHS[utc.month - 1]} {utc:%Y, %H:%M} UTC" if utc else ""


def duration(seconds: float) -> str:
    """A time for people: `0.8 s`, `42 s`, `3 min 05 s`, `1 h 02 min`."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02} min"


def _learner(gradebook: Gradebook, index: int, learner: LearnerGrades, texts: VerdictTexts) -> LearnerSection:
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


def _rates(gradebook: Gradebook, lesson: Lesson) -> list[int]:
    """Percent of the submissions of a lesson that pass each of its checks; -1 if there are none."""
    reports = [
        learner.grades[lesson.number].report for learner in gradebook.learners if lesson.number in learner.grades
    ]
    passed = {entry.name: 0 for entry in lesson.checks}
    for report in reports:
        for result in report.results:
            passed[result.name] += result.outcome is Outcome.PASSED
    return [100 * passed[entry.name] // len(reports) if reports else -1 for entry in lesson.checks]


def _attention(gradebook: Gradebook, learners: Sequence[LearnerSection]) -> dict[str, list[tuple[LearnerSection, str]]]:
    """The learners who need attention, by the reason, each with a detail ("" if there is none)."""
    groups = {
        "Not graded, because the grader failed": [
            (learner, f"lesson {section.lesson.number:02}: run the same command again")
            for learner in learners
            for section in learner.ungraded
        ],
        "Not final, because a check ended with an error of its own": [
            (learner, f"lesson {section.lesson.number:02}: run the same command again")
            for learner in learners
            for section in learner.errors
        ],
        "Stopped by a limit": [
            (learner, f"lesson {section.lesson.number:02}: {display_line(section.grade.stopped, MAX_TIP_CHARACTERS)}")
            for learner in learners
            for section in learner.stopped
            if section.grade
        ],
        "No lesson that could be graded": [(learner, "") for learner in learners if not learner.submitted],
        "Fewer than half of the median": [
            (learners[index], f"{learners[index].passed} of {gradebook.total}")
            for index in statistics.far_below_median(gradebook)
        ],
        "Same files as another submission": [
            (learner, display_line(" ".join(learner.for_instructor), MAX_TIP_CHARACTERS))
            for learner in learners
            if learner.for_instructor
        ],
        "Notes on the submission": [
            (learner, display_line(" ".join(learner.notes), MAX_TIP_CHARACTERS))
            for learner in learners
            if learner.notes
        ],
    }
    return {reason: members for reason, members in groups.items() if members}
