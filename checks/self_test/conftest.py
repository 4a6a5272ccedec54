"""What the workbook's tests of itself share: which of them run, work in the background, a live server, folders."""

from __future__ import annotations

import asyncio
import os
import shlex
import shutil
import signal
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest

from checks.kit.lessons.lesson import Lesson
from checks.kit.lessons.paths import ROOT
from checks.kit.postgres import Server, find
from checks.kit.testbed.pgbouncer import HOW_TO_INSTALL, find_pgbouncer
from checks.kit.testbed.runtime import Runtime
from checks.self_test.commands import copy_workbook
from checks.self_test.progress import Progress

REST = {
    "attack": "submissions that attack the grader",
    "browser": "needs Chromium and playwright",
    "cluster": "needs Dask",
    "docker": "needs a container engine",
    "slow": "takes longer than anybody at a keyboard wants to wait",
    "variants": "grades every variant of a lesson",
}
"""The marks of tests that plain `pytest` leaves out, so that it stays short enough for people."""

left_out_key = pytest.StashKey[list[pytest.Item]]()
futures_key = pytest.StashKey[dict[str, "Future[Any]"]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("workbook")
    group.addoption("--rest", action="store_true", help=f"run what plain pytest leaves out: {', '.join(REST)}")
    group.addoption("--everything", action="store_true", help="run that as well as what plain pytest runs")
    group.addoption(
        "--one-in",
        metavar="N",
        type=int,
        default=1,
        help="grade one in N of a lesson's variants, chosen by the day (default: all)",
    )


def pytest_configure(config: pytest.Config) -> None:
    for name, description in REST.items():
        config.addinivalue_line("markers", f"{name}: {description}; left out without --rest or --everything")
    config.addinivalue_line("markers", "background(job): job(lesson) runs while other tests do")
    config.option.reportchars += "s"  # what is skipped says why


def pytest_sessionstart(session: pytest.Session) -> None:
    config = session.config
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    plain = type(reporter) is pytest.TerminalReporter  # a lesson that is graded has one of its own
    if plain and config.option.verbose == 0 and not config.option.collectonly:
        config.pluginmanager.register(Progress(config))


def _kind(item: pytest.Item) -> str:
    """Which mark of REST a test has, if any."""
    return next((name for name in REST if item.get_closest_marker(name)), "")


def _needs_pgbouncer(item: pytest.Item) -> bool:
    """Whether a test runs what a lesson's PgBouncer is a part of."""
    if item.path.name in ("test_pgbouncer.py", "test_new_lesson.py"):  # a new lesson has what the last one has
        return True
    lesson = item.callspec.params.get("lesson") if hasattr(item, "callspec") else None
    runs = item.path.name == "test_endpoints.py" or any(map(item.get_closest_marker, ("background", "variants")))
    return runs and isinstance(lesson, Lesson) and bool(lesson.pgbouncer)


@pytest.hookimpl(trylast=True)  # after -k and -m
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    quick, rest = ([item for item in items if bool(_kind(item)) == is_rest] for is_rest in (False, True))
    chosen, left_out = (rest, quick) if config.getoption("rest", False) else (quick, rest)
    if config.getoption("everything", False):
        chosen, left_out = items, []
    config.stash[left_out_key] = left_out
    config.hook.pytest_deselected(items=left_out)
    if find_pgbouncer() is None:
        for item in filter(_needs_pgbouncer, chosen):
            item.add_marker(pytest.mark.skip(f"PgBouncer is not installed: {HOW_TO_INSTALL}"))
    # what is done in the background comes last, when most of it has been done
    items[:] = sorted(chosen, key=lambda item: item.get_closest_marker("background") is not None)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    left_out = config.stash.get(left_out_key, [])
    if left_out and not config.getoption("rest", False):
        kinds = Counter(_kind(item) for item in left_out)
        listed = ", ".join(f"{count} {name}" for name, count in kinds.items())
        command = shlex.join(["uv", "run", "pytest", *config.invocation_params.args, "--rest"])
        terminalreporter.write_line(f"Left out: {len(left_out)} tests ({listed}). To run them instead: {command}")


@pytest.hookimpl(wrapper=True)
def pytest_runtestloop(session: pytest.Session) -> Iterator[None]:
    """Two processes do what the chosen tests want done in the background."""
    if session.config.option.collectonly or session.testsfailed:  # nothing will run
        return (yield)
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        session.config.stash[futures_key] = {
            item.nodeid: pool.submit(marker.kwargs["job"], item.callspec.params["lesson"])
            for item in session.items
            if (marker := item.get_closest_marker("background")) and not item.get_closest_marker("skip")
        }
        try:
            return (yield)
        finally:
            pool.shutdown(cancel_futures=True)


@pytest.fixture
def outcome(request: pytest.FixtureRequest) -> Any:
    """What the job of the `background` mark returned for the lesson of this test."""
    return request.config.stash[futures_key][request.node.nodeid].result()


@pytest.fixture(scope="session")
async def server() -> AsyncIterator[Server]:
    """The server that the environment names, as for a learner."""
    server = await asyncio.to_thread(find, ROOT, os.environ)
    yield server
    server.close()


@pytest.fixture(scope="module")
async def runtime() -> AsyncIterator[Runtime]:
    """A run of the kit, in this process."""
    runtime = Runtime()
    yield runtime
    await runtime.aclose()
    await asyncio.to_thread(runtime.close)


@pytest.fixture(scope="session")
def copied() -> Callable[[Path], Path]:
    """`copy_workbook` of commands.py."""
    return copy_workbook


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a short path that every account may pass; servers below it are ended afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="wb-", dir="/tmp"))
    folder.chmod(0o755)
    yield folder
    for file in folder.rglob("postmaster.pid"):
        try:
            os.kill(int(file.read_text().split()[0]), signal.SIGQUIT)
        except (OSError, ValueError, IndexError):
            continue
    shutil.rmtree(folder, ignore_errors=True)
