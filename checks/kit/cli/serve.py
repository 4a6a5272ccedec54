"""`workbook serve`: a lesson's app on a port of this machine, with its requests and statements as they happen."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from checks.kit.catalogue import CatalogueError, Lesson
from checks.kit.cost import fill
from checks.kit.report import terminal
from checks.kit.run import Run
from checks.kit.shop import Shop


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
    stop = asyncio.Event()
    for name in ("SIGINT", "SIGTERM"):
        if hasattr(asyncio.get_running_loop(), "add_signal_handler"):
            asyncio.get_running_loop().add_signal_handler(getattr(signal, name), stop.set)
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
        starting = run.app(lesson, folder, database, wire, workers=1, events=address, listen=f"127.0.0.1:{port}")
        app = await stack.enter_async_context(starting)
        out.print(f"Lesson {lesson.number:02} · {lesson.title} on {server.summary}", style="bold")
        out.print(f"http://127.0.0.1:{port}/docs   Ctrl-C sends SIGTERM to the app", style="dim")
        stopping = asyncio.create_task(stop.wait())
        either: set[asyncio.Future[Any]] = {stopping, app.process.exit}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if app.process.exit.done():
            out.print(app.log)
            out.print(f"The app ended by itself, exit code {app.process.exit.result()}.", style="bold red")
            return
        stop.clear()
        out.print("\nSIGTERM sent to the app; Ctrl-C again kills it.", style="dim")
        leaving, again = asyncio.create_task(app.stop(within=30)), asyncio.create_task(stop.wait())
        await asyncio.wait({leaving, again}, return_when=asyncio.FIRST_COMPLETED)
        farewell = leaving.result() if leaving.done() else None
        again.cancel()
        leaving.cancel()
        text = f"It left after {farewell.seconds:.1f} s." if farewell else "It did not leave and was killed."
        out.print(text, style="bold" if farewell else "bold red")
        await run.aclose()


class Screen:
    """Prints events in the order in which they happen: an answer above its COMMIT left before its COMMIT."""

    def __init__(self, out: Any) -> None:
        self._out = out
        self._numbers: dict[int, int] = {}

    def crossed(self, event: Any) -> None:
        """An event of the tap."""
        statement = getattr(event, "statement", None)
        if statement is None or statement.driver:
            return
        number = self._numbers.setdefault(statement.connection, len(self._numbers) + 1)
        result = statement.error.message if statement.error else f"{statement.rows} rows" if statement.rows else ""
        text = " ".join(statement.text.split())
        self._out.print(f"  #{number} {text}  {result}", style="red" if statement.error else "", soft_wrap=True)

    async def announced(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Lines from the app's process: requests and answers."""
        async for line in reader:
            event = json.loads(line)
            if "status" in event:
                style = "bold green" if event["status"] < 400 else "bold red"
                self._out.print(f"← {event['status']} {event['request']}", style=style)
            else:
                self._out.print(f"\n→ {event['request']}", style="bold")
        writer.close()
