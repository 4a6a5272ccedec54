"""What `workbook watch` shows: on a terminal a page that is drawn anew, elsewhere lines as they come."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from checks.kit.catalogue import Lesson
from checks.kit.live import Growing
from checks.kit.report import terminal
from checks.kit.report.model import Outcome, Report, Result
from checks.kit.report.next_step import next_step

if TYPE_CHECKING:
    from rich.console import Console

KEYS = "h hint · r run · n next · l list · d diff · c cost · x reset · q quit"
OTHER_LINES = 7
"""Rows of a page that are not the verdict: heading, progress, summary, keys."""


class Screen(Protocol):
    out: Console

    def begins(self, lesson: Lesson) -> None:
        """A grading has begun."""

    def check(self, growing: Growing) -> None:
        """A check has begun."""

    def result(self, growing: Growing, result: Result) -> None:
        """A check has ended."""

    def ended(self, growing: Growing) -> None:
        """All checks have ended."""

    def said(self) -> None:
        """Something else was printed through `out`."""

    def resized(self) -> None:
        """The terminal has another size."""


class Lines:
    """For pipes, logs and screen readers: nothing moves, nothing is drawn twice."""

    def __init__(self) -> None:
        self.out = terminal.console()

    def begins(self, lesson: Lesson) -> None:
        self.out.print(f"\nBookshop · lesson {lesson.number:02} · {lesson.title}", style="bold")

    def check(self, growing: Growing) -> None:
        return

    def result(self, growing: Growing, result: Result) -> None:
        terminal.line(self.out, result)

    def ended(self, growing: Growing) -> None:
        if growing.report:
            terminal.verdicts(self.out, growing.report, in_full=False)
            terminal.summary(self.out, growing.report, next_step(growing.report))

    def said(self) -> None:
        return

    def resized(self) -> None:
        return


class Page:
    """The first red verdict as soon as it is known, and below it one line that follows the checks."""

    def __init__(self) -> None:
        self.out = terminal.console()
        self._lesson: Lesson | None = None
        self._growing: Growing | None = None
        self._ended = False

    def begins(self, lesson: Lesson) -> None:
        self._lesson, self._growing, self._ended = lesson, None, False
        self._draw()

    def check(self, growing: Growing) -> None:
        self._growing = growing
        self._progress()

    def result(self, growing: Growing, result: Result) -> None:
        self._growing = growing
        if result.outcome is Outcome.FAILED and growing.report and growing.report.count(Outcome.FAILED) == 1:
            self._draw()
        else:
            self._progress()

    def ended(self, growing: Growing) -> None:
        self._growing, self._ended = growing, True
        self._draw()

    def said(self) -> None:
        if self._ended:
            self._keys()
        else:
            self._progress()

    def resized(self) -> None:
        self._draw()

    def _draw(self) -> None:
        report = self._growing.report if self._growing else None
        self.out.clear()
        if self._lesson:
            self.out.print(f"Bookshop · lesson {self._lesson.number:02} · {self._lesson.title}", style="bold")
        if report:
            self._failures(report)
        if not self._ended:
            self._progress()
        elif report:
            terminal.summary(self.out, report, next_step(report))
            self._keys()

    def _failures(self, report: Report) -> None:
        """The red checks: a line for each of the others, then the first one's story, cut to the page."""
        failed = [result for result in report.results if result.outcome is Outcome.FAILED]
        others = failed[1:] if self._ended else []
        for result in others:
            self.out.print(_fit(f"  {terminal.mark(result.outcome)} {result.title}", self.out.width), style="red")
        for result in failed[:1]:
            room = self.out.height - OTHER_LINES - len(others)
            terminal.verdict(self.out, report, result, **_that_fit(self.out, report, result, room))

    def _progress(self) -> None:
        """Rewrites the last line."""
        results = self._growing.report.results if self._growing and self._growing.report else []
        total = len(self._lesson.checks) if self._lesson else 0
        marks = "".join(terminal.SYMBOL[result.outcome] for result in results) + "·" * (total - len(results))
        running = self._growing.running if self._growing else "starting …"
        self.out.file.write("\r\x1b[K" + _fit(f"  {marks}  {running}", self.out.width - 1))
        self.out.file.flush()

    def _keys(self) -> None:
        self.out.print(_fit(KEYS, self.out.width), style="dim")


def _that_fit(out: Console, report: Report, result: Result, room: int) -> dict[str, int]:
    """How many steps and statements of the verdict fit into so many rows; at least the last ones."""
    shown = {"steps": len(result.did), "statements": terminal.MOST_STATEMENTS}
    for name, least in (("statements", 4), ("steps", 3), ("statements", 2)):
        while shown[name] > least:
            with out.capture() as capture:
                terminal.verdict(out, report, result, **shown)
            if len(capture.get().splitlines()) <= room:
                return shown
            shown[name] -= 1
    return shown


def _fit(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"
