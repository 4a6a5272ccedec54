"""What `workbook watch` shows: on a terminal a page that is drawn anew, elsewhere lines as they come."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Protocol

from checks.kit.cli.verdict_rows import verdict_rows, wrapped
from checks.kit.lessons.lesson import Lesson
from checks.kit.lessons.words import plural
from checks.kit.report import terminal
from checks.kit.report.live import LiveReport
from checks.kit.report.model import Outcome, Report, Result
from checks.kit.report.next_step import next_step

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

KEYS = "h hint · v more · r run · n next · l list · d diff · c cost · x reset · q quit"
WAS_GREEN = "It passed at the last run."


class Viewer(Protocol):
    """Whatever shows the events of `watch`: the terminal, and the page of `workbook view`."""

    def begins(self, lesson: Lesson, were_green: Collection[str]) -> None:
        """A grading has begun; `were_green` are the checks that passed at the last run."""

    def check(self, live_report: LiveReport) -> None:
        """A check has begun."""

    def result(self, live_report: LiveReport, result: Result) -> None:
        """A check has ended."""

    def ended(self, live_report: LiveReport) -> None:
        """All checks have ended."""

    def broke(self, text: str) -> None:
        """The grading has ended before its first check; `text` is what pytest printed."""

    def notice(self, sentence: str) -> None:
        """Something has to be known that is not about a check."""

    def progressed(self) -> None:
        """A hint was given, or the lesson was put back to how it was handed out."""


class Screen(Viewer, Protocol):
    """The terminal, in which somebody may also press keys."""

    out: Console

    def said(self) -> None:
        """Something else was printed through `out`."""

    def resized(self) -> None:
        """The terminal has another size."""


class Lines:
    """For pipes, logs and screen readers: nothing moves, nothing is drawn twice."""

    def __init__(self) -> None:
        self.out = terminal.console()
        self._were_green: Collection[str] = ()

    def begins(self, lesson: Lesson, were_green: Collection[str]) -> None:
        self._were_green = were_green
        self.out.print(f"\nBookshop · lesson {lesson.number:02} · {lesson.title}", style="bold")

    def check(self, live_report: LiveReport) -> None:
        return

    def result(self, live_report: LiveReport, result: Result) -> None:
        terminal.line(self.out, result)
        if result.outcome.is_red and result.name in self._were_green:
            self.out.print(f"    {WAS_GREEN}", style="yellow")

    def ended(self, live_report: LiveReport) -> None:
        if live_report.report:
            terminal.verdicts(self.out, live_report.report, in_full=False)
            terminal.summary(self.out, live_report.report, next_step(live_report.report))

    def broke(self, text: str) -> None:
        self.out.print(text, style="red")

    def notice(self, sentence: str) -> None:
        self.out.print(f"\n{sentence}", style="bold red")

    def progressed(self) -> None:
        return

    def said(self) -> None:
        return

    def resized(self) -> None:
        return


class Page:
    """The first red verdict as soon as it is known, and below it one line that follows the checks.

    `address` is a line that says where the page of `workbook view` is, if there is one.
    """

    def __init__(self) -> None:
        self.out = terminal.console()
        self.address = ""
        self._lesson: Lesson | None = None
        self._live_report: LiveReport | None = None
        self._ended = False
        self._were_green: Collection[str] = ()
        self._notice = ""

    def begins(self, lesson: Lesson, were_green: Collection[str]) -> None:
        if self._ended:
            self._notice = ""  # it was on a page that stood until now
        self._lesson, self._live_report, self._ended = lesson, None, False
        self._were_green = were_green
        self._draw()

    def check(self, live_report: LiveReport) -> None:
        self._live_report = live_report
        self._progress()

    def result(self, live_report: LiveReport, result: Result) -> None:
        self._live_report = live_report
        red = [one for one in live_report.report.results if one.outcome.is_red] if live_report.report else []
        if red == [result]:
            self._draw()
        else:
            self._progress()

    def ended(self, live_report: LiveReport) -> None:
        self._live_report, self._ended = live_report, True
        self._draw()

    def broke(self, text: str) -> None:
        self.out.print(text, style="red")
        self._keys()

    def notice(self, sentence: str) -> None:
        self._notice = sentence
        self._draw()

    def progressed(self) -> None:
        return

    def said(self) -> None:
        if self._ended:
            self._keys()
        else:
            self._progress()

    def resized(self) -> None:
        self._draw()

    def _draw(self) -> None:
        report = self._live_report.report if self._live_report else None
        self.out.clear()
        if self._lesson:
            title = f"Bookshop · lesson {self._lesson.number:02} · {self._lesson.title}"
            self.out.print(_fit(title, self.out.width), style="bold")
        address = wrapped(self.out, self.address) if self.address else []
        self._print(address)
        notice = wrapped(self.out, self._notice) if self._notice else []
        for row in notice:
            self.out.print(row, style="bold red", soft_wrap=True)
        below = self._summary(report) if report and self._ended else []
        if report:
            keys = len(self._key_rows()) if self._ended else 0
            # the heading, and the row of the progress or the one in which the cursor stays below the keys
            self._failures(report, self.out.height - 2 - len(address) - len(notice) - len(below) - keys)
        if not self._ended:
            self._progress()
        elif report:
            self._print(below)
            self._keys()

    def _failures(self, report: Report, room: int) -> None:
        """The red checks in `room` rows: the first one's story, then a line for each of the others, or how many."""
        failed = [result for result in report.results if result.outcome.is_red]
        others = sorted(failed[1:], key=lambda result: result.name not in self._were_green) if self._ended else []
        shown = others if len(others) <= max(room // 4, 1) else others[: max(room // 4 - 1, 0)]
        for result in failed[:1]:
            was_green = result.name in self._were_green
            rows = verdict_rows(self.out, report, result, room - min(len(others), len(shown) + 1) - was_green)
            title = next((number for number, row in enumerate(rows) if not row.plain.strip()), len(rows))
            self._print(rows[:title])
            if was_green:
                self.out.print(f"     {WAS_GREEN}", style="yellow")
            self._print(rows[title:])
        for result in shown:
            self._other(result)
        if len(others) > len(shown):
            count = plural(len(others) - len(shown), "more check")
            self.out.print(f"  {terminal.SYMBOL[Outcome.FAILED]} {count} failed; l lists them", style="red")

    def _other(self, result: Result) -> None:
        suffix = " (passed at the last run)" if result.name in self._were_green else ""
        title = _fit(f"  {terminal.mark(result.outcome)} {result.title}", self.out.width - len(suffix))
        self.out.print(title + suffix, style="red")

    def _summary(self, report: Report) -> list[Text]:
        with self.out.capture() as capture:
            terminal.summary(self.out, report, next_step(report))
        return wrapped(self.out, capture.get())

    def _print(self, rows: list[Text]) -> None:
        for row in rows:
            self.out.print(row, soft_wrap=True)

    def _progress(self) -> None:
        """Rewrites the last line."""
        results = self._live_report.report.results if self._live_report and self._live_report.report else []
        total = len(self._lesson.checks) if self._lesson else 0
        marks = "".join(terminal.SYMBOL[result.outcome] for result in results) + "·" * (total - len(results))
        running = self._live_report.running if self._live_report else "starting …"
        self.out.file.write("\r\x1b[K" + _fit(f"  {marks}  {running}", self.out.width - 1))
        self.out.file.flush()

    def _keys(self) -> None:
        for row in self._key_rows():
            self.out.print(row, style="dim", soft_wrap=True)

    def _key_rows(self) -> list[str]:
        """The keys, in as many rows as the width needs."""
        rows = [""]
        for key in KEYS.split(" · "):
            longer = f"{rows[-1]} · {key}" if rows[-1] else key
            if len(longer) <= self.out.width or not rows[-1]:
                rows[-1] = longer
            else:
                rows.append(key)
        return rows


def _fit(text: str, width: int) -> str:
    """The text, or its first words."""
    return text if len(text) <= width else text[: width - 1].rsplit(" ", 1)[0] + "…"
