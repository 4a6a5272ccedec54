"""Starts processes that run apps: forked from a fork server where there is fork, spawned elsewhere."""

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
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

from checks.kit.lessons.errors import WorkbookError
from checks.kit.service.inside.spec import ProcessSpec
from checks.kit.service.prestart import ROOT
from checks.kit.service.run_record import RunRecord

RESPONSE_TIMEOUT = 15.0
"""Seconds after which a response or a start counts as never coming; a bound for failures, not a measurement."""


LAUNCH_TIMEOUT = 120.0
"""Seconds within which a fork server must start a process; it may still be importing. A bound for failures."""


class ForkServerEnded(WorkbookError):
    """The fork server does not respond any more: it was killed or stopped."""

    def __init__(self) -> None:
        super().__init__(
            "The process that starts apps has ended or was stopped. The system may have killed it because memory ran "
            "out, or the app may have sent a signal to its parent process. Run the same command again."
        )


class Process:
    """A running app's main process. `exit` is its code once it has ended; negative: ended by that signal.

    Belongs to the event loop in which it was made.
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.exit: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def ended(self, code: int) -> None:
        """For launchers: the process is gone. A second call changes nothing."""
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
                return
            try:
                os.killpg(self.pid, signal.SIGKILL)
            except ProcessLookupError:  # it was forked a moment ago, and has no group of its own yet
                if not self.exit.done():
                    os.kill(self.pid, signal.SIGKILL)


class Launcher(Protocol):
    """Starts processes for one run, and ends them all with it.

    `lost` says that processes have ended because the kit could not keep them, and not by themselves.
    """

    lost: bool

    async def launch(self, spec: ProcessSpec) -> Process:
        """Starts what `spec` says; returns when the process exists, not when the app is ready.

        Raises ForkServerEnded.
        """

    def give_up(self) -> None:
        """Ends all processes, because one that was killed is not reported as ended; `lost` is true from then on."""

    async def port(self) -> socket.socket | None:
        """A listening socket on 127.0.0.1 as the apps see it; None where they see the same one as everybody."""

    async def client(self) -> socket.socket | None:
        """A socket that reaches the loopback of the apps once it is connected; None as with `port`."""

    def close(self) -> None:
        """Ends every process that is still running, with its process group."""


class WarmLauncher:
    """Talks to a fork server, whose imports go on while the grader does other things.

    `start` starts one, and returns the socket that commands it and its process, or None for the process where that
    belongs to somebody else. It is called at once, and again when a process is to be launched after the fork server
    has ended.
    """

    def __init__(
        self,
        run_record: RunRecord,
        start: Callable[[], tuple[socket.socket, subprocess.Popen[bytes] | None]],
    ) -> None:
        self.lost = False
        self._run_record = run_record
        self._start = start
        self._ids = itertools.count(1)
        self._starting: dict[int, asyncio.Future[Process]] = {}
        self._running: dict[int, Process] = {}
        self._connecting = asyncio.Lock()
        self._open()

    def _open(self) -> None:
        self._listening: asyncio.Task[None] | None = None
        self._writer: asyncio.StreamWriter | None = None
        try:
            self._control, self._fork_server = self._start()
        except (ConnectionError, FileNotFoundError):  # one that several graders share has ended
            raise ForkServerEnded from None
        self._ended = False
        if self._fork_server is not None:
            self._run_record.add(self._fork_server.pid)

    async def launch(self, spec: ProcessSpec) -> Process:
        return await self._launch({"spec": asdict(spec)})

    async def _launch(self, message: dict[str, Any], fds: Sequence[int] = ()) -> Process:
        number = next(self._ids)
        starting = self._starting[number] = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(LAUNCH_TIMEOUT):
                await self._send({"id": number, **message}, fds)
                process: Process = await starting
        except (TimeoutError, OSError):
            self.give_up()
            raise ForkServerEnded from None
        return process

    def give_up(self) -> None:
        self.lost = True
        if self._fork_server is not None:
            self._fork_server.kill()
        if self._writer is not None:
            self._writer.transport.abort()  # `_listen` then tells everybody who waits

    async def port(self) -> socket.socket | None:
        return None

    async def client(self) -> socket.socket | None:
        return None

    async def _send(self, message: dict[str, Any], fds: Sequence[int] = ()) -> None:
        async with self._connecting:  # two checks may launch at once, and there is one socket
            if self._ended:
                self._close_control()
                self._open()
            if self._writer is None:
                reader, self._writer = await asyncio.open_connection(sock=self._control)
                self._listening = asyncio.create_task(self._listen(reader))
        line = json.dumps({**message, "fds": len(fds)}).encode() + b"\n"
        if fds:  # asyncio's transports pass on no descriptors
            socket.send_fds(self._control, [line], fds)
        else:
            self._writer.write(line)

    def _process(self, number: int, pid: int) -> Process:
        self._run_record.add(pid)
        return Process(pid)

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        with contextlib.suppress(ConnectionError):  # it was killed before it had read all that we sent
            await self._read(reader)
        self.lost = self._ended = True
        for starting in self._starting.values():
            if not starting.done():
                starting.set_exception(ForkServerEnded())
        self._starting.clear()
        for process in self._running.values():
            process.ended(-int(signal.SIGKILL))
            process.kill()  # a fork server that was killed leaves them running
        self._running.clear()

    async def _read(self, reader: asyncio.StreamReader) -> None:
        async for line in reader:
            message = json.loads(line)
            number = message["id"]
            if "pid" in message:
                process = self._running[number] = self._process(number, message["pid"])
                starting = self._starting.pop(number)
                if starting.done():  # the caller is gone
                    process.kill()
                else:
                    starting.set_result(process)
            else:
                self._running.pop(number).ended(message["exit"])

    def close(self) -> None:
        """Every app dies with its process group; does not wait for the fork server to leave."""
        for process in self._running.values():
            process.kill()
        self._close_control()
        if self._fork_server is not None:
            self._fork_server.terminate()  # it may still be importing, and read the end of its socket late
            with contextlib.suppress(OSError):
                self._fork_server.send_signal(signal.SIGCONT)  # an app may have stopped it

    def _close_control(self) -> None:
        try:
            if self._listening is not None and self._writer is not None:
                self._listening.cancel()
                self._writer.transport.abort()  # the loop must forget the socket before its number is used again
            else:
                self._control.close()
        except RuntimeError:  # the loop is closed already, and with it whatever it knew
            self._control.close()


class SpawnLauncher:
    """A fresh interpreter for each app: about a second each, but works where there is no fork."""

    lost = False

    def __init__(self, run_record: RunRecord) -> None:
        self._run_record = run_record
        self._running: set[Process] = set()
        self._watching: set[asyncio.Task[None]] = set()

    async def launch(self, spec: ProcessSpec) -> Process:
        child = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "checks.kit.service.inside.child",
            stdin=asyncio.subprocess.PIPE,
            cwd=ROOT,  # where `checks` can be imported from
            start_new_session=True,
        )
        assert child.stdin is not None
        child.stdin.write(spec.to_json().encode())
        child.stdin.close()  # the child reads to the end of the file
        self._run_record.add(child.pid)
        process = Process(child.pid)
        self._running.add(process)
        task = asyncio.create_task(self._watch(child, process))
        self._watching.add(task)
        task.add_done_callback(self._watching.discard)
        return process

    def give_up(self) -> None:
        pass  # nothing is between it and its processes

    async def port(self) -> socket.socket | None:
        return None

    async def client(self) -> socket.socket | None:
        return None

    async def _watch(self, child: asyncio.subprocess.Process, process: Process) -> None:
        code = await child.wait()
        process.kill()  # what the app left behind in its group
        process.ended(code)
        self._running.discard(process)

    def close(self) -> None:
        for process in self._running:
            process.kill()


def text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return ""
