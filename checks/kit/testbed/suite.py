"""A learner's test suite, run against other apps than the one beside it: right ones, and broken ones.

Each run is a process of its own, with a database of its own in DATABASE_URL that holds the rows of a developer. It logs
in as a role that may make more databases.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from checks.kit.lessons.file_lock import FileLock
from checks.kit.lessons.lesson import Lesson
from checks.kit.lessons.original import handed_out
from checks.kit.lessons.patches import Tree, apply, read_tree, write_tree
from checks.kit.lessons.paths import RELEASES, display_path
from checks.kit.service.command import run_command
from checks.kit.service.inside.suite import notes_of
from checks.kit.testbed.releases import release_folder
from checks.kit.testbed.runtime import Runtime, settings
from checks.kit.testbed.shop import Shop

if TYPE_CHECKING:
    from checks.kit.postgres.databases import Databases, Maker
    from checks.kit.testbed.testbed import Testbed
    from checks.kit.wire import Wire

APP = ("app/", "migrations/", "alembic.ini")
"""What belongs to an app; all else in the folder of a lesson is the suite's."""

TIMEOUT = 150.0
"""Seconds for one pass through the tests; a bound for failures."""

PYTEST = ("pytest", "tests", "-q", "--no-header", "--tb=native", "-p", "no:cacheprovider")
PLUGINS = ("--disable-plugin-autoload", "-p", "pytest_asyncio.plugin", "-p", "anyio.pytest_plugin")
OURS = ("-p", "checks.kit.service.inside.suite")

IN_THE_TESTS = re.compile(r'^ *File ".*/suite_\d+/[^/]+/(?=tests/)()', re.MULTILINE)
"""The beginning of a line of a traceback that names a file of the tests."""


@dataclass(frozen=True, slots=True)
class OtherApp:
    """An app to run the tests against. `about` says what it breaks for a customer, or what it does in another way."""

    name: str
    about: str
    tree: Tree = field(repr=False)


def other_apps(lesson: Lesson, folder: str) -> dict[str, OtherApp]:
    """The apps of checks/lesson_NN/FOLDER/*.patch, by name: a line `about: ...`, an empty line, and a patch to the app
    of the lesson as it was handed out. Raises PatchError.
    """
    base, found = app_of(handed_out(lesson)), {}
    for path in sorted((lesson.checks_folder / folder).glob("*.patch")):
        head, _, patch = path.read_bytes().partition(b"\n\n")
        about = " ".join(head.decode().removeprefix("about:").split())
        tree = apply(patch, base, display_path(path), head.count(b"\n") + 3)
        found[path.stem] = OtherApp(path.stem, about, tree)
    return found


def the_app(lesson: Lesson) -> OtherApp:
    """The app that the lesson hands out."""
    return OtherApp("the_shop", "the shop as it is", app_of(handed_out(lesson)))


def app_of(tree: Tree) -> Tree:
    return {name: content for name, content in tree.items() if name.startswith(APP)}


@dataclass(frozen=True, slots=True)
class Failed:
    """A test that did not pass, in the phase "setup", "call" or "teardown".

    `states`: an assertion failed, in the test or in a fixture; else a fixture broke. `line` is the error in a line.
    """

    id: str
    phase: str
    states: bool
    line: str
    text: str

    def __str__(self) -> str:
        test = _short(self.id)
        where = "" if self.phase == "call" else f" ({self.phase} of a fixture)"
        return f"{test}{where}: {self.line}"


@dataclass(frozen=True, slots=True)
class SuiteRun:
    """What one run of the suite showed. `code` is pytest's exit code, None if it did not end; `log` what it printed."""

    notes: Sequence[dict[str, Any]]
    log: str
    code: int | None
    statements: int = 0

    @property
    def tests(self) -> list[str]:
        """All tests that were found, in their order."""
        return [test for note in self.notes if note["event"] == "collected" for test in note["tests"]]

    def passed(self) -> list[str]:
        return [note["test"] for note in self._of("call") if note["outcome"] == "passed"]

    def failed(self) -> list[Failed]:
        """The tests that did not pass, first to last. One that a fixture stopped is among them."""
        return [
            Failed(note["test"], note["event"], note["states"], note["line"], _from_the_tests(note["text"]))
            for note in self._of("setup", "call", "teardown")
            if note["outcome"] == "failed"
        ]

    def trouble(self) -> str:
        """Why the run says nothing about the app, in a sentence; empty if it does."""
        for note in self.notes:
            if note["event"] == "not collected":
                return f"pytest cannot collect {note['test'] or 'the tests'}: {_last_line(note['text'])}."
        if self.code is None:
            running = [note["test"] for note in self.notes if note["event"] == "begin"]
            return f"The run did not end{f', in {_short(running[-1])}' if running else ''}."
        if self.code not in (0, 1) or not any(note["event"] == "finished" for note in self.notes):
            return f"pytest ended with exit code {self.code}: {_last_line(self.log)}"
        if not self.passed() and not self.failed():
            return "No test was run."
        return ""

    def caught(self, but: Collection[str] = ()) -> Failed | None:
        """The first test not in `but` that says that the app is wrong. A fixture that breaks says nothing."""
        says = (one for one in self.failed() if (one.phase == "call" or one.states) and one.id not in but)
        return next(says, None)

    def is_green(self) -> bool:
        return not self.trouble() and not self.failed() and bool(self.passed())

    def why_not_green(self) -> str:
        failed = self.failed()
        return self.trouble() or (str(failed[0]) if failed else "No test passed.")

    def _of(self, *events: str) -> list[dict[str, Any]]:
        return [note for note in self.notes if note["event"] in events]


@dataclass(frozen=True, slots=True)
class Place:
    """Where suites run: a developer's database, and a role that may make others."""

    shop: Shop
    wire: Wire
    maker: Maker
    url: str


class Suite:
    """Runs the tests of a folder. What several checks ask for runs once, and a few runs go on at the same time."""

    def __init__(self, runtime: Runtime, lesson: Lesson, folder: Path) -> None:
        self._runtime = runtime
        self._lesson = lesson
        self._folder = folder
        self._tests = {name: data for name, data in read_tree(folder).items() if not name.startswith(APP)}
        self._apps: dict[str, dict[str, OtherApp]] = {}
        self._started: dict[str, asyncio.Task[Any]] = {}
        self._room = asyncio.Semaphore(1 + max(2, os.cpu_count() or 1))  # a run waits for the disk now and then
        self._folders = _own_folder(lesson)
        runtime.at_end(self._close)

    @cached_property
    def shop(self) -> OtherApp:
        """The app that the lesson hands out."""
        return the_app(self._lesson)

    def others(self, folder: str) -> dict[str, OtherApp]:
        """The apps of checks/lesson_NN/FOLDER, by name."""
        if folder not in self._apps:
            self._apps[folder] = other_apps(self._lesson, folder)
        return self._apps[folder]

    async def once(self, key: str, work: Callable[[], Awaitable[Any]]) -> Any:
        """The result of `work`, which the first caller starts, and which goes on if that caller is canceled."""
        if key not in self._started:
            self._started[key] = asyncio.ensure_future(work())
        return await asyncio.shield(self._started[key])

    async def against(self, app: OtherApp, *options: str) -> SuiteRun:
        """Runs the tests against an app, once for each app and options."""
        return await self.once(f"{app.name} {options}", lambda: self._against(app, *options))  # type: ignore[no-any-return]

    def one_at_a_time(self) -> None:
        """From now on only one run goes on at a time. To be called while none does."""
        self._room = asyncio.Semaphore(1)

    async def _against(self, app: OtherApp, *options: str) -> SuiteRun:
        async with self.place() as place:
            return await self.run(place, app, *options)

    async def run(self, place: Place, app: OtherApp, *options: str, called: str = "", passes: int = 1) -> SuiteRun:
        """Runs the tests in a place. Two runs of one app at the same time are `called` otherwise."""
        folder = await asyncio.to_thread(self._write, app, called or app.name)
        workspace = self._runtime.workspace(folder)
        env = settings(self._lesson, {"DATABASE_URL": place.url})
        with place.wire.watching() as seen:
            done = await run_command(workspace, env, *PYTEST, *PLUGINS, *OURS, *options, within=TIMEOUT * passes)
        notes, log = notes_of(done.output)
        return SuiteRun(notes, log, done.code, len(seen.data_statements))

    @asynccontextmanager
    async def place(self) -> AsyncIterator[Place]:
        """A developer's database with a few rows, which no other run uses. There are a few places at a time."""
        async with self._room:
            databases = await self.once("databases", self._databases)
            database = await databases.fresh()
            try:
                shop = Shop(database)
                await shop.seed(books=3, customers=2, reviews=2, orders=2)
                async with databases.maker(database) as maker, self._runtime.proxy() as wire:
                    yield Place(shop, wire, maker, database.url(wire.host, wire.port, login=maker.login))
            finally:
                databases.give_back(database)

    async def _databases(self) -> Databases:
        # a sandbox sees the releases and the learner's folder, whose migrations may be others
        folder = await asyncio.to_thread(release_folder, self._lesson.name, self.shop.tree)
        return await self._runtime.databases(self._lesson, folder)

    def _write(self, app: OtherApp, called: str) -> Path:
        """A folder with the app and the tests. Compiled files stay valid: the app is linked, and the time of a file of
        the tests is made from its text.
        """
        release = release_folder(self._lesson.name, app.tree)
        folder = self._folders.path / called
        shutil.rmtree(folder, ignore_errors=True)
        write_tree(self._tests, folder)
        for name, text in self._tests.items():
            # long ago, for a file that is newer than what was compiled of it is compiled again
            os.utime(folder / name, (0, int.from_bytes(hashlib.sha256(text).digest()[:4]) % 1_000_000_000))
        for name in sorted({name.partition("/")[0] for name in app.tree}):
            (folder / name).symlink_to(release / name)
        for path in (folder, *folder.rglob("*")):
            if not path.is_symlink():
                path.chmod(0o755 if path.is_dir() else 0o644)  # in a sandbox the tests have an account of their own
        return folder

    async def _close(self) -> None:
        for task in self._started.values():
            task.cancel()
        await asyncio.gather(*self._started.values(), return_exceptions=True)
        self._folders.close()


def suite_of(testbed: Testbed) -> Suite:
    """The suite of the learner's folder, shared by all checks of a run."""
    key = hashlib.sha256(repr(sorted(read_tree(testbed.folder).items())).encode()).hexdigest()
    return testbed.runtime.shared(key, lambda: Suite(testbed.runtime, testbed.lesson, testbed.folder))


class _OwnFolder:
    """A folder that no other run of the kit uses at the same time."""

    def __init__(self, path: Path, lock: FileLock) -> None:
        self.path = path
        self._lock = lock

    def close(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
        self._lock.close()


def _own_folder(lesson: Lesson) -> _OwnFolder:
    """The first that is free. Its name is one of few, for compiled files are kept by the name."""
    parent = RELEASES / lesson.name
    parent.mkdir(parents=True, exist_ok=True)
    number = 0
    while True:
        lock = FileLock(parent / f"suite_{number}.lock")
        if lock.try_exclusive():
            path = parent / f"suite_{number}"
            shutil.rmtree(path, ignore_errors=True)
            path.mkdir(mode=0o755)
            path.chmod(0o755)
            return _OwnFolder(path, lock)
        lock.close()
        number += 1


def _short(test: str) -> str:
    return test.removeprefix("tests/")


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:200] if lines else "it printed nothing"


def _from_the_tests(traceback: str) -> str:
    """A traceback from the first line on that is in the tests: what comes before is pytest's own."""
    lines = traceback.splitlines()
    inside = [number for number, line in enumerate(lines) if IN_THE_TESTS.match(line)]
    return IN_THE_TESTS.sub(r'  File "\1', "\n".join(lines[inside[0] :])) if inside else traceback
