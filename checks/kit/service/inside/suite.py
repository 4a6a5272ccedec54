"""Runs inside the process of a learner's test suite: decides the order of its tests, and notes the outcome of each.

A plugin of pytest: `python -m pytest -p checks.kit.service.inside.suite --kit-order=reversed tests`. What it notes goes
to the process's own standard output, past pytest's capture: lines that begin with MARK and go on with JSON.
"""

from __future__ import annotations

import json
import os
import random
import socket
from collections.abc import Generator
from typing import Any

import pytest

MARK = "\x1e"
"""Begins a line for the kit."""

MAX_TEXT = 4000
"""Characters of a failure that the kit gets to see."""

outside: list[int] = []
"""A descriptor of what standard output was before pytest began to capture it."""


def pytest_addoption(parser: pytest.Parser) -> None:
    outside.append(os.dup(1))  # pytest has not begun to capture yet
    group = parser.getgroup("kit")
    group.addoption("--kit-order", default="", help="reversed or shuffled:SEED")
    group.addoption("--kit-first", action="append", default=[], help="a test to run before all others")
    group.addoption("--kit-stop", action="store_true", help="end at the first test that fails")
    group.addoption("--kit-distrust", action="append", default=[], help="a test at which --kit-stop does not end")
    group.addoption("--kit-meet", default="", help="NAME@HOST:PORT: who lets each test go on")


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Suite(config), "kit-suite")


class Suite:
    """The hooks, as a plugin of its own that knows its options."""

    def __init__(self, config: pytest.Config) -> None:
        self._order: str = config.getoption("--kit-order")
        self._first: list[str] = config.getoption("--kit-first")
        self._stop: bool = config.getoption("--kit-stop")
        self._distrusted: list[str] = config.getoption("--kit-distrust")
        self._meeting = _meeting(config.getoption("--kit-meet"))

    def note(self, **what: object) -> None:
        """Writes a line for the kit."""
        line = f"\n{MARK}{json.dumps(what)}\n"
        os.write(outside[-1], line.encode())

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.note(event="not collected", test=report.nodeid, text=str(report.longrepr)[-MAX_TEXT:])

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        place = {test: number for number, test in enumerate(self._first)}
        items.sort(key=lambda item: place.get(item.nodeid, len(place)))

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self.note(event="collected", tests=[item.nodeid for item in session.items])

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self.note(event="begin", test=nodeid)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        report = yield
        states = False
        if report.when == "call" or report.outcome != "passed":
            states = call.excinfo is not None and call.excinfo.errisinstance((AssertionError, pytest.fail.Exception))
            crash = getattr(report.longrepr, "reprcrash", None)
            self.note(
                event=report.when,
                test=report.nodeid,
                outcome=report.outcome,
                states=states,
                line=crash.message.splitlines()[0] if crash and crash.message else "",
                text=report.longreprtext[-MAX_TEXT:] if report.failed else "",
            )
        if self._stop and report.failed and (report.when == "call" or states) and item.nodeid not in self._distrusted:
            item.session.shouldstop = "a test has failed"
        return report

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None, None, None]:
        """Waits where runs meet: the fixtures of this test are there, so the other run finds what they have made."""
        if self._meeting:
            name, other = self._meeting
            here, of = item.session.items.index(item), len(item.session.items)
            try:
                other.sendall(f"{name} {here} {of}\n".encode())
                go_on = other.recv(1)
            except OSError:
                go_on = b""
            if not go_on:  # nobody is there any more
                self._meeting = None
        yield

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> None:
        """Puts the tests into the order that was asked for, whatever the suite itself has done to it."""
        kind, _, seed = self._order.partition(":")
        if kind == "reversed":
            session.items.reverse()
        elif kind == "shuffled":
            random.Random(int(seed)).shuffle(session.items)

    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        self.note(event="finished", code=int(exitstatus))


def _meeting(option: str) -> tuple[str, socket.socket] | None:
    """This run's name, and a connection to where it meets another one."""
    if not option:
        return None
    name, _, address = option.partition("@")
    host, _, port = address.rpartition(":")
    return name, socket.create_connection((host, int(port)))


def notes_of(log: str) -> tuple[list[dict[str, Any]], str]:
    """What the plugin has noted in a log, and the rest of it."""
    notes, rest = [], []
    for line in log.split("\n"):  # splitlines() would end a line at MARK
        if line.startswith(MARK):
            try:
                notes.append(json.loads(line[1:]))
            except ValueError:  # the process was killed in the middle
                continue
        elif line.strip():
            rest.append(line)
    return notes, "\n".join(rest)
