"""What is known while a lesson is graded, and how it becomes a report."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from checks.kit import catalogue
from checks.kit.catalogue import ROOT
from checks.kit.progress import Progress
from checks.kit.report.model import STUMBLED, Crossing, Finding, Outcome, Refuted, Report, Result
from checks.kit.report.places import places, tail
from checks.kit.run import Run
from checks.kit.service import AppDidNotStart, NoAnswer, UnexpectedAnswer
from checks.kit.stage import Stage
from checks.kit.targets import lesson_folder, shown

if TYPE_CHECKING:
    from checks.kit.live import Sender
    from checks.kit.wire import Recording


MOST_CROSSINGS, LONGEST_TEXT = 2_000, 2_000
"""Statements of a verdict, and characters of one or of what happened: whoever writes them may have no measure."""


class Grading:
    """Collects results, one check at a time; `lesson`, `folder` and `result` are those of the running check."""

    def __init__(self) -> None:
        self.run = Run()
        self.target = ROOT / "lessons"
        self.report_json: str | None = None
        self.live: Sender | None = None
        self.reports: dict[int, Report] = {}
        self.next_item: pytest.Item | None = None
        self.stage: Stage | None = None
        self._waiting: tuple[pytest.Item, Stage] | None = None
        self._clearing: list[asyncio.Future[None]] = []
        self._no_start: dict[int, str] = {}
        self._progress = Progress()
        self._pid = os.getpid()

    def begin(self, lesson: str, item: pytest.Item) -> None:
        self.lesson = catalogue.lesson(lesson)
        self.folder = lesson_folder(self.target, self.lesson)
        self.stage = None
        self.result = Result(name=item.name, title=_title(item))
        number = self.lesson.number
        if number not in self.reports:
            notebook = shown(self.lesson.notebook) if self.lesson.notebook.is_file() else ""
            self.reports[number] = Report(number, self.lesson.title, shown(self.folder), notebook)
            if self.live:
                self.live.lesson(self.reports[number])
        if self.live:
            self.live.check(self.result)

    def stage_for(self, item: pytest.Item) -> Stage:
        """The stage that was being set for this check, or a new one."""
        waiting, self._waiting = self._waiting, None
        if waiting is not None and waiting[0] is item:
            stage = waiting[1]
        else:
            stage = self._set_stage(item)
            self._cast_off(waiting)
        self.stage = stage
        self.result.did = stage.did
        return stage

    def note_server(self) -> None:
        """The report names the server as soon as there is one; nothing waits for it."""
        if not self.report.postgres:
            self.report.postgres = self.run.server().summary
            if self.live:
                self.live.lesson(self.report)

    def set_next(self) -> None:
        """Begins to set the stage of the next check, unless what it needs has failed already."""
        if self.next_item is not None and not self.startup_failure():
            self._waiting = self.next_item, self._set_stage(self.next_item)

    def _set_stage(self, item: pytest.Item) -> Stage:
        lesson = catalogue.lesson(item.path.parent.name)
        stage = Stage(self.run, lesson, lesson_folder(self.target, lesson))
        stage.set(with_app="app" in getattr(item, "fixturenames", ()))
        return stage

    def _cast_off(self, waiting: tuple[pytest.Item, Stage] | None) -> None:
        if waiting is not None:
            self._clearing.append(asyncio.ensure_future(waiting[1].clear()))

    async def clear(self) -> None:
        """Clears stages that were set for checks that did not run after all."""
        self._cast_off(self._waiting)
        await asyncio.gather(*self._clearing)

    @property
    def report(self) -> Report:
        """The running lesson's report."""
        return self.reports[self.lesson.number]

    def not_passed(self, name: str) -> str:
        """The title of the needed check if it did not pass; empty if it did, or is not part of this run."""
        for result in self.reports[self.lesson.number].results:
            if result.name == name and result.outcome is not Outcome.PASSED:
                return result.title
        return ""

    def startup_failure(self) -> str:
        return self._no_start.get(self.lesson.number, "")

    def record(self, call: pytest.CallInfo[None]) -> None:
        """Turns what pytest saw of one phase of a check into our result."""
        result = self.result
        result.seconds += call.duration
        if call.excinfo is None or result.outcome is not Outcome.PASSED:
            return
        error = call.excinfo.value
        if isinstance(error, pytest.skip.Exception):
            result.outcome = Outcome.BLOCKED
            result.blocked_by = str(error.msg)
            return
        result.outcome = Outcome.FAILED
        finding = explain(error)
        result.finding = replace(finding, happened=finding.happened[:LONGEST_TEXT])
        if isinstance(error, AppDidNotStart):
            self._no_start[self.lesson.number] = "an app that starts"
        app = self.stage.app if self.stage else None
        printed = app.log if app else self.stage.printed if self.stage else ""
        log = error.log if isinstance(error, AppDidNotStart) else printed
        result.places = places(log, self.folder, ROOT)
        if not result.places or isinstance(error, AppDidNotStart):
            result.log = tail(log, ROOT)
        result.wire = crossings(self.stage.seen) if self.stage else []

    def text(self, error: BaseException) -> str:
        """What JUnit and pytest's own output say about a failed check."""
        finding = explain(error)
        return f"{finding.happened}\n\n{finding.because}"

    def keep(self) -> None:
        """The check has come to its end: into the report and, for the learner's own code, onto the map."""
        self.report.results.append(self.result)
        if self.live:
            self.live.result(self.result)
        if self.folder == self.lesson.folder:
            with contextlib.suppress(OSError):  # the map can be late; the verdict is what counts
                self._progress.record(self.lesson.name, self.result.name, self.result.outcome)

    def write_json(self) -> None:
        if self.report_json:
            text = json.dumps([report.to_dict() for report in self.reports.values()], indent=2, ensure_ascii=False)
            Path(self.report_json).write_text(text + "\n", encoding="utf-8")

    def close(self) -> None:
        if os.getpid() == self._pid:
            self.run.close()


def explain(error: BaseException) -> Finding:
    """A finding for whatever ended a check."""
    from checks.kit.wire import NeverArrived, NotSettled

    if isinstance(error, Refuted):
        return error.finding
    if isinstance(error, AppDidNotStart):
        return Finding(str(error), "Every other check needs a running app. The log below says what stopped it.")
    if isinstance(error, NoAnswer):
        return Finding(
            str(error), "A client that waits for ever is a client that is lost: find what the app waits for."
        )
    if isinstance(error, UnexpectedAnswer):
        return Finding(str(error), "The ticket says what this endpoint answers; other services read these fields.")
    if isinstance(error, NeverArrived):
        return Finding(str(error), "The check waits for this on the wire, and the app did something else instead.")
    if isinstance(error, NotSettled):
        return Finding(
            str(error),
            "A transaction that stays open keeps its locks and its connection, long after the client has gone.",
        )
    if isinstance(error, TimeoutError):
        return Finding("The check did not come to an end within a minute.", "Find what the app waits for.")
    return Finding(
        f"{STUMBLED}: {type(error).__name__}: {error}",
        "This is a fault of the check or of the machine, not of your code. Please report it with the lines above.",
    )


def crossings(seen: Recording | None) -> list[Crossing]:
    """The recorded statements for a reader: without the driver's own, connections counted from 1."""
    numbers: dict[int, int] = {}
    shown = []
    for statement in (seen.story if seen else [])[-MOST_CROSSINGS:]:
        number = numbers.setdefault(statement.connection, len(numbers) + 1)
        if statement.error:
            result = statement.error.message
        elif statement.finished is None:
            result = "no answer yet"
        else:
            result = f"{statement.rows} rows" if statement.rows else "ok"
        text = " ".join(statement.text[: 2 * LONGEST_TEXT].split())
        shown.append(Crossing(number, text[:LONGEST_TEXT], result[:LONGEST_TEXT]))
    return shown


def _title(item: pytest.Item) -> str:
    function = getattr(item, "function", None)
    return catalogue.sentence(getattr(function, "__doc__", None) or item.name)
