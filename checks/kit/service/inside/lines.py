"""Runs inside the process of a learner's test suite: notes which lines of the app each test executes.

A plugin of pytest, for `python -m pytest -p checks.kit.service.inside.suite -p checks.kit.service.inside.lines tests`.
Lines count as in other tools: those that Python's compiler knows, of all files below `app/`, imports and all.
"""

from __future__ import annotations

import sys
from collections.abc import Generator
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import pytest

from checks.kit.service.inside.suite import Suite

Line = tuple[str, int]


class Lines:
    """The hooks. `_ran` are the lines since the last note."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._below = f"{Path.cwd() / 'app'}/"
        self._numbers = {line: number for number, line in enumerate(_all_lines(Path.cwd() / "app", self._below))}
        self._ran: set[Line] = set()
        sys.settrace(self._called)

    def _called(self, frame: FrameType, event: str, _: object) -> Any:
        name = frame.f_code.co_filename
        if not name.startswith(self._below):
            return None
        file, ran = name[len(self._below) :], self._ran

        def line(frame: FrameType, event: str, _: object) -> Any:
            if event == "line":
                ran.add((file, frame.f_lineno))
            return line

        ran.add((file, frame.f_lineno))
        return line

    def _note(self, test: str) -> None:
        suite = self._config.pluginmanager.get_plugin("kit-suite")
        assert isinstance(suite, Suite)
        known = sorted(self._numbers[line] for line in self._ran if line in self._numbers)
        suite.note(event="lines", test=test, lines=known, total=len(self._numbers))
        self._ran.clear()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, bool | None, bool | None]:
        if self._ran:  # while pytest was collecting
            self._note("imports")
        done = yield
        self._note(item.nodeid)
        return done


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(Lines(config), "kit-lines")


def _all_lines(folder: Path, below: str) -> list[Line]:
    found = []
    for path in sorted(folder.rglob("*.py")):
        code = compile(path.read_bytes(), str(path), "exec")
        found += sorted({(str(path)[len(below) :], line) for line in _lines_of(code)})
    return found


def _lines_of(code: CodeType) -> set[int]:
    lines = {line for _, _, line in code.co_lines() if line}
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            lines |= _lines_of(constant)
    return lines
