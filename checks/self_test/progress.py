"""How far the tests are and how long they still take: a line for each file, a status line while tests run.

Takes the place of pytest's dots. What each test took is kept in pytest's cache (under .workbook) and is the estimate
of the next run; DEFAULTS are for the first one. With `-v` and `-q` pytest's own output stays as it is.
"""

from __future__ import annotations

import os
import shutil
import sys
import threading
import time
from collections import Counter
from collections.abc import Generator

import pytest

CACHE = "workbook/durations"
DEFAULTS = {
    "test_attacks": 12.0,
    "test_browser": 40.0,
    "test_grade": 15.0,
    "test_lessons": 12.0,
    "test_notebooks": 10.0,
    "test_watch": 6.0,
}
"""Seconds that a test of these files takes on two quiet cores; of any other file, one second."""
TRUST = 30.0
"""Seconds of tests after which the speed of this run counts as much for the estimate as the speed of the last one."""
SILENCE = 30.0
"""Seconds without a line, where nothing may move, after which the status is printed as a line."""


ERASE = "\r\x1b[2K"


class Progress:
    """A plugin for one run of pytest; it begins to speak when the tests do."""

    def __init__(self, config: pytest.Config) -> None:
        self._reporter = config.pluginmanager.get_plugin("terminalreporter")
        self._reporter.showfspath = False
        self._moves = self._reporter.isatty() and not os.environ.get("WORKBOOK_PLAIN")
        # while a test runs, what is written to standard output is captured
        self._out = os.fdopen(os.dup(sys.stdout.fileno()), "w")
        self._cache = getattr(config, "cache", None)
        self._expected: dict[str, float] = {}
        self._took: dict[str, float] = {}
        self._done = 0
        self._hoped = 0.0  # seconds that what is done was expected to take
        self._file = self._test = ""
        self._outcomes: Counter[str] = Counter()
        self._began = self._file_began = self._written = time.monotonic()
        self._writing = threading.Lock()
        self._over = threading.Event()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtestloop(self, session: pytest.Session) -> Generator[None, object, object]:
        known: dict[str, float] = self._cache.get(CACHE, {}) if self._cache else {}
        self._expected = {
            item.nodeid: known.get(item.nodeid, DEFAULTS.get(item.path.stem, 1.0)) for item in session.items
        }
        self._began = self._written = time.monotonic()
        ticker = threading.Thread(target=self._tick, daemon=True)
        ticker.start()
        try:
            return (yield)
        finally:
            self._over.set()
            ticker.join()
            self._end_file()
            if self._moves:
                self._write(ERASE)
            if self._cache:
                self._cache.set(CACHE, known | self._took)

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        file, _, test = nodeid.partition("::")
        if file != self._file:
            self._end_file()
            self._file, self._file_began = file, time.monotonic()
        self._test = test

    @pytest.hookimpl(tryfirst=True)
    def pytest_report_teststatus(self, report: pytest.TestReport) -> tuple[str, str, str] | None:
        """Counted and summarized as always, but without a letter."""
        if hasattr(report, "wasxfail"):
            return None
        if report.passed:
            return ("passed" if report.when == "call" else ""), "", ""
        if report.failed and report.when != "call":
            return "error", "", "ERROR"
        return report.outcome, "", report.outcome.upper()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._took[report.nodeid] = round(self._took.get(report.nodeid, 0.0) + report.duration, 2)
        if report.when == "call" or not report.passed:
            self._outcomes[report.outcome] += 1
        if report.failed:
            self._line(f"FAILED {report.nodeid}")

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        self._done += 1
        self._hoped += self._expected.get(nodeid, 0.0)

    def _end_file(self) -> None:
        if self._outcomes:
            outcomes = ", ".join(f"{count} {outcome}" for outcome, count in self._outcomes.items())
            took = clock(time.monotonic() - self._file_began)
            name = self._file.rpartition("/")[2]
            self._line(f"{name:<28} {took:>5}  {outcomes:<24} {self._status()}")
            self._outcomes.clear()

    def _tick(self) -> None:
        while not self._over.wait(1):
            text = f"{self._status()} · {self._test}"
            if self._moves:
                self._write(ERASE + text[: shutil.get_terminal_size().columns - 1])
            elif time.monotonic() - self._written > SILENCE:
                self._line(text)

    def _status(self) -> str:
        spent = time.monotonic() - self._began
        pace = (spent + TRUST) / (self._hoped + TRUST)
        left = (sum(self._expected.values()) - self._hoped) * pace
        return f"{self._done} of {len(self._expected)} · {clock(spent)} · about {clock(left)} left"

    def _line(self, text: str) -> None:
        self._reporter.flush()
        self._write((ERASE if self._moves else "") + text + "\n")
        self._written = time.monotonic()

    def _write(self, text: str) -> None:
        with self._writing:
            self._out.write(text)
            self._out.flush()


def clock(seconds: float) -> str:
    """Minutes and seconds, such as 3:05."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02}"
