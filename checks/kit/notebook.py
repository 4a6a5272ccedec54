"""What a notebook imports: the lesson's app on a live PostgreSQL, its wire, pictures of both, and the checks.

    from checks.kit.notebook import app, check, hint, wire

    check("lesson_03")                            grades your code; the verdicts appear as they come
    hint("lesson_03")                             a hint about the first red check, one more each time
    shop = await app("lesson_03", "solutions")    runs an app in the background: await shop.app.get("/books/1")
    await wire(shop, "GET", "/catalogue")         a request and its statements, as a picture

`app`, `wire` and `scene` are awaited, which a notebook's cell may do at its top level.
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
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from checks.kit import catalogue
from checks.kit.catalogue import ROOT, CatalogueError
from checks.kit.cost import fill
from checks.kit.live import Growing
from checks.kit.report import terminal
from checks.kit.report.html import html
from checks.kit.report.model import Report
from checks.kit.report.next_step import next_step
from checks.kit.report.waterfall import Waterfall, waterfall
from checks.kit.run import Run
from checks.kit.service import Answer, App, AppDidNotStart, Done, NoAnswer
from checks.kit.shop import Shop
from checks.kit.stage import Stage
from checks.kit.targets import find_target, lesson_folder
from checks.kit.wire import NotSettled, Recording, Wire

FAMILY = getattr(socket, "AF_UNIX", socket.AF_INET)

_runs: list[Run] = []
_running: dict[int, AsyncExitStack] = {}


@dataclass(frozen=True, slots=True)
class Scene:
    """A running app, the wire between it and PostgreSQL, and the shop's rows."""

    app: App
    wire: Wire
    shop: Shop


@asynccontextmanager
async def scene(
    number: int, target: str = "lessons", *, env: dict[str, str | None] | None = None
) -> AsyncIterator[Scene]:
    """Starts an app of a lesson: yours (`lessons`), the solution (`solutions`), or a variant by its name.

    `env` adds settings; None takes one away. Raises AppDidNotStart, whose `log` says why.
    """
    lesson = catalogue.lesson(number)
    with tempfile.TemporaryDirectory(prefix="notebook-") as scratch:
        async with Stage(_run(), lesson, _folder(number, target, Path(scratch))) as stage:
            app = await stage.launch(env)
            yield Scene(app, stage.wire, Shop(stage.database))


@dataclass(frozen=True, slots=True)
class Desk:
    """An empty database, the wire to it, and commands in a lesson's folder that find it in DATABASE_URL."""

    wire: Wire
    shop: Shop
    stage: Stage

    async def run(self, *arguments: str, lines: int = 4, **options: Any) -> Done:
        """Runs `python -m arguments[0] …` and prints the end of what it printed."""
        done = await self.stage.command(*arguments, **options)
        print(f"$ {done.command}   [exit code {done.code}]")  # noqa: T201
        printed = [line for line in done.output.splitlines() if line.strip()]
        for line in [done.last_line] if lines == 1 and printed else printed[max(0, len(printed) - lines) :]:
            print(f"  {line[:150]}")  # noqa: T201
        return done


@asynccontextmanager
async def desk(number: int, target: str = "lessons") -> AsyncIterator[Desk]:
    """A database and a command line in the folder of a lesson: yours, the solution's, or a variant's."""
    lesson = catalogue.lesson(number)
    with tempfile.TemporaryDirectory(prefix="notebook-") as scratch:
        async with Stage(_run(), lesson, _folder(number, target, Path(scratch))) as stage:
            yield Desk(stage.wire, Shop(stage.database), stage)


async def log_of_start(number: int, target: str = "lessons", *, env: dict[str, str | None]) -> str:
    """What an app prints when it is started with these settings and ends by itself; "" if it runs."""
    try:
        async with scene(number, target, env=env):
            return ""
    except AppDidNotStart as refusal:
        return f"{refusal.log.rstrip()}\n[exit code {refusal.code}]"


async def app(lesson: int | str, target: str = "lessons", *, env: dict[str, str | None] | None = None) -> Scene:
    """Runs an app in the background, with a few books in the shop; one of the same lesson that ran before ends.

    `target` is yours (`lessons`), `solutions`, or a variant. It ends with the kernel, or with the next `app`.
    """
    number = catalogue.lesson(lesson).number
    if before := _running.pop(number, None):
        await before.aclose()
    stack = AsyncExitStack()
    running = await stack.enter_async_context(scene(number, target, env=env))
    _running[number] = stack
    await fill(running.shop)
    return running


async def wire(running: Scene, method: str, path: str, **options: Any) -> Waterfall:
    """Sends a request, and shows when it was answered and what crossed the wire for it, before and after."""
    clock = Clock()
    with running.wire.watching() as seen:
        try:
            await clock.request(running.app, method, path, **options)
        except NoAnswer as error:
            clock.note(f"no answer: {error}")
        with contextlib.suppress(NotSettled):  # what stays open is to be seen, not an error here
            await running.wire.calm(1)
    return timeline(seen, clock, f"{method} {path}")


def check(lesson: int | str, *, first: bool = False) -> None:
    """Grades your code for a lesson, as `pytest checks/lesson_NN` does; verdicts appear as they come.

    With `first` it stops at the first check that fails. Interrupting the kernel interrupts the grader.
    """
    from IPython.display import display

    found = catalogue.lesson(lesson)
    starting = Verdicts(None, f"Lesson {found.number:02}: the grader is starting …")
    shown = display(starting, display_id=True)  # type: ignore[no-untyped-call]
    growing = Growing()
    arguments = [f"checks/{found.name}", *(["-x"] if first else [])]
    with tempfile.TemporaryDirectory(prefix="notebook-") as scratch, socket.socket(FAMILY) as listener:
        listener.bind(f"{scratch}/live.sock" if FAMILY != socket.AF_INET else ("127.0.0.1", 0))
        listener.listen()
        name = listener.getsockname()
        address = name if isinstance(name, str) else f"{name[0]}:{name[1]}"
        command = [sys.executable, "-m", "pytest", *arguments, "--live", address]
        log = Path(scratch) / "grader.log"
        with log.open("w") as file:
            grader = subprocess.Popen(command, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT)
        try:
            for line in _told(listener, grader):
                growing.feed(line)
                shown.update(Verdicts(growing.report, "", len(found.checks), growing.running))
        except KeyboardInterrupt:
            grader.send_signal(signal.SIGINT)  # it ends its apps and drops its databases
        grader.wait()
        printed = log.read_text(encoding="utf-8", errors="replace")
    shown.update(Verdicts(growing.report, printed if growing.report is None else "", len(found.checks)))


def _told(listener: socket.socket, grader: subprocess.Popen[bytes]) -> Iterator[bytes]:
    """The lines that the grader tells, until it ends."""
    listener.settimeout(0.2)
    while grader.poll() is None:
        with contextlib.suppress(TimeoutError):
            connection, _ = listener.accept()
            with connection, connection.makefile("rb") as lines:
                yield from lines
            return


def hint(lesson: int | str, name: str = "", *, again: bool = False) -> None:
    """A hint about a check, or about the first red one: a little more each time, unless `again`."""
    from checks.kit.cli import hints

    try:
        hints.show(catalogue.lesson(lesson), name, again, more='hint("{lesson}", "{check}")')
    except CatalogueError as error:
        print(error)  # noqa: T201


@dataclass(frozen=True, slots=True)
class Verdicts:
    """A report for a notebook: HTML where it can be shown, the terminal's words elsewhere."""

    report: Report | None
    said: str
    total: int = 0
    running: str = ""

    def _repr_html_(self) -> str:
        if self.report is None:
            return f"<pre>{escape(self.said)}</pre>"
        return html(self.report, self.total, self.running)

    def __repr__(self) -> str:
        if self.report is None:
            return self.said
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
    for statement in seen.story:
        number = numbers.setdefault(statement.connection, len(numbers) + 1)
        result = statement.error.message if statement.error else f"{statement.rows} rows" if statement.rows else ""
        print(f"#{number}  {' '.join(statement.text.split())[:88]:<90}{result}")  # noqa: T201


class Clock:
    """Notes moments on the clock of the tap, for `timeline`."""

    def __init__(self) -> None:
        self.moments: list[tuple[str, float]] = []

    def note(self, what: str) -> None:
        self.moments.append((what, time.perf_counter()))

    async def request(self, app: App, method: str, path: str, **options: Any) -> Answer:
        """A request whose sending and whose answer are noted."""
        self.note(f"{method} {path} sent")
        answer = await app.request(method, path, **options)
        self.note(f"{answer.status} arrived")
        return answer


def timeline(seen: Recording, clock: Clock, title: str) -> Waterfall:
    """Statements as bars, moments as lines, in milliseconds since the first of them."""
    return waterfall(title, seen, clock.moments)


def _run() -> Run:
    """One run for the kernel's life."""
    if not _runs:
        _runs.append(Run())
        atexit.register(_runs[0].close)
    return _runs[0]


def _folder(number: int, target: str, scratch: Path) -> Path:
    lesson = catalogue.lesson(number)
    if target in ("lessons", "solutions"):
        return lesson_folder(find_target(target), lesson)
    from checks.kit.verify import variant, variant_folders

    for folder in variant_folders(lesson):
        if folder.name == target:
            return variant(lesson, folder, scratch)[0]
    raise CatalogueError(f"Lesson {number} has no variant {target!r}. Give lessons, solutions or a variant's name.")
