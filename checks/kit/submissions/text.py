"""A lesson's verdicts as text: what the learner sees in their own terminal with -v, safe to show to others."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from rich.cells import cell_len
from rich.console import Console

from checks.kit.catalogue import Lesson
from checks.kit.report import terminal
from checks.kit.report.model import Crossing, Finding, Outcome, Place, Report, Result
from checks.kit.submissions.model import Gradebook, Graded

LONGEST = 10_000
"""Characters of one field of a result that are shown. Ours have hundreds; a learner's log may have millions."""

UNSEEN = re.compile("[\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufeff\ufffe\uffff]")
"""Beside control characters: what turns the direction of a line round, and what no file can hold."""

NOT_HANDED_IN = "This lesson was not handed in."
NOT_GRADED = "This lesson was handed in and could not be graded, by no fault of its own."

NEXT = re.compile(r"^(?:Next|Open): ", re.MULTILINE)


def visible(text: str, most: int = LONGEST) -> str:
    """The text with a symbol for each control character but newline and tab, and at most so many characters."""
    if len(text) > most:
        text = f"{text[:most]}… ({len(text) - most} more characters)"
    return UNSEEN.sub("\ufffd", terminal.printable(text.replace("\r\n", "\n")))


@dataclass(frozen=True, slots=True)
class Told:
    """A lesson's verdicts in their parts. `stories` has the failed checks by name; each ends with a newline."""

    head: str
    stories: Mapping[str, str]
    foot: str

    @property
    def whole(self) -> str:
        return "".join([self.head, *self.stories.values(), self.foot])

    def story(self, name: str) -> str:
        """One failed check's verdict alone, without the rule above it."""
        return self.stories[name].lstrip("\n─").rstrip("\n")


Tellings = Mapping[tuple[int, int], Told]
"""What everybody is told, by the learner's index in the book and the lesson's number."""


def tellings(book: Gradebook) -> Tellings:
    """Every mark's verdicts. They are most of the work of writing results, so that who needs them shares them."""
    wanted = {lesson.number for lesson in book.lessons}
    made: dict[int, Told] = {}  # who handed in the same files has the same mark
    told = {}
    for index, graded in enumerate(book.graded):
        for number, mark in graded.marks.items():
            if number in wanted:
                told[index, number] = made.get(id(mark)) or made.setdefault(id(mark), tell(mark.report))
    return told


def absence(graded: Graded, lesson: Lesson) -> str:
    """Why the lesson has no mark."""
    return NOT_GRADED if lesson.number in graded.submission.lessons else NOT_HANDED_IN


def verdict_text(report: Report, width: int = 80) -> str:
    """Header, a line for each check, every verdict in full, how many pass; `width` is in columns.

    What to open next is left out: it is about the reader's own checkout.
    """
    return tell(report, width).whole


def tell(report: Report, width: int = 80) -> Told:
    """The same in parts."""
    report = _cleaned(report)
    with _symbols():
        out = _Sheet(width)
        terminal.header(out, report)
        for result in report.results:
            terminal.line(out, result)
        head = out.taken()
        stories = {}
        for result in report.results:
            if result.outcome is Outcome.FAILED:
                terminal.verdict(out, report, result)
                stories[result.name] = out.taken()
        terminal.summary(out, report, "")
        return Told(head, stories, NEXT.split(out.taken())[0])


class _Sheet(Console):
    """A terminal without colours. What rich would pass on as it is goes past it, in a third of the time."""

    def __init__(self, width: int) -> None:
        super().__init__(
            file=io.StringIO(), width=width, height=25, force_terminal=False, highlight=False, markup=False, emoji=False
        )

    def print(self, *objects: Any, soft_wrap: bool | None = None, **options: Any) -> None:
        text = objects[0] if objects else ""
        if isinstance(text, str) and "\t" not in text and (soft_wrap or self._fits(text)):
            self.file.write(f"{text}\n")
        else:
            super().print(*objects, soft_wrap=soft_wrap, **options)

    def _fits(self, text: str) -> bool:
        return all(cell_len(row) <= self.width for row in text.split("\n"))

    def taken(self) -> str:
        """What was printed since the last time."""
        text = self.file.getvalue()  # type: ignore[attr-defined]
        self.file = io.StringIO()
        return str(text)


@contextmanager
def _symbols() -> Iterator[None]:
    """Symbols and rules, whatever WORKBOOK_PLAIN and TERM say about the instructor's own terminal."""
    plain, terminal.plain = terminal.plain, lambda: False
    try:
        yield
    finally:
        terminal.plain = plain


def _cleaned(report: Report) -> Report:
    return replace(
        report,
        title=visible(report.title),
        target=visible(report.target),
        notebook=visible(report.notebook),
        postgres=visible(report.postgres),
        results=[_cleaned_result(result) for result in report.results],
    )


def _cleaned_result(result: Result) -> Result:
    finding = result.finding
    shown = result.wire[-terminal.MOST_STATEMENTS :]
    return replace(
        result,
        title=visible(result.title),
        finding=finding and Finding(visible(finding.happened), visible(finding.because), visible(finding.read)),
        did=[visible(step) for step in result.did],
        wire=result.wire[: -len(shown)]
        + [Crossing(one.connection, visible(one.text), visible(one.result)) for one in shown],
        places=[
            Place(visible(place.path), place.line, visible(place.function), visible(place.error))
            for place in result.places
        ],
        log=visible(result.log),
        blocked_by=visible(result.blocked_by),
    )
