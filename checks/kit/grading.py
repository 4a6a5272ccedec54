"""What is known while a lesson is graded, and how it becomes a report."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from checks.kit import catalogue
from checks.kit.catalogue import ROOT
from checks.kit.play import Played, begun, explain, fail
from checks.kit.programme import Programme, check_of, needs
from checks.kit.progress import Progress
from checks.kit.report.model import Outcome, Report
from checks.kit.run import Run
from checks.kit.service import AppDidNotStart
from checks.kit.targets import lesson_folder, shown

if TYPE_CHECKING:
    from checks.kit.live import Sender


class Grading:
    """Collects results, one check at a time; `lesson`, `folder` and `result` are those of the running check."""

    def __init__(self) -> None:
        self.run = Run()
        self.target = ROOT / "lessons"
        self.report_json: str | None = None
        self.live: Sender | None = None
        self.reports: dict[int, Report] = {}
        self._loop = asyncio.Runner()
        self._programme: Programme | None = None
        self._no_start: set[int] = set()
        self._progress = Progress()
        self._pid = os.getpid()

    def begin(self, lesson: str, item: pytest.Item) -> None:
        self.lesson = catalogue.lesson(lesson)
        self.folder = lesson_folder(self.target, self.lesson)
        self.result = begun(check_of(item))
        number = self.lesson.number
        if number not in self.reports:
            notebook = shown(self.lesson.notebook) if self.lesson.notebook.is_file() else ""
            self.reports[number] = Report(number, self.lesson.title, shown(self.folder), notebook)
            if self.live:
                self.live.lesson(self.reports[number])
        if self.live:
            self.live.check(self.result)

    def turn(self, item: pytest.Item) -> None:
        """The running check's result. Raises what ended the check, and PostgresUnavailable."""
        played = self._loop.run(self._played(item))
        self.result = played.result
        self._note_server()
        if isinstance(played.error, AppDidNotStart):
            self._no_start.add(self.lesson.number)
        if played.error is not None:
            raise played.error

    def _note_server(self) -> None:
        if not self.report.postgres:
            self.report.postgres = self.run.server().summary
            if self.live:
                self.live.lesson(self.report)

    async def _played(self, item: pytest.Item) -> Played:
        if self._programme is None:
            self._programme = Programme(item.session.items, self.run, self.target)
        return await self._programme.played(item)

    @property
    def report(self) -> Report:
        """The running lesson's report."""
        return self.reports[self.lesson.number]

    def blocker(self, item: pytest.Item) -> str:
        """What this check waits for in vain; empty if it can be played. What is not part of this run blocks nothing."""
        for result in self.report.results:
            if result.name in needs(item) and result.outcome is not Outcome.PASSED:
                return result.title
        return "an app that starts" if self.lesson.number in self._no_start else ""

    def record(self, call: pytest.CallInfo[None]) -> None:
        """Takes in what pytest saw of one phase of a check; what ended the check itself is known already."""
        if call.excinfo is None or self.result.outcome is not Outcome.PASSED:
            return
        error = call.excinfo.value
        if isinstance(error, pytest.skip.Exception):
            self.result.outcome = Outcome.BLOCKED
            self.result.blocked_by = str(error.msg)
        else:
            fail(self.result, error)

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
        """Ends what was played for nothing after all, and lets go of everything."""
        if os.getpid() != self._pid:
            return
        # the requests of a check that was interrupted fail with its app, and nobody waits for them any more
        self._loop.get_loop().set_exception_handler(lambda loop, context: None)
        try:
            self._loop.run(self._clear())
        finally:
            self._loop.close()
            self.run.close()

    async def _clear(self) -> None:
        if self._programme is not None:
            await self._programme.close()
        await self.run.aclose()
