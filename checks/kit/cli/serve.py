"""`workbook serve`: a lesson's app on a port of this machine, with its requests and statements as they happen."""

from __future__ import annotations

import asyncio
import functools
import importlib.util
import json
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from checks.kit.cli.file_watcher import watch_saves
from checks.kit.cli.serve_feed import Feed
from checks.kit.cli.serve_screen import DEBUG_PORT, Screen
from checks.kit.cli.served_database import ServedDatabase, offer
from checks.kit.cli.served_processes import Processes, base_name, start_processes
from checks.kit.grading.evidence import place_of_frames
from checks.kit.lessons.errors import WorkbookError
from checks.kit.lessons.lesson import Lesson
from checks.kit.lessons.paths import ROOT
from checks.kit.report import terminal
from checks.kit.report.places import tail
from checks.kit.service.app import AppDidNotStart
from checks.kit.service.start_failure import how_it_ended
from checks.kit.testbed.runtime import Runtime
from checks.kit.testbed.testbed import open_testbed

if TYPE_CHECKING:
    from rich.console import Console


@dataclass(frozen=True, slots=True)
class Options:
    """`debug`: each start waits for an editor's debugger. `tracebacks`: they are shown whole."""

    port: int = 8000
    debug: bool = False
    tracebacks: bool = False


def serve(lesson: Lesson, folder: Path, options: Options) -> None:
    """Runs until Ctrl-C; SIGTERM reaches the app as a deploy would send it."""
    if options.debug and importlib.util.find_spec("debugpy") is None:
        raise WorkbookError("--debug needs debugpy, which is not installed. Type: uv sync --extra debug")
    if not _is_free(options.port):
        raise WorkbookError(_taken(lesson, options.port))
    if options.debug and not _is_free(DEBUG_PORT):
        raise WorkbookError(f"Port {DEBUG_PORT} is taken: another `workbook serve --debug` runs. Stop it first.")
    runtime = Runtime()
    try:
        asyncio.run(_serve(runtime, lesson, folder, options))
    finally:
        runtime.close()


def _taken(lesson: Lesson, port: int) -> str:
    return f"Port {port} is taken. Choose another: workbook serve {lesson.number} --port {port + 1}"


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


async def _serve(runtime: Runtime, lesson: Lesson, folder: Path, options: Options) -> None:
    out = terminal.console()
    happened: asyncio.Queue[str] = asyncio.Queue()
    for name in ("SIGINT", "SIGTERM"):
        if sys.platform != "win32":
            asyncio.get_running_loop().add_signal_handler(getattr(signal, name), happened.put_nowait, "stop")
    async with AsyncExitStack() as stack:
        testbed = await stack.enter_async_context(open_testbed(runtime, lesson, folder, filled=True))
        screen = Screen(out, lesson, folder, testbed.seen, testbed.wire, tracebacks=options.tracebacks)
        feed = Feed(folder)
        stack.callback(feed.close)
        testbed.wire.subscribe(on_statement=screen.statement_done, on_connection=screen.connection)
        testbed.wire.subscribe(on_statement=feed.statement_done)
        guests = await stack.enter_async_context(runtime.proxy())  # what they do is not shown among the app's own
        server = runtime.server()
        url = testbed.database.url(guests.host, guests.port, scheme="postgresql")
        address = await feed.open(runtime.scratch / "feed.sock")
        stack.enter_context(offer(lesson, ServedDatabase(url, server.summary, str(server.binaries or ""), address)))
        tell = functools.partial(_tell, (screen.request_event, feed.request_event))
        events = await asyncio.start_server(tell, "127.0.0.1", 0)
        stack.callback(events.close)
        saving = asyncio.create_task(_saves(folder, happened, out))
        stack.callback(saving.cancel)
        out.print(f"Lesson {lesson.number:02} · {lesson.title} on {server.summary}", style="bold")
        out.print(f"Its tables: workbook psql {lesson.number}, or {url}", style="dim", soft_wrap=True)
        await testbed.open_services({})
        for env, service in testbed.services.items():
            service.on_end.append(functools.partial(screen.called, service.name))
            service.on_end.append(functools.partial(feed.called, service.name))
            out.print(f"The {service.name}, at {env}: {service.url}", style="dim", soft_wrap=True)
        host, port = events.sockets[0].getsockname()
        again = True
        while again:
            feed.starts()
            starting = start_processes(
                testbed,
                workers=1,
                events=f"{host}:{port}",
                listen=f"127.0.0.1:{options.port}",
                terminal=_terminal(),
                debugger=f"127.0.0.1:{DEBUG_PORT}" if options.debug else "",
            )
            again = await _until_saved(starting, happened, screen, lesson, options.port)
            while not happened.empty():  # what was saved before the next start is in it
                again = happened.get_nowait() != "stop" and again
    await runtime.aclose()


async def _tell(
    listeners: Iterable[Callable[[dict[str, Any]], None]], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """Passes on the lines from the app's process; see RequestEvents."""
    async for line in reader:
        event = json.loads(line)
        for listener in listeners:
            listener(event)
    writer.close()


def _terminal() -> str:
    """The device of the terminal at which somebody sits, for breakpoint(); empty if there is none."""
    if sys.platform == "win32" or not sys.stdin.isatty() or not sys.stdout.isatty():
        return ""
    return os.ttyname(sys.stdin.fileno())


async def _saves(folder: Path, happened: asyncio.Queue[str], out: Console) -> None:
    async for files in watch_saves(folder, lambda sentence: out.print(sentence, style="bold red")):
        happened.put_nowait(", ".join(sorted(map(str, files))[:3]))


async def _until_saved(
    starting: AbstractAsyncContextManager[Processes],
    happened: asyncio.Queue[str],
    screen: Screen,
    lesson: Lesson,
    port: int,
) -> bool:
    """Runs the app until a file is saved (True) or somebody wants to stop (False)."""
    out = screen.out
    next_event = asyncio.create_task(happened.get())
    try:
        async with AsyncExitStack() as stack:
            entering = asyncio.ensure_future(stack.enter_async_context(starting))
            first: set[asyncio.Future[Any]] = {next_event, entering}
            await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
            if not entering.done():  # it may wait for an editor, or import forever
                entering.cancel()
                await asyncio.gather(entering, return_exceptions=True)
            else:
                await _run(entering.result(), next_event, happened, screen, f"http://127.0.0.1:{port}/docs")
    except AppDidNotStart as error:
        out.print("\n".join(tail(error.log, ROOT)), soft_wrap=True)
        if busy := place_of_frames(error.frames, screen.folder):
            out.print(f"{busy.path}:{busy.line}  in {busy.function}: {busy.error}", soft_wrap=True)
        # its log says so, too, but not whose port it is: another program has taken it since the last start
        out.print(f"{error if _is_free(port) else _taken(lesson, port)}", style="bold red", soft_wrap=True)
        out.print("Save a change to try again, or press Ctrl-C.", style="bold red")
    event = await next_event
    if event != "stop":
        out.print(f"\n{event} saved", style="bold")
    return event != "stop"


async def _run(
    served: Processes, next_event: asyncio.Task[str], happened: asyncio.Queue[str], screen: Screen, docs: str
) -> None:
    """Shows what the app does until something is saved or somebody wants to stop, and lets it leave."""
    out = screen.out
    out.print(f"{docs} · starts again on save · Ctrl-C sends SIGTERM", style="dim")
    if served.worker is not None:
        out.print(f"{base_name(served.worker.name)} runs beside the app; its lines begin with its name.", style="dim")
    screen.serves(served)
    following = asyncio.create_task(_follow(screen))
    running = {process: process.exit for process in served}
    while running and not next_event.done():
        either: set[asyncio.Future[Any]] = {next_event, *running.values()}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        for process in [process for process, ended in running.items() if ended.done() and not next_event.done()]:
            screen.logged()
            who = "The app" if process is served.app.process else base_name(process.name)
            out.print(f"{who} {how_it_ended(running.pop(process).result())} by itself.", style="bold red")
            out.print("Save a change to start it again, or press Ctrl-C.")
    if await next_event != "stop":
        await served.stop(within=5)
    elif not all(process.exit.done() for process in served):
        await _leave(served, happened, out)
    following.cancel()
    screen.logged()


async def _leave(served: Processes, happened: asyncio.Queue[str], out: Console) -> None:
    """SIGTERM, as a deploy sends it; a second Ctrl-C does not wait."""
    what = "the app" if served.worker is None else f"the app and {base_name(served.worker.name)}"
    out.print(f"\nSIGTERM sent to {what}; Ctrl-C again kills it.", style="dim")
    leaving, again = asyncio.create_task(served.stop(within=30)), asyncio.create_task(happened.get())
    await asyncio.wait({leaving, again}, return_when=asyncio.FIRST_COMPLETED)
    left = leaving.result() if leaving.done() else None
    again.cancel()
    leaving.cancel()
    who, were = ("It", "was") if served.worker is None else ("They", "were")
    text = f"{who} left after {left.seconds:.1f} s." if left else f"{who} did not leave and {were} killed."
    out.print(text, style="bold" if left else "bold red")


async def _follow(screen: Screen) -> None:
    """What the processes print, a moment later: their logs are files."""
    while True:
        await asyncio.sleep(0.1)
        screen.logged()
