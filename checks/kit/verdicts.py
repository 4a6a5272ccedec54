"""pytest's terminal reporter while a lesson is graded: one line a check, the verdicts, what to open next."""

from __future__ import annotations

from collections.abc import Generator

import pytest
from _pytest.terminal import TerminalReporter

from checks.kit.grading import Grading
from checks.kit.report import terminal
from checks.kit.report.model import Report
from checks.kit.report.next_step import next_step


class Verdicts(TerminalReporter):  # type: ignore[misc]  # final for types; there is no other way to draw less
    """What is not about checks (collection errors, usage, internal errors) stays as pytest shows it."""

    def __init__(self, config: pytest.Config, grading: Grading) -> None:
        super().__init__(config)
        self._grading = grading
        self._out = terminal.console(self._tw._file)
        self._shown: Report | None = None

    @property
    def showheader(self) -> bool:
        return False

    def pytest_collection(self) -> None:
        return

    def report_collect(self, final: bool = False) -> None:
        return

    def pytest_runtest_logstart(self, nodeid: str, location: tuple[str, int | None, str]) -> None:
        return

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self) -> Generator[None]:
        with terminal.under_way(self._out, self._grading.result):
            return (yield)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._tests_ran = True
        if report.when == "call" or not report.passed:
            self._add_stats(report.outcome, [report])

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        report = self._grading.report
        if report is not self._shown:
            self._shown = report
            terminal.header(self._out, report)
        terminal.line(self._out, self._grading.result)
        self._grading.keep()

    def summary_failures(self) -> None:
        for report in self._grading.reports.values():
            terminal.verdicts(self._out, report, in_full=self.verbosity > 0)

    def summary_errors(self) -> None:
        if any(not hasattr(error, "when") or error.when == "collect" for error in self.stats.get("error", [])):
            super().summary_errors()

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
            if not report.results:
                continue
            terminal.summary(self._out, report, next_step(report))
        if not self._grading.reports:
            super().summary_stats()

    @pytest.hookimpl(wrapper=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> Generator[None]:
        self._grading.write_json()
        return (yield from super().pytest_sessionfinish(session, exitstatus))
