"""Starts untrusted apps: in a sandbox with a fork server of its own, or with tight limits where there is no sandbox."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from typing import Any

from checks.kit.service import prestart, sandbox
from checks.kit.service.inside.child import open_log
from checks.kit.service.inside.fork_server import FIRST_FD
from checks.kit.service.inside.spec import FD, INHERITED, AppSpec, ProcessSpec, bind, connect
from checks.kit.service.launcher import ForkServerEnded, Process, WarmLauncher
from checks.kit.service.run_record import RunRecord
from checks.kit.service.sandbox import SandboxSpec


class SandboxedLauncher(WarmLauncher):
    """A sandbox for each run of the kit, which only processes of the same learner share.

    Where the machine can have no sandbox, the apps get the limits of one and a fork server of their own.
    """

    def __init__(self, run_record: RunRecord, sandbox_spec: SandboxSpec) -> None:
        self._sandbox_spec = sandbox_spec
        self._telling: set[asyncio.Future[None]] = set()
        sandboxed = bool(sandbox_spec.sandbox)
        super().__init__(run_record, lambda: _start(sandbox_spec) if sandboxed else prestart.start_fork_server())

    async def launch(self, spec: ProcessSpec) -> Process:
        spec = replace(
            spec,
            memory=sandbox.MAX_MEMORY,
            file_size=sandbox.MAX_FILE_SIZE,
            cpu=sandbox.MAX_CPU,
            pycache="/tmp/pycache",
        )
        if not self._sandbox_spec.sandbox:  # compiled files of untrusted code go nowhere that a grader imports from
            return await super().launch(replace(spec, pycache=str(self._run_record.scratch / "pycache")))
        env = {name: value for name, value in spec.env.items() if name not in INHERITED} | sandbox.environment()
        spec = replace(spec, processes=sandbox.MAX_PROCESSES, files=sandbox.MAX_FILES, env=env)
        with ExitStack() as stack:
            spec, fds = _open_for_sandbox(spec, stack)
            return await self._launch({"spec": asdict(spec)}, fds)

    async def port(self) -> socket.socket | None:
        return await self._socket("port")

    async def client(self) -> socket.socket | None:
        return await self._socket("client")

    async def _socket(self, kind: str) -> socket.socket | None:
        """A socket that was made in the sandbox, of a kind that the fork server knows; None where there is none."""
        if not self._sandbox_spec.sandbox:
            return None
        ours, theirs = socket.socketpair()
        with ours, theirs:
            try:
                await self._send({"id": next(self._ids), kind: True}, [theirs.fileno()])
                theirs.close()
                _, fds, _, _ = await asyncio.to_thread(socket.recv_fds, ours, 16, 1)
            except OSError:
                fds = []
        if not fds:
            raise ForkServerEnded
        return socket.socket(fileno=fds[0])

    def _process(self, number: int, pid: int) -> Process:
        if not self._sandbox_spec.sandbox:
            return super()._process(number, pid)
        return SandboxedProcess(pid, lambda **message: self._tell({"id": number, **message}))

    def _tell(self, message: dict[str, Any]) -> None:
        task = asyncio.ensure_future(self._send(message))
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)

    def close(self) -> None:
        if self._fork_server is not None and self._sandbox_spec.sandbox:
            self._fork_server.kill()  # PID 1 of the namespace, so the kernel kills everything inside with it
            self._fork_server.wait()
            self._running.clear()  # nothing is left to kill, and no way to it either
        super().close()


class SandboxedProcess(Process):
    """Its process number means something inside only, so signals go through the fork server.

    Out here the same number may be that of any process of this machine.
    """

    def __init__(self, pid: int, tell: Callable[..., None]) -> None:
        super().__init__(pid)
        self._tell = tell

    def signal(self, signum: int) -> None:
        if not self.exit.done():
            self._tell(signal=signum)

    def kill(self) -> None:
        if not self.exit.done():
            self._tell(kill=True)


def _start(sandbox_spec: SandboxSpec) -> prestart.ForkServerProcess:
    control, theirs = socket.socketpair()
    with theirs:
        program = [sys.executable, "-m", "checks.kit.service.inside.fork_server", "--sandboxed"]
        return control, sandbox.start(sandbox_spec, program, theirs.fileno())


def _open_for_sandbox(spec: ProcessSpec, stack: ExitStack) -> tuple[ProcessSpec, Sequence[int]]:
    """Opens what the sandbox cannot reach: the spec with descriptors in place of paths, and those descriptors.

    `stack` closes them.
    """
    log = open_log(spec.log)
    stack.callback(os.close, log)
    fds = [log]
    opened = {"log": f"{FD}{FIRST_FD}"}
    if spec.out:
        fds.append(open_log(spec.out))
        stack.callback(os.close, fds[-1])
        opened["out"] = f"{FD}{FIRST_FD + 1}"
    if isinstance(spec, AppSpec):
        for name, open_address in (("ready", connect), ("listen", bind), ("events", connect)):
            if address := getattr(spec, name):
                fds.append(stack.enter_context(open_address(address)).fileno())
                opened[name] = f"{FD}{FIRST_FD + len(fds) - 1}"
    return replace(spec, **opened), fds  # type: ignore[arg-type]
