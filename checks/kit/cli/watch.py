"""`workbook watch`: grades again on every save, from warm processes."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import itertools
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from checks.kit.cli import cost, files
from checks.kit.cli.file_watcher import watch_saves
from checks.kit.cli.screen import Lines, Page, Screen, Viewer
from checks.kit.cli.verdict_rows import wrapped
from checks.kit.cli.view import Brief, page
from checks.kit.grading.pool import GraderPool, graders
from checks.kit.lessons.errors import WorkbookError
from checks.kit.lessons.git import restore_advice
from checks.kit.lessons.lesson import Lesson, all_lessons, find_lesson
from checks.kit.lessons.paths import ROOT, STATE, display_path
from checks.kit.lessons.progress import Progress
from checks.kit.lessons.unfinished import missing
from checks.kit.report import hints, terminal
from checks.kit.report.live import LiveReceiver, LiveReport
from checks.kit.report.model import Outcome
from checks.kit.service.app import AppDidNotStart
from checks.kit.service.launcher import Process


@dataclass(frozen=True, slots=True)
class Options:
    """`page`: there is a page for the browser, too. `browser`: it is opened. `brief`: the terminal says little."""

    page: bool = False
    browser: bool = False
    brief: bool = False


def watch(lesson: Lesson | None, options: Options = Options()) -> None:
    """Runs until q, Ctrl-C, or the terminal is closed."""
    on_terminal = sys.stdin.isatty() and sys.stdout.isatty() and not terminal.plain() and not options.brief
    screen: Screen = Brief() if options.brief else Page() if on_terminal else Lines()
    try:
        asyncio.run(_watch(lesson or _next_lesson(), screen, on_terminal, options))
    except OSError as error:
        if error.errno not in (errno.EIO, errno.EPIPE):  # those say that nobody is there to read
            raise


def _next_lesson() -> Lesson:
    """The first finished one that does not pass yet, else the last."""
    progress = Progress()
    known = [lesson for lesson in all_lessons() if not missing(lesson)]
    opened = (lesson for lesson in known if not progress.passed(lesson.name, [entry.name for entry in lesson.checks]))
    return next(opened, known[-1])


async def _watch(lesson: Lesson, screen: Screen, on_terminal: bool, options: Options) -> None:
    events: asyncio.Queue[tuple[str, Any]] = asyncio.Queue()
    loop = asyncio.get_running_loop()
    for name, event in (("SIGINT", "quit"), ("SIGTERM", "quit"), ("SIGHUP", "quit"), ("SIGWINCH", "resized")):
        if hasattr(signal, name) and sys.platform != "win32":
            loop.add_signal_handler(getattr(signal, name), events.put_nowait, (event, None))
    async with contextlib.AsyncExitStack() as stack:
        viewers: list[Viewer] = []
        if options.page:
            viewers.append(await stack.enter_async_context(page(lesson, screen, events, browser=options.browser)))
        screen.out.print("PostgreSQL and the graders are starting …", style="dim")
        warm = await stack.enter_async_context(graders())
        saving = asyncio.create_task(_saves(events))
        with _keyboard(events) if on_terminal else contextlib.nullcontext():
            grading = Loop(screen, warm, events, viewers)
            try:
                await grading.run(lesson)
            finally:
                saving.cancel()
                await grading.stop()


async def _saves(events: asyncio.Queue[tuple[str, Any]]) -> None:
    """Puts in the names of the folders in which files changed, those of a moment together."""
    folder = ROOT / "lessons"
    try:
        async for files in watch_saves(folder, lambda sentence: events.put_nowait(("lost", sentence))):
            events.put_nowait(("saved", {file.parts[0] for file in files}))
    except FileNotFoundError:
        events.put_nowait(("lost", f"{display_path(folder)} is gone.{restore_advice(folder)}"))


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
    """One event after another: saves, keys, what the page asks for, and what the running grader tells.

    The terminal and the `others` hear the same of it.
    """

    def __init__(
        self, screen: Screen, warm: GraderPool, events: asyncio.Queue[tuple[str, Any]], others: Sequence[Viewer] = ()
    ) -> None:
        self._screen = screen
        self._others = others
        self._viewers: Sequence[Viewer] = (screen, *others)
        self._warm = warm
        self._events = events
        self._process: Process | None = None
        self._telling: asyncio.Task[None] | None = None
        self._numbers = itertools.count(1)
        self._live_report = LiveReport()
        self._green: dict[str, set[str]] = {}  # by lesson: the checks that passed when it was last graded to its end
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
        elif event == "grade":
            await self._grade()
        elif event == "open":
            self._lesson = value
            await self._grade()
        elif event == "resized":
            self._screen.resized()
        elif event == "lost":
            for viewer in self._viewers:
                viewer.notice(value)
        elif event == "told" and value[0] is self._live_report:
            live_report, line = value
            result = live_report.feed(line)
            for viewer in self._viewers:
                if result:
                    viewer.result(live_report, result)
                else:
                    viewer.check(live_report)
        elif event == "ended" and value is self._live_report:
            self._ended()

    async def _saved(self, names: set[str]) -> None:
        """Grades the lesson that is shown, if it was saved; else goes to the one that was.

        Several others at once are not somebody's edit: git or a formatter wrote them.
        """
        if self._lesson.name not in names and len(names) > 1:
            return
        name = self._lesson.name if self._lesson.name in names else min(names)
        try:
            self._lesson = find_lesson(name)
        except WorkbookError as error:
            folder = self._lesson.folder
            if name == self._lesson.name:
                gone = f"{display_path(folder)} is gone.{restore_advice(folder)}"
                said = str(error) if folder.is_dir() else gone
                self._screen.out.print(f"\n{said}", style="red")
                for viewer in self._others:
                    viewer.notice(said)
            return
        await self._grade()

    async def _grade(self) -> None:
        """Stops what runs and grades the lesson anew, checks that failed first."""
        await self.stop()
        known = Progress().outcomes(self._lesson.name)
        green = {name for name, outcome in known.items() if outcome == Outcome.PASSED}
        for viewer in self._viewers:
            viewer.begins(self._lesson, self._green.setdefault(self._lesson.name, green))
        number = next(self._numbers)
        live_report = self._live_report = LiveReport()
        address, receiver = await self._listen(live_report, number)
        self._log = self._warm.scratch / f"grader-{number}.log"
        self._process = await self._warm.start(
            f"checks/{self._lesson.name}", "--live", address, "--failed-first", "-o", f"cache_dir={STATE / 'pytest'}",
            log=self._log,
        )  # fmt: skip
        self._telling = asyncio.create_task(self._follow(self._process, receiver, live_report))

    async def _listen(self, live_report: LiveReport, number: int) -> tuple[str, LiveReceiver]:
        """Where one grader tells its verdicts."""
        receiver = LiveReceiver(lambda line: self._events.put_nowait(("told", (live_report, line))))
        return await receiver.open(self._warm.scratch / f"live-{number}.sock"), receiver

    async def _follow(self, process: Process, receiver: LiveReceiver, live_report: LiveReport) -> None:
        try:
            await asyncio.shield(process.exit)
            await receiver.drain()
        finally:
            receiver.close()
        self._events.put_nowait(("ended", live_report))

    def _ended(self) -> None:
        for viewer in self._viewers:
            viewer.ended(self._live_report)
        green = self._green[self._lesson.name] = set(self._green.get(self._lesson.name, ()))
        for result in self._live_report.report.results if self._live_report.report else []:
            if result.outcome is Outcome.PASSED:
                green.add(result.name)
            elif result.outcome is Outcome.FAILED:
                green.discard(result.name)
        if self._live_report.report is None:  # it came to no check: pytest's own words say why
            text = self._log.read_text(encoding="utf-8", errors="replace").strip()
            for viewer in self._viewers:
                viewer.broke("\n".join(text.splitlines()[-20:]))

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
            known = all_lessons()
            self._lesson = next((lesson for lesson in known if lesson.number > self._lesson.number), known[0])
            await self._grade()
        elif key in ("h", "v", "d", "l", "c", "x"):
            out.print()
            if key == "c":
                out.print("Both apps are starting …", style="dim")
                cost.show(out, *await cost.measure(self._lesson, self._lesson.folder, self._warm.environ))
            elif key == "h":
                hints.show(self._lesson, "", False)
                self._progressed()
            elif key == "v":
                self._whole_verdict()
            elif key == "d":
                files.diff(self._lesson, False)
            elif key == "l":
                for result in self._live_report.report.results if self._live_report.report else []:
                    terminal.line(out, result)
            else:
                self._confirm = self._reset
                out.print(f"Put lesson {self._lesson.number} back to how it was handed out? A copy is kept. y/n")
                return
            self._screen.said()

    def _reset(self) -> None:
        files.reset(self._lesson, True)
        self._green.pop(self._lesson.name, None)  # what passed before is no regression now
        self._progressed()

    def _progressed(self) -> None:
        for viewer in self._viewers:
            viewer.progressed()

    def _whole_verdict(self) -> None:
        """The verdict on the page, without what the page had no room for."""
        out, report = self._screen.out, self._live_report.report
        red = [result for result in report.results if result.outcome.is_red] if report else []
        if report and red:
            with out.capture() as capture:
                terminal.verdict(out, report, red[0])
            for row in wrapped(out, capture.get()):
                out.print(row, soft_wrap=True)
        else:
            out.print("No check has failed in this run.")

    @contextlib.contextmanager
    def _telling_errors(self) -> Any:
        try:
            yield
        except (WorkbookError, AppDidNotStart) as error:
            self._screen.out.print(f"{error}", style="red")
            self._screen.said()
