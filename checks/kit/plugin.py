"""The pytest plugin: whose code is graded, how its checks are played, the verdict at the end.

PYTEST_DONT_REWRITE
"""

from __future__ import annotations

import gc
import sys

from checks.kit import head_start

if head_start.grades(sys.argv[1:]):
    head_start.begin()  # the slowest thing first: it goes on while everything below is imported
    gc.disable()  # imports throw nothing away; back on behind the first check, before which the last ones happen

import asyncio
import errno
import functools
from collections.abc import Callable, Generator, Iterable
from pathlib import Path

import pytest

from checks.kit import catalogue, parts
from checks.kit.grading import Grading
from checks.kit.postgres.errors import PostgresUnavailable
from checks.kit.programme import lesson_name
from checks.kit.targets import find_target

grading_key = pytest.StashKey[Grading]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("workbook", "the Bookshop workbook")
    group.addoption(
        "--target",
        default="lessons",
        metavar="lessons|solutions|DIR",
        help="whose code is graded: yours under lessons/ (default), the solutions, or a folder of your own "
        "(one lesson, or a folder with lesson_NN folders in it)",
    )
    group.addoption("--report-json", metavar="FILE", help="write the verdicts as JSON to FILE")
    group.addoption(
        "--live", metavar="ADDRESS", help="tell each verdict at once to ADDRESS: a Unix socket or host:port"
    )


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config, args: list[str]) -> None:
    # as early as pytest lets us: server and warm parent come up while pytest is still importing
    if head_start.grades(args) and not {"--collect-only", "--co", "--help", "-h"} & set(args):
        try:
            early_config.stash[grading_key] = Grading()
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            raise pytest.UsageError("The disk is full. Free some space and run the same command again.") from None


@pytest.hookimpl(trylast=True)  # pytest's own reporter, which ours replaces, must be there
def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "needs(*checks): not run unless these checks of the lesson passed")
    config.addinivalue_line("markers", "alone: measures time, so no other check runs meanwhile")
    config.addinivalue_line("markers", "slow: waits more than it works, so it begins before others")
    if config.option.collectonly or config.option.help:
        return
    grading = config.stash.get(grading_key, None)
    if grading is None:
        return
    try:
        grading.target = find_target(config.option.target)
    except catalogue.CatalogueError as error:
        raise pytest.UsageError(str(error)) from None
    grading.report_json = config.option.report_json
    if config.option.live:
        from checks.kit.live import Sender

        grading.live = Sender(config.option.live)
    from checks.kit.verdicts import Verdicts

    reporter = config.pluginmanager.get_plugin("terminalreporter")
    config.pluginmanager.unregister(reporter)
    config.pluginmanager.register(Verdicts(config, grading), "terminalreporter")


def pytest_unconfigure(config: pytest.Config) -> None:
    if grading := config.stash.get(grading_key, None):
        grading.close()


class Checks(pytest.Module):
    """The checks of a lesson. What pytest calls instead of each is whoever knows how it went."""

    def collect(self) -> Iterable[pytest.Item | pytest.Collector]:
        for name, check in list(vars(self.obj).items()):
            if name.startswith("test_"):
                if not asyncio.iscoroutinefunction(check):
                    raise self.CollectError(f"{name} is no check: write async def {name}(app).")
                try:
                    parts.names(check)
                except parts.UnknownPart as error:
                    raise self.CollectError(str(error)) from None
                setattr(self.obj, name, _in_turn(check))
        return super().collect()


def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> Checks | None:
    return Checks.from_parent(parent, path=module_path) if lesson_name(module_path) else None


def _in_turn(check: parts.Check) -> Callable[[pytest.FixtureRequest], None]:
    @functools.wraps(check)
    def turn(request: pytest.FixtureRequest) -> None:
        grading = request.config.stash.get(grading_key, None)
        if grading is None:
            pytest.exit(
                "Name the lessons to be graded: pytest checks/lesson_00", returncode=pytest.ExitCode.USAGE_ERROR
            )
        try:
            grading.turn(request.node)
        except PostgresUnavailable as error:
            pytest.exit(str(error), returncode=pytest.ExitCode.USAGE_ERROR)

    del turn.__wrapped__  # or pytest takes the check's parameters for fixtures
    turn.check = check  # type: ignore[attr-defined]
    return turn


def pytest_runtest_teardown() -> None:
    if not gc.isenabled():
        gc.freeze()
        gc.enable()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    grading = item.config.stash.get(grading_key, None)
    lesson = lesson_name(item.path)
    if grading is None or lesson is None:
        return
    grading.begin(lesson, item)
    # the verdict is ours to tell; pytest's own would parse sources and quote the check's code
    item.repr_failure = lambda excinfo, style=None: grading.text(excinfo.value)  # type: ignore[method-assign]
    if blocker := grading.blocker(item):
        pytest.skip(blocker)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    grading = item.config.stash.get(grading_key, None)
    if grading is not None and lesson_name(item.path):
        grading.record(call)
        report.duration = grading.result.seconds if call.when == "call" else 0.0  # it was played ahead
    return report
