"""Runs one app with uvicorn in this process: our last lines on the learner's side of the fence.

Reached in two ways: forked by the warm parent (`nursery`), or as a fresh interpreter that reads
its order from standard input:

    python -m checks.kit.service.child
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

from checks.kit.service.order import FD, Order, bind, connect, number_of, split


def run(order: Order) -> None:
    """Takes over environment, folder, output and limits, then serves until told to stop."""
    try:
        log = number_of(order.log) if order.log.startswith(FD) else open_log(order.log)
    except FileNotFoundError:  # whoever asked for this has gone, and the folder with it
        raise SystemExit(1) from None
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    os.environ.clear()
    os.environ.update(order.env)
    os.chdir(order.folder)
    sys.path.insert(0, order.folder)
    sys.argv = list(order.command) or ["uvicorn", order.app]
    if order.pycache:
        # compiled files belong to us, and nothing of ours may appear below the learner's folder
        sys.pycache_prefix = order.pycache
        sys.dont_write_bytecode = False
    else:
        sys.dont_write_bytecode = True
    _limit(order)
    if order.command:
        import runpy

        runpy.run_module(order.command[0], run_name="__main__", alter_sys=True)
    elif order.workers == 1:
        _serve(order, bind(order.listen) if order.listen.startswith(FD) else None)
    else:
        _supervise(order)


def open_log(path: str) -> int:
    """A descriptor that appends to `path`."""
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)


def _limit(order: Order) -> None:
    try:
        import resource
    except ImportError:  # Windows has none
        return
    wanted = {
        resource.RLIMIT_AS: order.memory,
        resource.RLIMIT_FSIZE: order.file_size,
        resource.RLIMIT_CPU: order.cpu,
        resource.RLIMIT_NPROC: order.processes,
        resource.RLIMIT_NOFILE: order.files,
    }
    for kind, limit in wanted.items():
        if limit:
            # what counts processor time warns once before it kills
            hard = limit + 5 if kind == resource.RLIMIT_CPU else limit
            try:
                resource.setrlimit(kind, (limit, hard))
            except (ValueError, OSError):  # macOS knows no RLIMIT_AS; a lower hard limit is limit enough
                continue
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _supervise(order: Order) -> None:
    """Forks the workers around one listening socket, passes signals on, ends when all have ended."""
    listener = bind(order.listen)
    listener.listen(2048)
    workers = []
    for _ in range(order.workers):
        pid = os.fork()
        if pid == 0:
            _serve(order, listener)
            os._exit(0)
        workers.append(pid)

    def forward(signum: int, _frame: object) -> None:
        for worker in workers:
            os.kill(worker, signum)

    signal.signal(signal.SIGTERM, forward)
    signal.signal(signal.SIGINT, forward)
    codes = [os.waitstatus_to_exitcode(os.waitpid(worker, 0)[1]) for worker in workers]
    sys.exit(max(abs(code) for code in codes))


def _serve(order: Order, listener: socket.socket | None) -> None:
    import asyncio

    import uvicorn
    from uvicorn.config import STARTUP_FAILURE

    class Server(uvicorn.Server):
        asked: Callable[[], object] = staticmethod(lambda: None)  # before the main loop there is nothing to wake

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            with connect(order.ready) as notice:
                notice.sendall(b"ready\n")

        async def main_loop(self) -> None:
            """uvicorn looks every 0.1 s whether it was asked to stop; a grader that asks often need not wait."""
            asked = asyncio.Event()
            loop = asyncio.get_running_loop()
            self.asked = lambda: loop.call_soon_threadsafe(asked.set)
            ticking, waiting = asyncio.ensure_future(super().main_loop()), asyncio.ensure_future(asked.wait())
            await asyncio.wait({ticking, waiting}, return_when=asyncio.FIRST_COMPLETED)
            ticking.cancel()
            waiting.cancel()

        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            super().handle_exit(sig, frame)
            self.asked()

    by_path = "/" in order.listen
    host, port = split(order.listen) if not by_path and listener is None else ("127.0.0.1", 0)
    config = uvicorn.Config(
        order.app, uds=order.listen if by_path else None, host=host, port=port, ws="none", access_log=False
    )
    config.load_app()
    if order.events:
        config.load()
        config.loaded_app = Announcer(config.loaded_app, connect(order.events))
    server = Server(config)
    server.run(sockets=[listener] if listener else None)
    if not server.started:
        sys.exit(STARTUP_FAILURE)


class Announcer:
    """ASGI: tells when a request arrives and when the first byte of its answer leaves."""

    def __init__(self, app: Any, events: socket.socket) -> None:
        self._app = app
        self._events = events

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = f"{scope['method']} {scope['path']}"
        self._tell(request=request)

        async def tell_and_send(message: Any) -> None:
            if message["type"] == "http.response.start":
                self._tell(request=request, status=message["status"])
            await send(message)

        await self._app(scope, receive, tell_and_send)

    def _tell(self, **event: object) -> None:
        with contextlib.suppress(OSError):
            self._events.sendall(json.dumps(event).encode() + b"\n")


if __name__ == "__main__":
    run(Order.from_json(sys.stdin.read()))
