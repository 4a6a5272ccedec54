"""`workbook serve`: a lesson's app on a port of this machine, with its requests and statements as they happen."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import socket
import sys
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from checks.kit.catalogue import ROOT, CatalogueError, Lesson
from checks.kit.cost import fill
from checks.kit.report import terminal
from checks.kit.report.places import tail
from checks.kit.run import Run
from checks.kit.saves import saves
from checks.kit.service import App, AppDidNotStart
from checks.kit.shop import Shop

if TYPE_CHECKING:
    from rich.console import Console

LIFE = re.compile(r"INFO: {4,}(Started|Waiting|Application|Uvicorn|Shutting|Finished|connection)")
"""What uvicorn tells of its ordinary life."""


def serve(lesson: Lesson, folder: Path, port: int) -> None:
    """Runs until Ctrl-C; SIGTERM reaches the app as a deploy would send it."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            raise CatalogueError(
                f"Port {port} is taken. Choose another: workbook serve {lesson.number} --port {port + 1}"
            ) from None
    run = Run()
    try:
        asyncio.run(_serve(run, lesson, folder, port))
    finally:
        run.close()


async def _serve(run: Run, lesson: Lesson, folder: Path, port: int) -> None:
    from checks.kit.wire import open_tap

    out = terminal.console()
    screen = Screen(out)
    happened: asyncio.Queue[str] = asyncio.Queue()
    for name in ("SIGINT", "SIGTERM"):
        if sys.platform != "win32":
            asyncio.get_running_loop().add_signal_handler(getattr(signal, name), happened.put_nowait, "stop")
    async with AsyncExitStack() as stack:
        server = await asyncio.to_thread(run.server)
        database = await (await run.databases(lesson, folder)).fresh()
        wire = await stack.enter_async_context(open_tap(server.address))
        await run.migrate(lesson, folder, database, wire)
        await fill(Shop(database))
        wire.subscribe(screen.crossed)
        events = await asyncio.start_server(screen.announced, "127.0.0.1", 0)
        stack.callback(events.close)
        address = f"127.0.0.1:{events.sockets[0].getsockname()[1]}"
        saving = asyncio.create_task(_saves(folder, happened))
        stack.callback(saving.cancel)
        out.print(f"Lesson {lesson.number:02} · {lesson.title} on {server.summary}", style="bold")
        again = True
        while again:
            starting = run.app(lesson, folder, database, wire, workers=1, events=address, listen=f"127.0.0.1:{port}")
            again = await _until_saved(starting, happened, screen, f"http://127.0.0.1:{port}/docs")
            while not happened.empty():  # what was saved before the next start is in it
                again = happened.get_nowait() != "stop" and again
        await run.aclose()


async def _saves(folder: Path, happened: asyncio.Queue[str]) -> None:
    async for files in saves(folder):
        happened.put_nowait(", ".join(sorted(map(str, files))[:3]))


async def _until_saved(
    starting: AbstractAsyncContextManager[App], happened: asyncio.Queue[str], screen: Screen, docs: str
) -> bool:
    """Runs the app until a file is saved (True) or somebody wants to stop (False)."""
    out = screen.out
    try:
        async with starting as app:
            out.print(f"{docs} · starts again on save · Ctrl-C sends SIGTERM", style="dim")
            following = asyncio.create_task(_follow(app, screen))
            next_event = asyncio.create_task(happened.get())
            either: set[asyncio.Future[Any]] = {next_event, app.process.exit}
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if not next_event.done():
                screen.logged(app)
                out.print(f"The app ended by itself, exit code {app.process.exit.result()}.", style="bold red")
                out.print("Save a file to start it again, or press Ctrl-C.")
            event = await next_event
            if event != "stop":
                out.print(f"\n{event} saved", style="bold")
                await app.stop(within=5)
            elif not app.process.exit.done():
                await _leave(app, happened, out)
            following.cancel()
            screen.logged(app)
    except AppDidNotStart as error:
        out.print(tail(error.log, ROOT), soft_wrap=True)
        out.print(f"{error} Save a file to try again, or press Ctrl-C.", style="bold red")
        event = await happened.get()
    return event != "stop"


async def _leave(app: App, happened: asyncio.Queue[str], out: Console) -> None:
    """SIGTERM, as a deploy sends it; a second Ctrl-C does not wait."""
    out.print("\nSIGTERM sent to the app; Ctrl-C again kills it.", style="dim")
    leaving, again = asyncio.create_task(app.stop(within=30)), asyncio.create_task(happened.get())
    await asyncio.wait({leaving, again}, return_when=asyncio.FIRST_COMPLETED)
    farewell = leaving.result() if leaving.done() else None
    again.cancel()
    leaving.cancel()
    text = f"It left after {farewell.seconds:.1f} s." if farewell else "It did not leave and was killed."
    out.print(text, style="bold" if farewell else "bold red")


async def _follow(app: App, screen: Screen) -> None:
    """What the app prints, a moment later: its log is a file."""
    while True:
        await asyncio.sleep(0.1)
        screen.logged(app)


class Screen:
    """Prints events in the order in which they happen: an answer above its COMMIT left before its COMMIT."""

    def __init__(self, out: Console) -> None:
        self.out = out
        self._numbers: dict[int, int] = {}
        self._app: App | None = None
        self._shown = 0

    def crossed(self, event: Any) -> None:
        """An event of the tap."""
        statement = getattr(event, "statement", None)
        if statement is None or statement.driver:
            return
        number = self._numbers.setdefault(statement.connection, len(self._numbers) + 1)
        result = statement.error.message if statement.error else f"{statement.rows} rows" if statement.rows else ""
        text = " ".join(statement.text.split())
        if self.out.is_terminal:
            text = terminal.middle_out(text, max(self.out.width - len(f"  #{number}   {result}"), 30))
        self.out.print(f"  #{number} {text}  {result}", style="red" if statement.error else "", soft_wrap=True)

    async def announced(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Lines from the app's process: requests and answers."""
        async for line in reader:
            event = json.loads(line)
            if "status" in event:
                style = "bold green" if event["status"] < 400 else "bold red"
                self.out.print(f"← {event['status']} {event['request']}", style=style)
            else:
                self.out.print(f"\n→ {event['request']}", style="bold")
        writer.close()

    def logged(self, app: App) -> None:
        """Prints what is new in the app's log, without uvicorn's ordinary life."""
        if app is not self._app:
            self._app, self._shown = app, 0
        whole_lines = app.log.rpartition("\n")[0]
        new, self._shown = whole_lines[self._shown :], len(whole_lines)
        for line in new.splitlines():
            if line.strip() and not LIFE.match(line):
                self.out.print(f"  {line}", style="dim", soft_wrap=True)
