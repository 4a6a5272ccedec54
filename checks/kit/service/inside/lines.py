"""Runs inside the process of a learner's test suite: notes which lines of the app each test executes.

A plugin of pytest, for `python -m pytest -p checks.kit.service.inside.suite -p checks.kit.service.inside.lines tests`.
Lines count as in other tools: those that Python's compiler knows, of all files below `app/`, imports and all.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Generator
from inspect import CO_OPTIMIZED
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import pytest

from checks.kit.service.inside.suite import Suite

Line = tuple[str, int]


class Lines:
    """The hooks. `_ran` are the lines of functions since the last note, `_imported` those of modules and classes."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._below = f"{Path.cwd() / 'app'}/"
        self._numbers = {line: number for number, line in enumerate(_all_lines(Path.cwd() / "app", self._below))}
        self._ran: set[Line] = set()
        self._imported: set[Line] = set()
        self._files: dict[str, str] = {}
        sys.settrace(self._called)

    def _called(self, frame: FrameType, event: str, _: object) -> Any:
        name = frame.f_code.co_filename
        if name not in self._files:  # a path such as tests/../app/main.py, where pytest.ini says `pythonpath = ..`
            plain = os.path.normpath(name)
            self._files[name] = plain[len(self._below) :] if plain.startswith(self._below) else ""
        file, ran = self._files[name], self._ran if frame.f_code.co_flags & CO_OPTIMIZED else self._imported
        if not file:
            return None

        def line(frame: FrameType, event: str, _: object) -> Any:
            if event == "line":
                ran.add((file, frame.f_lineno))
            return line

        ran.add((file, frame.f_lineno))
        return line

    def _note(self, test: str, ran: set[Line]) -> None:
        suite = self._config.pluginmanager.get_plugin("kit-suite")
        assert isinstance(suite, Suite)
        known = sorted(self._numbers[line] for line in ran if line in self._numbers)
        suite.note(event="lines", test=test, lines=known, total=len(self._numbers))
        ran.clear()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, bool | None, bool | None]:
        done = yield
        self._note("imports", self._imported)
        self._note(item.nodeid, self._ran)
        return done


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> None:
    """Before pytest_configure, for a conftest.py may import the app."""
    early_config.pluginmanager.register(Lines(early_config), "kit-lines")


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
