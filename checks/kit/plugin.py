"""The pytest plugin: whose code is graded, the fixtures that checks are written with, the verdict at the end.

PYTEST_DONT_REWRITE
"""

from __future__ import annotations

import gc
import sys

from checks.kit import head_start

if head_start.grades(sys.argv[1:]):
    head_start.begin()  # the slowest thing first: it goes on while everything below is imported
    gc.disable()  # imports throw nothing away; back on when the checks are collected

import asyncio
import errno
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from checks.kit import catalogue
from checks.kit.grading import Grading
from checks.kit.targets import find_target

if TYPE_CHECKING:
    from checks.kit.run import Run
    from checks.kit.service import App, Done
    from checks.kit.shop import Shop
    from checks.kit.stage import Stage
    from checks.kit.wire import Wire

CHECK_LIMIT = 60.0
"""Seconds after which a check counts as hung; a bound for failures, not a measurement."""

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


def pytest_pycollect_makeitem(collector: pytest.Collector, name: str, obj: object) -> None:
    """Every asynchronous check gets a time limit, so that an app that hangs cannot hang the grader."""
    if name.startswith("test_") and asyncio.iscoroutinefunction(obj) and catalogue_name(collector.path):
        import functools

        @functools.wraps(obj)
        async def limited(*args: Any, **kwargs: Any) -> None:
            async with asyncio.timeout(CHECK_LIMIT):
                await obj(*args, **kwargs)

        setattr(collector.obj, name, limited)  # type: ignore[attr-defined]


def catalogue_name(path: Path) -> str | None:
    """`lesson_04` for a file below checks/lesson_04, else None."""
    inside = path.relative_to(catalogue.ROOT).parts if path.is_relative_to(catalogue.ROOT) else ()
    return inside[1] if len(inside) > 2 and inside[0] == "checks" and inside[1].startswith("lesson_") else None


def pytest_collection_finish() -> None:
    gc.enable()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    grading = item.config.stash.get(grading_key, None)
    lesson = catalogue_name(item.path)
    if grading is None or lesson is None:
        return
    grading.begin(lesson, item)
    # the verdict is ours to tell; pytest's own would parse sources and quote the check's code
    item.repr_failure = lambda excinfo, style=None: grading.text(excinfo.value)  # type: ignore[method-assign]
    for mark in item.iter_markers("needs"):
        for name in mark.args:
            if blocker := grading.not_passed(name):
                pytest.skip(blocker)
    if blocker := grading.startup_failure():
        pytest.skip(blocker)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    if (grading := item.config.stash.get(grading_key, None)) is not None:
        grading.next_item = nextitem if nextitem is not None and catalogue_name(nextitem.path) else None


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    grading = item.config.stash.get(grading_key, None)
    if grading is not None and catalogue_name(item.path):
        grading.record(call)
    return report


@pytest.fixture(scope="session")
async def run(request: pytest.FixtureRequest) -> AsyncIterator[Run]:
    """The run of the kit that this pytest process holds."""
    grading = request.config.stash.get(grading_key, None)
    if grading is not None:
        yield grading.run
        await grading.clear()
        await grading.run.aclose()
        return
    from checks.kit.run import Run

    own = Run()
    try:
        yield own
        await own.aclose()
    finally:
        own.close()


@pytest.fixture
def grading(request: pytest.FixtureRequest) -> Grading:
    return request.config.stash[grading_key]


@pytest.fixture
async def stage(run: Run, grading: Grading, request: pytest.FixtureRequest) -> AsyncIterator[Stage]:
    """This check's stage; the next check's is being set meanwhile."""
    stage = grading.stage_for(request.node)
    grading.set_next()
    try:
        await stage.ready()
    except Exception as error:
        await stage.clear()
        from checks.kit.postgres import PostgresUnavailable

        if isinstance(error, PostgresUnavailable):
            pytest.exit(str(error), returncode=pytest.ExitCode.USAGE_ERROR)
        raise
    grading.note_server()
    yield stage
    await stage.clear()


@pytest.fixture
def wire(stage: Stage) -> Wire:
    """The tap between app and PostgreSQL: watches, holds, delays and cuts."""
    return stage.wire


@pytest.fixture
def shop(stage: Stage) -> Shop:
    """The Bookshop's database, empty: puts rows in and looks at what is there."""
    from checks.kit.shop import Shop

    return Shop(stage.database, stage.note)


@pytest.fixture
def launch(stage: Stage) -> Callable[..., Awaitable[App]]:
    """Starts the app with settings of the check's own: `app = await launch(env={...}, workers=2)`.

    A None in `env` leaves that variable out. Raises AppDidNotStart with the app's log.
    """
    return stage.launch


@pytest.fixture
def alembic(stage: Stage) -> Callable[..., Awaitable[Done]]:
    """Runs Alembic as the learner would, in the lesson's folder: `done = await alembic("upgrade", "head")`.

    `done.ok`, `done.output`; with `password=` it logs in with that one. See Stage.command.
    """

    async def alembic(*arguments: str, password: str | None = None) -> Done:
        return await stage.command("alembic", *arguments, password=password)

    return alembic


@pytest.fixture
async def app(stage: Stage) -> App:
    """The learner's app, freshly started, ready for requests."""
    return await stage.launch()
