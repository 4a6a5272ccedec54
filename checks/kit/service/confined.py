"""Starts apps that nobody trusts: in a sandbox with a nursery of its own, or with tight limits where there is none."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from typing import Any

from checks.kit import head_start
from checks.kit.service import sandbox
from checks.kit.service.app import INHERITED
from checks.kit.service.child import open_log
from checks.kit.service.journal import Journal
from checks.kit.service.launcher import Process, WarmLauncher
from checks.kit.service.nursery import FIRST
from checks.kit.service.order import FD, Order, bind, connect
from checks.kit.service.sandbox import Confinement


class ConfinedLauncher(WarmLauncher):
    """A sandbox for each run of the kit: whoever is in it shares it with the same learner's other processes only."""

    def __init__(self, journal: Journal, confinement: Confinement) -> None:
        self._confinement = confinement
        self._telling: set[asyncio.Future[None]] = set()
        super().__init__(journal, *(_start(confinement) if confinement.sandbox else head_start.start()))

    async def launch(self, order: Order) -> Process:
        order = replace(
            order, memory=sandbox.MEMORY, file_size=sandbox.FILE_SIZE, cpu=sandbox.CPU, pycache="/tmp/pycache"
        )
        if not self._confinement.sandbox:  # compiled files of a stranger's go nowhere that the grader reads
            return await super().launch(replace(order, pycache=str(self._journal.scratch / "pycache")))
        env = {name: value for name, value in order.env.items() if name not in INHERITED} | sandbox.environment()
        order = replace(order, processes=sandbox.PROCESSES, files=sandbox.FILES, env=env)
        with ExitStack() as stack:
            order, fds = _hand_in(order, stack)
            number = next(self._ids)
            starting = self._starting[number] = asyncio.get_running_loop().create_future()
            await self._send({"id": number, "order": asdict(order)}, fds)
        process: Process = await starting
        return process

    async def port(self) -> socket.socket | None:
        if not self._confinement.sandbox:
            return None
        ours, theirs = socket.socketpair()
        with ours, theirs:
            await self._send({"id": next(self._ids), "port": True}, [theirs.fileno()])
            theirs.close()
            _, [fd], _, _ = await asyncio.to_thread(socket.recv_fds, ours, 16, 1)
        return socket.socket(fileno=fd)

    def _process(self, number: int, pid: int) -> Process:
        if not self._confinement.sandbox:
            return super()._process(number, pid)
        return _Inmate(pid, lambda **message: self._tell({"id": number, **message}))

    def _tell(self, message: dict[str, Any]) -> None:
        task = asyncio.ensure_future(self._send(message))
        self._telling.add(task)
        task.add_done_callback(self._telling.discard)

    def close(self) -> None:
        if self._nursery is not None and self._confinement.sandbox:
            self._nursery.kill()  # and with it everything inside
            self._nursery.wait()
            self._running.clear()
        super().close()


class _Inmate(Process):
    """Its number means something inside only: signals go through the nursery."""

    def __init__(self, pid: int, tell: Callable[..., None]) -> None:
        super().__init__(pid)
        self._tell = tell

    def signal(self, signum: int) -> None:
        if not self.exit.done():
            self._tell(signal=signum)

    def kill(self) -> None:
        if not self.exit.done():
            self._tell(kill=True)


def _start(confinement: Confinement) -> head_start.Nursery:
    control, theirs = socket.socketpair()
    with theirs:
        program = [sys.executable, "-m", "checks.kit.service.nursery", "--confined"]
        return control, sandbox.start(confinement, program, theirs.fileno())


def _hand_in(order: Order, stack: ExitStack) -> tuple[Order, Sequence[int]]:
    """Opens what the sandbox cannot reach: the order with descriptors in place of paths, and those descriptors."""
    log = open_log(order.log)
    stack.callback(os.close, log)
    fds = [log]
    opened = {"log": f"{FD}{FIRST}"}
    for name, open_address in (("ready", connect), ("listen", bind), ("events", connect)):
        if address := getattr(order, name):
            fds.append(stack.enter_context(open_address(address)).fileno())
            opened[name] = f"{FD}{FIRST + len(fds) - 1}"
    return replace(order, **opened), fds  # type: ignore[arg-type]
