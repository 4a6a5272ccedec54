"""pytest's session while lessons are graded: it runs the checks and hands out their results."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from checks.kit.grading.items import CheckItem
from checks.kit.grading.report_file import write_report
from checks.kit.grading.run_check import new_result, run_check
from checks.kit.grading.scheduler import AT_ONCE, ScheduledCheck, Scheduler
from checks.kit.lessons.code_state import code_state
from checks.kit.lessons.errors import WorkbookError
from checks.kit.lessons.lesson import Lesson, find_lesson
from checks.kit.lessons.paths import ROOT, display_path
from checks.kit.lessons.progress import Progress
from checks.kit.lessons.targets import lesson_folder
from checks.kit.postgres.errors import PostgresUnavailable
from checks.kit.report.model import Outcome, Report, Result
from checks.kit.service.launcher import ForkServerEnded
from checks.kit.testbed.runtime import Runtime

if TYPE_CHECKING:
    from checks.kit.report.live import Sender

MAX_NAMES = 15
"""Names of checks in a message; no lesson has more."""


class Grading:
    """A pytest plugin that runs the checks of a session, and keeps a report for each lesson, by its number.

    To be made early: it starts the server and the fork server in the background. `waiting(result)` is entered while
    the check of that empty result is waited for.
    """

    def __init__(self) -> None:
        self.target = ROOT / "lessons"
        self.at_once = AT_ONCE
        self.report_json: str | None = None
        self.live: Sender | None = None
        self.waiting: Callable[[Result], AbstractContextManager[None]] = lambda result: nullcontext()
        self.reports: dict[int, Report] = {}
        self._states: dict[str, str] = {}
        self._runtime = Runtime()
        self._loop = asyncio.Runner()
        self._scheduler: Scheduler | None = None
        self._lessons: dict[str, tuple[Lesson, Path]] = {}
        self._left_out: list[pytest.Item] = []
        self._progress = Progress()
        self._pid = os.getpid()

    def pytest_deselected(self, items: Sequence[pytest.Item]) -> None:
        self._left_out += items

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool | None:
        """pytest's own loop, except that a check has its result before its turn comes."""
        if session.testsfailed or session.config.option.collectonly:
            return None  # pytest's loop knows what to say
        items = session.items
        if not items:
            if self._left_out:
                raise pytest.UsageError(_nothing_selected(session.config, self._left_out))
            return None
        scheduled = self._schedule([item for item in items if isinstance(item, CheckItem)])
        for item, following in zip(items, [*items[1:], None], strict=True):
            if isinstance(item, CheckItem):
                item.result = self._result(item, scheduled[item])
                self._keep(item, item.result)  # before it is printed: what a person has seen is kept
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
            if session.shouldfail:
                raise session.Failed(session.shouldfail)
            if session.shouldstop:
                raise session.Interrupted(session.shouldstop)
        return True

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self.report_json and not write_report(self.report_json, self.reports.values()):
            session.exitstatus = pytest.ExitCode.USAGE_ERROR

    def report_of(self, item: CheckItem) -> Report:
        """The report of the item's lesson; made when the first of its checks is waited for."""
        lesson, folder = self._lesson_of(item)
        if lesson.number not in self.reports:
            notebook = display_path(lesson.notebook) if lesson.notebook.is_file() else ""
            self.reports[lesson.number] = Report(
                lesson.number, lesson.title, display_path(folder), notebook, total=len(lesson.checks)
            )
            if self.live:
                self.live.lesson(self.reports[lesson.number])
        return self.reports[lesson.number]

    def _lesson_of(self, item: CheckItem) -> tuple[Lesson, Path]:
        """The item's lesson, and the folder whose code is graded. Raises WorkbookError."""
        name = item.path.parent.name
        if name not in self._lessons:
            lesson = find_lesson(name)
            self._lessons[name] = lesson, lesson_folder(self.target, lesson)
            self._states[name] = code_state(self._lessons[name][1])
        return self._lessons[name]

    def _schedule(self, items: list[CheckItem]) -> dict[CheckItem, ScheduledCheck]:
        try:
            scheduled = {item: self._scheduled_check(item) for item in items}
            self._scheduler = Scheduler(list(scheduled.values()), self.at_once)
        except WorkbookError as error:
            raise pytest.UsageError(str(error)) from None
        return scheduled

    def _scheduled_check(self, item: CheckItem) -> ScheduledCheck:
        lesson, folder = self._lesson_of(item)
        return ScheduledCheck(
            lesson.name,
            new_result(item.check),
            partial(run_check, item.check, self._runtime, lesson, folder),
            needs=item.needs,
            serial=item.get_closest_marker("serial") is not None,
            start_early=item.get_closest_marker("start_early") is not None,
        )

    def _result(self, item: CheckItem, check: ScheduledCheck) -> Result:
        """Waits for the item's result; the items' results come in their order."""
        assert self._scheduler is not None
        report = self.report_of(item)
        if self.live:
            self.live.check(check.empty)
        try:
            with self.waiting(check.empty):
                result = self._loop.run(self._scheduler.next_result())
            if not report.postgres:
                report.postgres = self._runtime.server().summary
                if self.live:
                    self.live.lesson(report)
        except (PostgresUnavailable, ForkServerEnded) as error:
            pytest.exit(str(error), pytest.ExitCode.USAGE_ERROR)
        return result

    def _keep(self, item: CheckItem, result: Result) -> None:
        """Into the report and, for the learner's own code, into what is known of their progress."""
        lesson, folder = self._lesson_of(item)
        report = self.report_of(item)
        report.results.append(result)
        whole = {entry.name for entry in lesson.checks} <= {result.name for result in report.results}
        if whole and code_state(folder) != self._states[lesson.name]:
            report.changed = True
            if self.live:
                self.live.lesson(report)
        if self.live:
            self.live.result(result)
        if folder != lesson.folder:
            return
        with contextlib.suppress(OSError):  # the map can be late; the verdict is what counts
            # an error says nothing about the learner's code, so what they had reached stays
            if result.outcome is not Outcome.ERROR:
                self._progress.record(lesson.name, result.name, result.outcome)
            if whole and not report.changed and not report.count(Outcome.ERROR):
                self._progress.record_run(lesson.name, {one.name: one.outcome for one in report.results})

    def close(self) -> None:
        """Ends the checks that still run, and lets go of everything."""
        if os.getpid() != self._pid:
            return
        # the requests of a check that was interrupted fail with its app, and nobody waits for them any more
        self._loop.get_loop().set_exception_handler(lambda loop, context: None)
        try:
            self._loop.run(self._clear())
        finally:
            self._loop.close()
            self._runtime.close()

    async def _clear(self) -> None:
        if self._scheduler is not None:
            await self._scheduler.close()
        await self._runtime.aclose()


def _nothing_selected(config: pytest.Config, left_out: Sequence[pytest.Item]) -> str:
    """What to say where the options leave none of these."""
    options = {"-k": config.option.keyword, "-m": config.option.markexpr}
    given = " ".join(f"{name} {value!r}" for name, value in options.items() if value) or "these options"
    rule = ": -k looks at the names of the checks, not at their sentences" if config.option.keyword else ""
    names = "".join(f"\n  {item.name}" for item in left_out[:MAX_NAMES])
    more = f"\n  … and {len(left_out) - MAX_NAMES} more" if len(left_out) > MAX_NAMES else ""
    return (
        f"No check matches {given}{rule}. There are:{names}{more}\n"
        f"To list them: pytest {' '.join(config.args)} --collect-only -q"
    )
