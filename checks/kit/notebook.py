"""What a notebook imports: the lesson's app on a live PostgreSQL, its wire, pictures of both, and the checks.

    from checks.kit.notebook import app, check, hint, wire

    check("lesson_03")                            grades your code; the verdicts appear as they come
    hint("lesson_03")                             a hint about the first red check, one more each time
    shop = await app("lesson_03", "solutions")    runs an app in the background: await shop.app.get("/books/1")
    await wire(shop, "GET", "/catalogue")         a request and its statements, as a picture

`app` and `wire` are awaited, which a notebook's cell may do at its top level. For cells that need more there are
`run_app` (an app on an empty database), `versions` (yours, the solution if there is one), `command_line` (commands in
a lesson's folder), `Moments`, `timeline`, `show`. `s.explain(statement)` and `s.explain.sql("SELECT ...")`, of what
either of them gives, say how PostgreSQL runs a statement, and `plan_picture` draws it.
"""

from __future__ import annotations

import atexit
import contextlib
import io
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from checks.kit.lessons.errors import WorkbookError
from checks.kit.lessons.git import restore_advice
from checks.kit.lessons.lesson import find_lesson
from checks.kit.lessons.paths import ROOT, display_path
from checks.kit.lessons.short_folder import short_temporary_folder
from checks.kit.lessons.targets import find_target, lesson_folder
from checks.kit.lessons.words import plural
from checks.kit.postgres.libpq_environment import drop_libpq_variables
from checks.kit.report import terminal
from checks.kit.report.html import html
from checks.kit.report.live import LiveReport
from checks.kit.report.model import Report
from checks.kit.report.next_step import next_step
from checks.kit.report.plan_picture import PlanPicture
from checks.kit.report.waterfall import Waterfall, waterfall
from checks.kit.service.app import App, AppDidNotStart, NoResponse, Response
from checks.kit.service.command import CompletedCommand
from checks.kit.testbed.explain import Explain
from checks.kit.testbed.outside_service import OutsideService
from checks.kit.testbed.plan import Plan
from checks.kit.testbed.runtime import Runtime
from checks.kit.testbed.shop import Shop, fill
from checks.kit.testbed.testbed import Testbed
from checks.kit.wire import Recording, Wire

FAMILY = getattr(socket, "AF_UNIX", socket.AF_INET)

_runtimes: list[Runtime] = []
_running: dict[int, AsyncExitStack] = {}


@dataclass(frozen=True, slots=True)
class RunningApp:
    """What `run_app` and `app` give: the app, the wire between it and PostgreSQL, and the Bookshop's rows.

    `services` has the outside services that lesson.toml lists, by their variables: `s.services["PAYMENT_URL"].calls`.
    `testbed` starts more processes: `await s.testbed.start("app.worker", connected=True)`.
    """

    app: App
    wire: Wire
    shop: Shop
    testbed: Testbed

    @property
    def explain(self) -> Explain:
        return self.testbed.explain()

    @property
    def services(self) -> dict[str, OutsideService]:
        return self.testbed.services


class NoSolution(WorkbookError):
    """A notebook asks for a solution that is not there, as in a checkout for learners."""

    def _render_traceback_(self) -> list[str]:
        """What IPython shows in place of a traceback."""
        return [str(self)]


def versions(number: int) -> dict[str, str]:
    """The targets of `run_app` that there are, by what to call them: yours, then the solution.

    `for whose, target in versions(3).items():` also works where there is no solution.
    """
    lesson = find_lesson(number)
    return {"yours": "lessons"} | ({"solution": "solutions"} if lesson.solution.is_dir() else {})


@asynccontextmanager
async def run_app(
    number: int, target: str = "lessons", *, env: dict[str, str | None] | None = None, large: bool = False
) -> AsyncIterator[RunningApp]:
    """Runs the app of a lesson on an empty database while the block lasts: `async with run_app(3) as s:`.

    `target` is yours (`lessons`), the solution (`solutions`), or a variant by its name. `env` adds settings; a None
    takes one away. With `large` the database has the rows of the lesson's large.sql. Raises AppDidNotStart, whose `log`
    says why.
    """
    lesson = find_lesson(number)
    with tempfile.TemporaryDirectory(prefix="notebook-") as scratch:
        async with Testbed(_runtime(), lesson, _folder(number, target, Path(scratch))) as testbed:
            if large:
                await testbed.fill(lesson.large)
            app = await testbed.launch(env)
            yield RunningApp(app, testbed.wire, Shop(testbed.database), testbed)


@dataclass(frozen=True, slots=True)
class CommandLine:
    """What `command_line` gives: commands in a lesson's folder, and the empty database in their DATABASE_URL."""

    wire: Wire
    shop: Shop
    testbed: Testbed

    @property
    def explain(self) -> Explain:
        return self.testbed.explain()

    async def run(self, *arguments: str, lines: int = 4, **options: Any) -> CompletedCommand:
        """Runs `python -m arguments[0] …` and prints the last `lines` of its output; with 1, the line that says why.

        `options` are those of Testbed.command: `password=`.
        """
        done = await self.testbed.command(*arguments, **options)
        print(f"$ {done.command}   [exit code {done.code}]")  # noqa: T201
        printed = [line for line in done.output.splitlines() if line.strip()]
        for line in [done.last_line] if lines == 1 and printed else printed[max(0, len(printed) - lines) :]:
            print(f"  {line[:150]}")  # noqa: T201
        return done


@asynccontextmanager
async def command_line(number: int, target: str = "lessons", *, large: bool = False) -> AsyncIterator[CommandLine]:
    """An empty database, and commands in the folder of a lesson: yours, the solution's, or a variant's.

    `async with command_line(5) as line: await line.run("alembic", "upgrade", "head")`. With `large` the database has
    the rows of the lesson's large.sql.
    """
    lesson = find_lesson(number)
    with tempfile.TemporaryDirectory(prefix="notebook-") as scratch:
        async with Testbed(_runtime(), lesson, _folder(number, target, Path(scratch))) as testbed:
            if large:
                await testbed.fill(lesson.large)
            yield CommandLine(testbed.wire, Shop(testbed.database), testbed)


async def log_of_start(number: int, target: str = "lessons", *, env: dict[str, str | None]) -> str:
    """What an app prints that is started with these settings and ends by itself; empty if it runs."""
    try:
        async with run_app(number, target, env=env):
            return ""
    except AppDidNotStart as refusal:
        return f"{refusal.log.rstrip()}\n[exit code {refusal.code}]"


async def app(lesson: int | str, target: str = "lessons", *, env: dict[str, str | None] | None = None) -> RunningApp:
    """Runs an app in the background, on a database with a few rows; one of the same lesson that ran before ends.

    `target` is yours (`lessons`), `solutions`, or a variant. It ends with the kernel, or with the next `app`.
    """
    number = find_lesson(lesson).number
    if before := _running.pop(number, None):
        await before.aclose()
    stack = AsyncExitStack()
    running = await stack.enter_async_context(run_app(number, target, env=env))
    _running[number] = stack
    await fill(running.shop)
    return running


async def wire(running: RunningApp, method: str, path: str, **options: Any) -> Waterfall:
    """Sends a request and draws its statements, with the moment of the response; the options are those of httpx."""
    moments = Moments()
    with running.wire.watching() as seen:
        try:
            await moments.request(running.app, method, path, **options)
        except NoResponse as error:
            moments.note(f"no response: {error}")
        await running.wire.wait_idle(1, strict=False)  # what stays open is to be seen, not an error here
    return timeline(seen, moments, f"{method} {path}")


def check(lesson: int | str, *, first: bool = False) -> None:
    """Grades your code for a lesson, as `pytest checks/lesson_NN` does; verdicts appear as they come.

    With `first` it stops at the first check that fails. Interrupting the kernel interrupts the grader.
    """
    from IPython.display import display

    found = find_lesson(lesson)
    starting = Verdicts(None, f"Lesson {found.number:02}: the grader is starting …")
    shown = display(starting, display_id=True)  # type: ignore[no-untyped-call]
    live_report = LiveReport()
    arguments = [f"checks/{found.name}", *(["-x"] if first else [])]
    with (
        tempfile.TemporaryDirectory(prefix="notebook-", dir=short_temporary_folder()) as scratch,
        socket.socket(FAMILY) as listener,
    ):
        listener.bind(f"{scratch}/live.sock" if FAMILY != socket.AF_INET else ("127.0.0.1", 0))
        listener.listen()
        name = listener.getsockname()
        address = name if isinstance(name, str) else f"{name[0]}:{name[1]}"
        command = [sys.executable, "-m", "pytest", *arguments, "--live", address]
        log = Path(scratch) / "grader.log"
        with log.open("w") as file:
            grader = subprocess.Popen(command, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT)
        try:
            for line in _lines_of(listener, grader):
                live_report.feed(line)
                shown.update(Verdicts(live_report.report, "", len(found.checks), live_report.running))
        except KeyboardInterrupt:
            grader.send_signal(signal.SIGINT)  # it ends its apps and drops its databases
        grader.wait()
        printed = log.read_text(encoding="utf-8", errors="replace")
    shown.update(Verdicts(live_report.report, printed if live_report.report is None else "", len(found.checks)))


def _lines_of(listener: socket.socket, grader: subprocess.Popen[bytes]) -> Iterator[bytes]:
    """The lines of JSON that the grader sends, until it ends; see report/live.py."""
    listener.settimeout(0.2)
    while grader.poll() is None:
        with contextlib.suppress(TimeoutError):
            connection, _ = listener.accept()
            with connection, connection.makefile("rb") as lines:
                yield from lines
            return


def hint(lesson: int | str, name: str = "", *, again: bool = False) -> None:
    """A hint about a check, or about the first red one: a little more each time, unless `again`."""
    from checks.kit.report import hints

    try:
        hints.show(find_lesson(lesson), name, again, more='hint("{lesson}", "{check}")')
    except WorkbookError as error:
        print(error)  # noqa: T201


@dataclass(frozen=True, slots=True)
class Verdicts:
    """A report for a notebook: HTML where it can be shown, the terminal's text elsewhere.

    Without a report there is `message`, such as why there is none.
    """

    report: Report | None
    message: str
    total: int = 0
    running: str = ""

    def _repr_html_(self) -> str:
        if self.report is None:
            return f"<pre>{escape(self.message)}</pre>"
        return html(self.report, self.total, self.running)

    def __repr__(self) -> str:
        if self.report is None:
            return self.message
        out = terminal.console(io.StringIO(), 80, styled=False)
        terminal.header(out, self.report)
        for result in self.report.results:
            terminal.line(out, result)
        terminal.verdicts(out, self.report, in_full=False)
        if not self.running:
            terminal.summary(out, self.report, next_step(self.report), self.total)
        return str(out.file.getvalue())  # type: ignore[attr-defined]


def show(seen: Recording) -> None:
    """Prints the author's statements in the order in which they were sent, with the connection of each."""
    numbers: dict[int, int] = {}
    for statement in seen.for_display:
        number = numbers.setdefault(statement.connection, len(numbers) + 1)
        result = statement.error.message if statement.error else plural(statement.rows, "row") if statement.rows else ""
        print(f"#{number}  {' '.join(statement.text.split())[:88]:<90}{result}")  # noqa: T201


class Moments:
    """Notes moments on the clock of the recordings, for `timeline`."""

    def __init__(self) -> None:
        self.moments: list[tuple[str, float]] = []

    def note(self, what: str) -> None:
        """Notes that something happens now."""
        self.moments.append((what, time.perf_counter()))

    async def request(self, app: App, method: str, path: str, **options: Any) -> Response:
        """Sends a request and notes when it was sent and when the response arrived."""
        self.note(f"{method} {path} sent")
        response = await app.request(method, path, **options)
        self.note(f"{response.status} arrived")
        return response


def timeline(seen: Recording, moments: Moments, title: str) -> Waterfall:
    """A picture: statements as bars, moments as lines, in milliseconds since the first of them."""
    return waterfall(title, seen, moments.moments)


def plan_picture(plans: Plan | Mapping[str, Plan]) -> PlanPicture:
    """A picture of a plan, or of several by what to call them: `plan_picture({"OFFSET": first, "keyset": second})`.

    Plans come from `s.explain`. The bars are blocks of 8 kB, of all plans on one scale.
    """
    return PlanPicture({"": plans} if isinstance(plans, Plan) else dict(plans))


def _runtime() -> Runtime:
    """One for as long as the kernel lives."""
    if not _runtimes:
        drop_libpq_variables()  # which would reach the engines that cells make, too
        _runtimes.append(Runtime())
        atexit.register(_runtimes[0].close)
    return _runtimes[0]


def _folder(number: int, target: str, scratch: Path) -> Path:
    lesson = find_lesson(number)
    if target == "solutions" and not lesson.solution.is_dir():
        raise NoSolution(
            f"This cell runs the solution of lesson {number:02}, and there is no {display_path(lesson.solution)} here. "
            f"Go on with the next cell, or get the solution and run this one again.{restore_advice(lesson.solution)}"
        )
    if target in ("lessons", "solutions"):
        return lesson_folder(find_target(target), lesson)
    from checks.kit.lessons.variants import find_variant, materialize

    return materialize(find_variant(lesson, target), scratch)
