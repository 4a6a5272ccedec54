"""The page of one lesson while it is graded: it hears the same events as the terminal, and draws them as regions."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from checks.kit.lessons.compare import difference_to_solution
from checks.kit.lessons.errors import WorkbookError
from checks.kit.lessons.hints import give_hint
from checks.kit.lessons.lesson import CheckEntry, Lesson, all_lessons, find_lesson
from checks.kit.lessons.progress import Progress
from checks.kit.report.live import LiveReport
from checks.kit.report.model import Outcome, Report, Result
from checks.kit.report.next_step import next_step
from checks.kit.view.overview import rows
from checks.kit.view.regions import Regions
from checks.kit.view.render import render
from checks.kit.view.ticket import ticket
from checks.kit.view.verdict import Verdict


@dataclass(frozen=True, slots=True)
class Ask:
    """What the buttons of the page ask of the command: to grade again, or to go to another lesson."""

    grade: Callable[[], None]
    open: Callable[[Lesson], None]


class Board:
    """Keeps the regions. A check shows its last result until the next one is known, so that a verdict can be read."""

    def __init__(self, regions: Regions, ask: Ask) -> None:
        self._regions = regions
        self._ask = ask
        self._lesson: Lesson | None = None
        self._following: Lesson | None = None
        self._report: Report | None = None
        self._running = ""
        self._results: dict[str, Result] = {}
        self._old: set[str] = set()
        """The checks whose result is from the run before."""
        self._were_green: Collection[str] = ()
        self._notice = self._broken = ""
        self._ended = False

    @property
    def lesson(self) -> Lesson | None:
        """The lesson that is shown; None before the first grading."""
        return self._lesson

    def begins(self, lesson: Lesson, were_green: Collection[str]) -> None:
        if self._ended:
            self._notice = ""
        self._ended, self._broken, self._report, self._running = False, "", None, ""
        self._were_green = were_green
        if self._lesson is None or self._lesson.name != lesson.name:
            self._results = {}
            self._regions.drop("check:")
        self._old = set(self._results)
        self._lesson = lesson
        self._following = next((one for one in all_lessons() if one.number > lesson.number), None)
        self._regions.set("ticket", ticket(lesson))
        self._regions.set("checks", render("checks.html", lesson=lesson))
        for entry in lesson.checks:
            self._show(entry, again=True)
        self._show_rest()

    def check(self, live_report: LiveReport) -> None:
        before, self._running = self._running, live_report.running
        self._report = live_report.report
        for entry in self._lesson.checks if self._lesson else ():
            if self._title(entry) in (before, self._running):
                self._show(entry)
        self._show_head()

    def result(self, live_report: LiveReport, result: Result) -> None:
        before = self._results.get(result.name)
        self._report, self._running = live_report.report, live_report.running
        self._results[result.name] = result
        self._old.discard(result.name)
        entry = self._lesson.check(result.name) if self._lesson else None
        if entry is not None:
            self._show(entry)
        if before is not None and before.outcome.is_red and result.outcome is Outcome.PASSED:
            self._say(f"Now passes: {result.title}")
        self._show_head()

    def ended(self, live_report: LiveReport) -> None:
        self._report, self._running, self._ended = live_report.report, "", True
        for entry in self._lesson.checks if self._lesson else ():
            self._show(entry)
        self._show_rest()
        if self._report is not None:
            self._say(f"Lesson {self._report.lesson}: {self._report.tally()}")

    def broke(self, text: str) -> None:
        self._broken = text
        self._show_head()
        self._say("The checks did not run.")

    def notice(self, sentence: str) -> None:
        self._notice = sentence
        self._show_head()
        self._say(sentence)

    def act(self, action: str) -> bool:
        """Does what a button asks for: `run`, `lesson/3`, `hint/test_x`; False if there is no such thing."""
        what, _, which = action.partition("/")
        if what == "run":
            self._ask.grade()
        elif what == "lesson":
            try:
                self._ask.open(find_lesson(which))
            except WorkbookError:
                return False
        elif what == "hint" and self._lesson is not None and which in self._lesson.hints:
            give_hint(self._lesson, which, Progress())
            self.progressed()
        else:
            return False
        return True

    def progressed(self) -> None:
        """Shows what the learner has reached, from its file: another command may have given a hint."""
        for entry in self._lesson.checks if self._lesson else ():
            self._show(entry)
        self._show_rest()

    def _title(self, entry: CheckEntry) -> str:
        return self._lesson.titles.get(entry.name, entry.name) if self._lesson else entry.name

    def _show(self, entry: CheckEntry, *, again: bool = False) -> None:
        assert self._lesson is not None
        result = self._results.get(entry.name)
        red = [name for name in (each.name for each in self._lesson.checks) if self._is_red(name)]
        verdict = Verdict(
            lesson=self._lesson,
            name=entry.name,
            title=self._title(entry),
            result=result,
            old=entry.name in self._old,
            running=self._running == self._title(entry),
            was_green=entry.name in self._were_green,
            first=red[:1] == [entry.name],
            notebook=self._report.notebook if self._report else "",
            hints_had=Progress().hints(self._lesson.name, entry.name),
        )
        self._regions.set(f"check:{entry.name}", render("check.html", verdict=verdict), again=again)

    def _is_red(self, name: str) -> bool:
        return name in self._results and self._results[name].outcome.is_red

    def _show_rest(self) -> None:
        assert self._lesson is not None
        self._regions.set("map", render("map.html", rows=rows(Progress()), here=self._lesson))
        self._show_solution()
        self._show_head()

    def _show_solution(self) -> None:
        assert self._lesson is not None
        try:
            lines, why = list(difference_to_solution(self._lesson)), ""
        except WorkbookError as error:
            lines, why = [], str(error)
        if why and self._lesson.solution.is_dir():
            why = "The difference to the solution is shown here when the lesson passes."
        self._regions.set("solution", render("solution.html", lines=lines, why=why))

    def _show_head(self) -> None:
        if self._lesson is None:
            return
        outcomes = [self._results[entry.name].outcome for entry in self._lesson.checks if entry.name in self._results]
        head = render(
            "head.html",
            lesson=self._lesson,
            report=self._report,
            outcomes=outcomes,
            passed=sum(outcome is Outcome.PASSED for outcome in outcomes),
            ended=self._ended,
            running=self._running,
            notice=self._notice,
            broken=self._broken,
            next_step=next_step(self._report) if self._report and self._ended else "",
            following=self._following,
        )
        self._regions.set("head", head)

    def _say(self, sentence: str) -> None:
        """For screen readers, which read this region aloud when it changes."""
        self._regions.set("said", render("said.html", sentence=sentence))
