"""Starts processes that run apps: forked from a warm parent where there is fork, spawned elsewhere."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

from checks.kit import head_start
from checks.kit.service.journal import Journal
from checks.kit.service.order import Order, connect
from checks.kit.service.sandbox import Confinement

HERE = Path(__file__).resolve().parents[3]


class Process:
    """A running app's main process. `exit` is its code once it has ended; negative: ended by that signal."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.exit: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def ended(self, code: int) -> None:
        if not self.exit.done():
            self.exit.set_result(code)

    def signal(self, signum: int) -> None:
        """To the main process only, as a process manager would send it."""
        if not self.exit.done():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signum)

    def kill(self) -> None:
        """SIGKILL to the whole process group; on Windows to the process."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if sys.platform == "win32":
                os.kill(self.pid, signal.SIGTERM)
            else:
                os.killpg(self.pid, signal.SIGKILL)


class Launcher(Protocol):
    async def launch(self, order: Order) -> Process: ...

    async def port(self) -> socket.socket | None:
        """A listening socket on 127.0.0.1 as the apps see it; None where they see the same one as everybody."""

    def close(self) -> None: ...


def open_launcher(journal: Journal, environ: Mapping[str, str] = os.environ) -> Launcher:
    """The warm launcher, already on its way when this returns; WORKBOOK_SPAWN=1 asks for the plain one."""
    if confinement := Confinement.from_environ(environ):
        from checks.kit.service.confined import ConfinedLauncher

        return ConfinedLauncher(journal, confinement)
    if not hasattr(os, "fork") or environ.get("WORKBOOK_SPAWN"):
        return SpawnLauncher(journal)
    if shared := environ.get(SHARED):
        return WarmLauncher(journal, connect(shared), None)
    return WarmLauncher(journal, *head_start.take())


SHARED = "WORKBOOK_NURSERY"
"""In the environment: the Unix socket of a warm parent that serves several graders, each by a fork of itself."""


class WarmLauncher:
    """Talks to a `nursery`, whose imports go on while the grader does other things."""

    def __init__(self, journal: Journal, control: socket.socket, nursery: subprocess.Popen[bytes] | None) -> None:
        self._journal = journal
        self._control = control
        self._nursery = nursery
        self._ids = itertools.count(1)
        self._starting: dict[int, asyncio.Future[Process]] = {}
        self._running: dict[int, Process] = {}
        self._connecting = asyncio.Lock()
        self._listening: asyncio.Task[None] | None = None
        self._writer: asyncio.StreamWriter | None = None
        if nursery is not None:
            journal.add(nursery.pid)

    async def launch(self, order: Order) -> Process:
        number = next(self._ids)
        starting = self._starting[number] = asyncio.get_running_loop().create_future()
        await self._send({"id": number, "order": asdict(order)})
        process: Process = await starting
        return process

    async def port(self) -> socket.socket | None:
        return None

    async def _send(self, message: dict[str, Any], fds: Sequence[int] = ()) -> None:
        async with self._connecting:  # two stages may be set at once, and there is one socket
            if self._writer is None:
                reader, self._writer = await asyncio.open_connection(sock=self._control)
                self._listening = asyncio.create_task(self._listen(reader))
        line = json.dumps({**message, "fds": len(fds)}).encode() + b"\n"
        if fds:
            socket.send_fds(self._control, [line], fds)
        else:
            self._writer.write(line)

    def _process(self, number: int, pid: int) -> Process:
        self._journal.add(pid)
        return Process(pid)

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        async for line in reader:
            message = json.loads(line)
            number = message["id"]
            if "pid" in message:
                process = self._running[number] = self._process(number, message["pid"])
                starting = self._starting.pop(number)
                if starting.cancelled():  # whoever asked for it is gone
                    process.kill()
                else:
                    starting.set_result(process)
            else:
                self._running.pop(number).ended(message["exit"])
        gone = RuntimeError("The process that starts apps has ended. Run the same command again.")
        for waiting in self._starting.values():
            if not waiting.done():
                waiting.set_exception(gone)
        for process in self._running.values():
            process.ended(-int(signal.SIGKILL))

    def close(self) -> None:
        """Every app dies with its process group; does not wait for the nursery to leave."""
        for process in self._running.values():
            process.kill()
        try:
            if self._listening is not None and self._writer is not None:
                self._listening.cancel()
                self._writer.transport.abort()  # the loop must forget the socket before its number is used again
            else:
                self._control.close()
        except RuntimeError:  # the loop is closed already, and with it whatever it knew
            self._control.close()
        if self._nursery is not None:
            self._nursery.terminate()


class SpawnLauncher:
    """A fresh interpreter for each app: about a second each, everywhere the same."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._running: set[Process] = set()
        self._watching: set[asyncio.Task[None]] = set()

    async def launch(self, order: Order) -> Process:
        child = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "checks.kit.service.child",
            stdin=asyncio.subprocess.PIPE,
            cwd=HERE,
            start_new_session=True,
        )
        assert child.stdin is not None
        child.stdin.write(order.to_json().encode())
        child.stdin.close()
        self._journal.add(child.pid)
        process = Process(child.pid)
        self._running.add(process)
        task = asyncio.create_task(self._watch(child, process))
        self._watching.add(task)
        task.add_done_callback(self._watching.discard)
        return process

    async def port(self) -> socket.socket | None:
        return None

    async def _watch(self, child: asyncio.subprocess.Process, process: Process) -> None:
        code = await child.wait()
        process.kill()  # what the app left behind in its group
        process.ended(code)
        self._running.discard(process)

    def close(self) -> None:
        for process in self._running:
            process.kill()
