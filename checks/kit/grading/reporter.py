"""pytest's terminal reporter while lessons are graded: one line a check, the verdicts, what to open next."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import AbstractContextManager

import pytest
from _pytest.terminal import TerminalReporter

from checks.kit.grading.items import CheckItem
from checks.kit.grading.session import Grading
from checks.kit.lessons.paths import ROOT
from checks.kit.lessons.targets import lesson_name
from checks.kit.report import terminal
from checks.kit.report.model import Report, Result
from checks.kit.report.next_step import next_step


class LessonReporter(TerminalReporter):  # type: ignore[misc]  # final for types; nothing public prints less
    """What is not about checks (other tests, collection errors, usage, internal errors) stays as pytest shows it."""

    def __init__(self, config: pytest.Config, grading: Grading) -> None:
        super().__init__(config)
        self._grading = grading
        self._out = terminal.console(self._tw._file)
        self._shown: Report | None = None
        self._other_tests = False

    def waiting(self, result: Result) -> AbstractContextManager[None]:
        """While the block lasts, a terminal says which check is waited for."""
        return terminal.under_way(self._out, result)

    @property
    def showheader(self) -> bool:
        return False

    def pytest_collection(self) -> None:
        return

    def report_collect(self, final: bool = False) -> None:
        return

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        done = yield
        if isinstance(item, CheckItem) and item.result is not None:
            report = self._grading.report_of(item)
            if report is not self._shown:
                self._shown = report
                terminal.header(self._out, report)
            terminal.line(self._out, item.result)
        return done

    def pytest_runtest_logstart(self, nodeid: str, location: tuple[str, int | None, str]) -> None:
        if not _is_check(nodeid):
            super().pytest_runtest_logstart(nodeid, location)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if _is_check(report.nodeid):  # its line is printed above; editors learn of results from this hook
            self.config.hook.pytest_report_teststatus(report=report, config=self.config)
            return
        self._other_tests = True
        super().pytest_runtest_logreport(report)

    def summary_failures(self) -> None:
        for report in self._grading.reports.values():
            terminal.verdicts(self._out, report, in_full=self.verbosity > 0)
        super().summary_failures()  # of what is not a check; their reports are nowhere in self.stats

    def pytest_keyboard_interrupt(self, excinfo: pytest.ExceptionInfo[BaseException]) -> None:
        if isinstance(excinfo.value, pytest.exit.Exception):
            self._out.print(f"{excinfo.value.msg}", style="bold red", soft_wrap=True)
        elif not isinstance(excinfo.value, pytest.Session.Interrupted):  # checks that cannot be collected say so below
            self._out.print("\nInterrupted. What ran so far is kept; run the same command again.", style="bold")

    def _report_keyboardinterrupt(self) -> None:
        return

    def short_test_summary(self) -> None:
        return

    def summary_stats(self) -> None:
        for report in self._grading.reports.values():
            if report.results:
                terminal.summary(self._out, report, next_step(report))
        if self._other_tests or not self._grading.reports:
            super().summary_stats()


def _is_check(nodeid: str) -> bool:
    return lesson_name(ROOT / nodeid.partition("::")[0]) is not None
