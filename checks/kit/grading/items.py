"""What pytest collects in a lesson's checks."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

import pytest

from checks.kit.lessons.lesson import find_lesson
from checks.kit.report.model import Outcome, Result
from checks.kit.testbed import fixtures


class CheckItem(pytest.Item):
    """A check in pytest's session. The grading runs it, and sets `result` before pytest asks how it went."""

    def __init__(self, *, check: fixtures.Check, **options: Any) -> None:
        super().__init__(**options)
        self.check = check
        self.result: Result | None = None
        self.own_markers.extend(getattr(check, "pytestmark", ()))

    @property
    def needs(self) -> list[str]:
        """The names of the checks without which this one says nothing."""
        return [name for mark in self.iter_markers("needs") for name in mark.args]

    def setup(self) -> None:
        """What ends here is neither passed nor failed for pytest: skipped, or in JUnit's words an error."""
        if self.result is None:
            pytest.exit("Name the lessons to be graded: pytest checks/lesson_00", pytest.ExitCode.USAGE_ERROR)
        if self.result.outcome is Outcome.BLOCKED:
            pytest.skip(self.result.blocked_by)
        if self.result.outcome is Outcome.ERROR:
            pytest.fail(_text(self.result), pytrace=False)

    def runtest(self) -> None:
        assert self.result is not None
        if self.result.outcome is Outcome.FAILED:
            pytest.fail(_text(self.result), pytrace=False)

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """The finding alone, for JUnit: no source of the check, no traceback."""
        if isinstance(excinfo.value, pytest.fail.Exception):
            return excinfo.value.msg
        return super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Any, int, str]:
        """Where an editor shows the result: the file and the line, counted from 0."""
        return self.path, self.check.__code__.co_firstlineno - 1, self.name


class CheckModule(pytest.Module):
    """A file of checks: coroutine functions whose names begin with `test_` and whose parameters are fixtures."""

    def collect(self) -> Iterable[CheckItem]:
        for name, check in vars(self.obj).items():
            if name.startswith("test_"):
                if not asyncio.iscoroutinefunction(check):
                    raise self.CollectError(f"{name} is not a check: write async def {name}(app).")
                try:
                    fixtures.order(check, fixtures.of_lesson(self.path.parent.name))
                except fixtures.FixtureError as error:
                    raise self.CollectError(str(error)) from None
                yield self._item(name, check)

    def _item(self, name: str, check: fixtures.Check) -> CheckItem:
        item: CheckItem = CheckItem.from_parent(self, name=name, check=check)
        for needed in item.needs:
            if needed not in find_lesson(self.path.parent.name).titles:
                raise self.CollectError(f"{name} needs {needed}, which is not a check of this lesson.")
        return item


def _text(result: Result) -> str:
    return f"{result.finding.happened}\n\n{result.finding.because}" if result.finding else ""
