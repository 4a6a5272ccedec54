"""`workbook watch`: grades again on every save, from warm processes."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import itertools
import signal
import sys
from collections.abc import Callable
from typing import Any

from checks.kit import catalogue
from checks.kit.catalogue import ROOT, STATE, CatalogueError, Lesson
from checks.kit.cli import cost, files, hints
from checks.kit.cli.screen import Lines, Page, Screen
from checks.kit.live import Ear, Growing
from checks.kit.progress import Progress
from checks.kit.report import terminal
from checks.kit.saves import saves
from checks.kit.service import AppDidNotStart
from checks.kit.service.launcher import Process
from checks.kit.warm import Graders, graders


def watch(lesson: Lesson | None) -> None:
    """Runs until q, Ctrl-C, or the terminal is closed."""
    on_terminal = sys.stdin.isatty() and sys.stdout.isatty() and not terminal.plain()
    screen: Screen = Page() if on_terminal else Lines()
    try:
        asyncio.run(_watch(lesson or _next_lesson(), screen, on_terminal))
    except OSError as error:
        if error.errno not in (errno.EIO, errno.EPIPE):  # those say that nobody is there to read
            raise


def _next_lesson() -> Lesson:
    """The first one that does not pass yet, else the last."""
    progress = Progress()
    known = catalogue.lessons()
    return next((one for one in known if not progress.passed(one.name, [c.name for c in one.checks])), known[-1])


async def _watch(lesson: Lesson, screen: Screen, on_terminal: bool) -> None:
    events: asyncio.Queue[tuple[str, Any]] = asyncio.Queue()
    loop = asyncio.get_running_loop()
    for name, event in (("SIGINT", "quit"), ("SIGTERM", "quit"), ("SIGHUP", "quit"), ("SIGWINCH", "resized")):
        if hasattr(signal, name) and sys.platform != "win32":
            loop.add_signal_handler(getattr(signal, name), events.put_nowait, (event, None))
    screen.out.print("PostgreSQL and the graders are starting …", style="dim")
    async with graders() as warm:
        saving = asyncio.create_task(_saves(events))
        with _keyboard(events) if on_terminal else contextlib.nullcontext():
            grading = Loop(screen, warm, events)
            try:
                await grading.run(lesson)
            finally:
                saving.cancel()
                await grading.stop()


async def _saves(events: asyncio.Queue[tuple[str, Any]]) -> None:
    """Puts in the number of each lesson whose files changed."""
    folder = ROOT / "lessons"
    try:
        async for files in saves(folder):
            for name in sorted({file.parts[0] for file in files}):
                events.put_nowait(("saved", name))
    except FileNotFoundError:
        events.put_nowait(("lost", f"{folder.relative_to(ROOT)} is gone. Restore it with: git checkout -- lessons"))


@contextlib.contextmanager
def _keyboard(events: asyncio.Queue[tuple[str, Any]]) -> Any:
    from prompt_toolkit.input import create_input

    keyboard = create_input()

    def ready() -> None:
        for press in keyboard.read_keys():
            events.put_nowait(("key", str(getattr(press.key, "value", press.key))))
        if keyboard.closed:
            events.put_nowait(("quit", None))

    with keyboard.raw_mode(), keyboard.attach(ready):
        yield


class Loop:
    """One event after another: saves, keys, and what the running grader tells."""

    def __init__(self, screen: Screen, warm: Graders, events: asyncio.Queue[tuple[str, Any]]) -> None:
        self._screen = screen
        self._warm = warm
        self._events = events
        self._process: Process | None = None
        self._telling: asyncio.Task[None] | None = None
        self._numbers = itertools.count(1)
        self._growing = Growing()
        self._confirm: Callable[[], None] | None = None

    async def run(self, lesson: Lesson) -> None:
        self._lesson = lesson
        await self._grade()
        while True:
            event, value = await self._events.get()
            if event == "quit" or (event == "key" and value in ("q", "c-c", "c-d")):
                return
            await self._take(event, value)

    async def _take(self, event: str, value: Any) -> None:
        if event == "saved":
            await self._saved(value)
        elif event == "key":
            with self._telling_errors():
                await self._key(value)
        elif event == "resized":
            self._screen.resized()
        elif event == "lost":
            self._screen.out.print(f"\n{value}", style="bold red")
        elif event == "told" and value[0] is self._growing:
            growing, line = value
            result = growing.feed(line)
            if result:
                self._screen.result(growing, result)
            else:
                self._screen.check(growing)
        elif event == "ended" and value is self._growing:
            self._ended()

    async def _saved(self, name: str) -> None:
        try:
            self._lesson = catalogue.lesson(name)
        except CatalogueError:
            if name == self._lesson.name:
                self._screen.out.print(f"\nlessons/{name} is gone. Restore it with: git checkout -- lessons/{name}")
            return
        await self._grade()

    async def _grade(self) -> None:
        """Stops what runs and grades the lesson anew, checks that failed first."""
        await self.stop()
        self._screen.begins(self._lesson)
        number = next(self._numbers)
        growing = self._growing = Growing()
        address, ear = await self._listen(growing, number)
        self._log = self._warm.scratch / f"grader-{number}.log"
        self._process = await self._warm.start(
            f"checks/{self._lesson.name}", "--live", address, "--failed-first", "-o", f"cache_dir={STATE / 'pytest'}",
            log=self._log,
        )  # fmt: skip
        self._telling = asyncio.create_task(self._follow(self._process, ear, growing))

    async def _listen(self, growing: Growing, number: int) -> tuple[str, Ear]:
        """Where one grader tells its verdicts."""
        ear = Ear(lambda line: self._events.put_nowait(("told", (growing, line))))
        return await ear.open(self._warm.scratch / f"live-{number}.sock"), ear

    async def _follow(self, process: Process, ear: Ear, growing: Growing) -> None:
        try:
            await asyncio.shield(process.exit)
            await ear.heard_all()
        finally:
            ear.close()
        self._events.put_nowait(("ended", growing))

    def _ended(self) -> None:
        self._screen.ended(self._growing)
        if self._growing.report is None:  # it came to no check: pytest's own words say why
            text = self._log.read_text(encoding="utf-8", errors="replace").strip()
            self._screen.out.print("\n".join(text.splitlines()[-20:]), style="red")
            self._screen.said()

    async def stop(self) -> None:
        """Ends the running grader, its apps and its databases' connections with it."""
        if self._telling is not None:
            self._telling.cancel()
            self._telling = None
        if self._process is not None and not self._process.exit.done():
            self._process.kill()
            await self._process.exit

    async def _key(self, key: str) -> None:
        confirm, self._confirm = self._confirm, None
        if confirm is not None:
            if key == "y":
                confirm()
            self._screen.said()
            return
        out = self._screen.out
        if key in ("r", "c-m", "c-j"):
            await self._grade()
        elif key == "n":
            known = catalogue.lessons()
            self._lesson = next((one for one in known if one.number > self._lesson.number), known[0])
            await self._grade()
        elif key in ("h", "d", "l", "c", "x"):
            out.print()
            if key == "c":
                out.print("Both apps are starting …", style="dim")
                cost.show(out, *await cost.measure(self._lesson, self._lesson.folder, self._warm.environ))
            elif key == "h":
                hints.show(self._lesson, "", False)
            elif key == "d":
                files.diff(self._lesson, False)
            elif key == "l":
                for result in self._growing.report.results if self._growing.report else []:
                    terminal.line(out, result)
            else:
                self._confirm = lambda: files.reset(self._lesson, True)
                out.print(f"Put lesson {self._lesson.number} back to how it was handed out? A copy is kept. y/n")
                return
            self._screen.said()

    @contextlib.contextmanager
    def _telling_errors(self) -> Any:
        try:
            yield
        except (CatalogueError, AppDidNotStart) as error:
            self._screen.out.print(f"{error}", style="red")
            self._screen.said()
