"""The warm parent: imports what every app imports once, then forks a ready interpreter for each app.

A process of its own, so that the fork copies no event loop, no threads and no state of the grader.
It speaks lines of JSON over the Unix socket that is its standard input:

    in   {"id": 7, "order": {...}}           fork and run
         {"id": 7, "signal": 15}             signal to the app's main process
         {"id": 7, "kill": true}             SIGKILL to its whole process group
         {"id": 7, "port": true}             listen on a port of 127.0.0.1
    out  {"id": 7, "pid": 4711}              forked
         {"id": 7, "exit": 3}                ended; negative: by that signal

A line with "fds": 2 comes with as many open descriptors: an order finds them under the numbers FIRST, FIRST + 1
and so on; the listening socket of a port leaves through the one that came with its line.

When the other side goes away, however it dies, every process group is killed and the parent leaves.

    python -m checks.kit.service.nursery [FD|--confined [MODULE...]]

imports the modules instead of what apps need. FD, unless it is -1, is a listening socket: each connection
to it is such a control socket, and gets a nursery of its own. --confined is for a nursery in a sandbox.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import select
import signal
import socket
import sys
import warnings
from collections.abc import Iterable
from typing import Any

from checks.kit.service.child import run
from checks.kit.service.order import Order

FIRST = 64
"""The number under which an app finds the first descriptor that came with its order."""

PRELOAD = (
    "uvicorn",
    "uvicorn.lifespan.on",
    "uvicorn.loops.auto",
    "uvicorn.protocols.http.auto",
    "fastapi",
    "pydantic_settings",
    "sqlalchemy.ext.asyncio",
    "sqlalchemy.orm",
    "sqlalchemy.dialects.postgresql.asyncpg",
    "asyncpg",
    # what FastAPI and Starlette import late, at the first route and at the first request
    "pydantic.v1",
    "anyio._backends._asyncio",
)

FOR_COMMAND = {"alembic": ("alembic.config",)}
"""What a command imports; done once, before the first one of its kind is forked."""


class Nursery:
    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._pending = b""
        self._fds: list[int] = []  # that came, and whose lines have not been read yet
        self._apps: dict[int, int] = {}  # pid of a living app: its id

    def serve(self) -> None:
        # a byte per SIGCHLD, so that select wakes for a death as it wakes for a line
        wake_read, wake_write = os.pipe()
        os.set_blocking(wake_write, False)
        os.set_blocking(wake_read, False)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the grader's to handle
        _adopt_orphans()
        while True:
            readable, _, _ = select.select([self._control.fileno(), wake_read], [], [])
            if wake_read in readable:
                with contextlib.suppress(BlockingIOError):
                    os.read(wake_read, 4096)
                self._reap()
            if self._control.fileno() in readable:
                data, fds, _, _ = socket.recv_fds(self._control, 65536, 16)
                self._fds += fds
                if not data:
                    return
                *lines, self._pending = (self._pending + data).split(b"\n")
                for line in lines:
                    self._obey(json.loads(line))

    def _obey(self, message: dict[str, Any]) -> None:
        app = message["id"]
        count = message.get("fds", 0)
        fds, self._fds = self._fds[:count], self._fds[count:]
        if "order" in message:
            self._fork(app, Order(**message["order"]), fds)
        elif "port" in message:
            _open_port(fds[0])
        else:
            self._signal(app, message)
        for fd in fds:
            os.close(fd)

    def _signal(self, app: int, message: dict[str, Any]) -> None:
        for pid in [pid for pid, owner in self._apps.items() if owner == app]:
            with contextlib.suppress(ProcessLookupError):
                if "signal" in message:
                    os.kill(pid, message["signal"])
                else:
                    os.killpg(pid, signal.SIGKILL)

    def _fork(self, app: int, order: Order, fds: list[int]) -> None:
        if order.command:
            _import(FOR_COMMAND.get(order.command[0], ()))
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                os.setsid()
                signal.set_wakeup_fd(-1)
                for name in (signal.SIGCHLD, signal.SIGINT):
                    signal.signal(name, signal.SIG_DFL)
                signal.signal(signal.SIGINT, signal.default_int_handler)
                self._control.close()
                null = os.open(os.devnull, os.O_RDONLY)
                os.dup2(null, 0)
                for number, fd in enumerate(fds, FIRST):
                    os.dup2(fd, number)
                os.closerange(3, FIRST)
                run(order)
                code = 0
            except SystemExit as leave:
                code = _exit_code(leave)
            except BaseException:
                sys.excepthook(*sys.exc_info())
            finally:
                code = _farewell(code)
                os._exit(code)
        self._apps[pid] = app
        self._say(id=app, pid=pid)

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            app = self._apps.pop(pid, None)
            if app is None:
                continue  # an orphan of an app that we adopted
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(pid, signal.SIGKILL)  # what the app left behind in its group
            self._say(id=app, exit=os.waitstatus_to_exitcode(status))

    def close(self) -> None:
        for pid in self._apps:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)

    def _say(self, **message: object) -> None:
        with contextlib.suppress(OSError):
            self._control.sendall(json.dumps(message).encode() + b"\n")


def _open_port(through: int) -> None:
    """Sends a socket that listens on 127.0.0.1; it belongs to the network that this process lives in."""
    with socket.socket() as listener, socket.socket(fileno=os.dup(through)) as out:
        listener.bind(("127.0.0.1", 0))
        listener.listen(512)
        socket.send_fds(out, [b"port"], [listener.fileno()])


def _exit_code(leave: SystemExit) -> int:
    """What the interpreter would do with this SystemExit: a text is printed and counts as 1."""
    if leave.code is None:
        return 0
    if isinstance(leave.code, int):
        return leave.code & 0xFF
    print(leave.code, file=sys.stderr)
    return 1


def _farewell(code: int) -> int:
    """Ends as the interpreter would: non-daemon threads are waited for, exit handlers run, output is flushed."""
    import atexit
    import threading

    try:
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:
        return code or 120
    return code


def _adopt_orphans() -> None:
    """On Linux, grandchildren whose parent ended become ours instead of init's, so that they cannot hide."""
    if sys.platform == "linux":
        import ctypes

        set_child_subreaper = 36
        ctypes.CDLL(None, use_errno=True).prctl(set_child_subreaper, 1, 0, 0, 0)


def _for_each_connection(control: socket.socket, listener: socket.socket) -> None:
    """Forks a nursery for each connection; comes back in the parent when `control` closes."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody asks how a nursery ended
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while True:
        readable, _, _ = select.select([control, listener], [], [])
        if control in readable:
            return
        connection, _ = listener.accept()
        if os.fork() == 0:
            control.close()
            listener.close()
            _serve(connection)
            os._exit(0)
        connection.close()


def _serve(control: socket.socket) -> None:
    nursery = Nursery(control)
    try:
        nursery.serve()
    finally:
        nursery.close()


def _import(modules: Iterable[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydantic.v1 warns on the newest Pythons; the apps import it anyway
        for name in modules:
            with contextlib.suppress(ImportError):  # the app will say so itself, with its own traceback
                importlib.import_module(name)


def main() -> None:
    control = socket.socket(fileno=os.dup(0))
    inherited, *modules = sys.argv[1:] or ["-1"]
    if inherited == "--confined":
        from checks.kit.service.sandbox import settle_in

        settle_in()
    gc.disable()  # nothing is thrown away during imports: without the collector they take a sixth less time
    _import(modules or PRELOAD)
    gc.freeze()  # first: enabled, the collector would go through all of it at once
    gc.enable()
    if inherited in ("-1", "--confined"):
        _serve(control)
    else:
        _for_each_connection(control, socket.socket(fileno=int(inherited)))


if __name__ == "__main__":
    main()
