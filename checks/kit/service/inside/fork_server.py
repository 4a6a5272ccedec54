"""The fork server: imports what every app imports once, then forks a ready interpreter for each app.

    grader --- a Unix socket ---> fork server --- fork ---> app
                                       |------- fork ---> app

A process of its own, so that the fork copies no event loop, no threads and no state of the grader.
It speaks lines of JSON over the Unix socket that is its standard input:

    in   {"id": 7, "spec": {...}}           fork and run
         {"id": 7, "signal": 15}             signal to the app's main process
         {"id": 7, "kill": true}             SIGKILL to its whole process group
         {"id": 7, "port": true}             listen on a port of 127.0.0.1
    out  {"id": 7, "pid": 4711}              forked
         {"id": 7, "exit": 3}                ended; negative: by that signal

A line with "fds": 2 comes with as many open descriptors: an app finds them under the numbers FIRST_FD, FIRST_FD + 1
and so on; the listening socket of a port leaves through the one that came with its line.

When the other side goes away, however it dies, and on SIGTERM, every process group is killed and the parent leaves.
On Linux so is what apps have moved out of their group: it is adopted, and killed when no app is left.

    python -m checks.kit.service.inside.fork_server [FD|--sandboxed [MODULE...]]

imports the modules instead of what apps need, and leaves orphans alone. FD, unless it is -1, is a listening socket:
each connection to it is such a control socket, and gets a fork server of its own. --sandboxed is for a fork server in
a sandbox.
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
import time
import warnings
from collections.abc import Iterable
from typing import Any

from checks.kit.service.inside.child import run
from checks.kit.service.inside.spec import ProcessSpec, bind_port, spec_from

FIRST_FD = 64
"""The number under which an app finds the first descriptor that came with its spec; above all that Python opens."""

MAX_FDS = 16
"""How many descriptors may come with one read of the control socket."""

MAX_SECONDS_OF_KILLING = 5.0
"""A bound for failures, such as a process that waits for a disk."""

# What nearly every app of the lessons imports: a fork then starts in milliseconds instead of a second. An app that
# imports none of it loses nothing but memory that it shares with its siblings.
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
    # from lesson 06 on: tokens, and the hashes of passwords
    "jwt",
    "pwdlib.hashers.argon2",
    "concurrent.futures.thread",
    # from lesson 07 on: calls of services outside; httpx imports the last two for its first client
    "httpx",
    "httpcore",
    "certifi",
    # from lesson 16 on: metrics and traces
    "prometheus_client",
    "opentelemetry.sdk.trace.export",
    "opentelemetry.exporter.otlp.proto.http.trace_exporter",
)

PRELOAD_FOR_COMMAND = {
    "alembic": ("alembic.config",),
    # not its plugins: pytest wants to import these itself, and warns where it cannot rewrite their assertions
    "pytest": (
        "pytest",
        *(f"_pytest.{name}" for name in ("faulthandler", "helpconfig", "junitxml", "pastebin", "setuponly")),
        *(f"_pytest.{name}" for name in ("setupplan", "skipping", "threadexception", "tracemalloc", "unittest")),
        *(f"_pytest.{name}" for name in ("unraisableexception", "warnings")),
        "unittest",
        "pdb",
        "random",
        "alembic.command",
        "alembic.config",
        "uvicorn.protocols.websockets.auto",
        "starlette.testclient",
    ),
}
"""What a command imports; done once, before the first one of its kind is forked."""


class ForkServer:
    """Forks apps on request and reports their ends, until the other side of `control` goes away."""

    def __init__(self, control: socket.socket, *, adopts: bool = True) -> None:
        self._control = control
        self._adopts = adopts
        self._pending = b""
        self._fds: list[int] = []  # that came, and whose lines have not been read yet
        self._apps: dict[int, int] = {}  # pid of a living app: its id
        self._leaving = False

    def serve(self) -> None:
        """Returns when the other side has closed the socket, or died."""
        # a byte per SIGCHLD, so that select wakes for a death as it wakes for a line; the handler itself does nothing,
        # but without one Python would not write the byte
        wake_read, wake_write = os.pipe()
        os.set_blocking(wake_write, False)
        os.set_blocking(wake_read, False)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the grader's to handle
        if os.getpid() != 1:  # that of a sandbox, which no signal from inside reaches unless there is a handler for it
            signal.signal(signal.SIGTERM, self._leave)
        if self._adopts:
            _adopt_orphans()
        while not self._leaving:
            readable, _, _ = select.select([self._control.fileno(), wake_read], [], [])
            if wake_read in readable:
                with contextlib.suppress(BlockingIOError):
                    os.read(wake_read, 4096)
                self._reap()
            if self._control.fileno() in readable:
                try:
                    data, fds, _, _ = socket.recv_fds(self._control, 65536, MAX_FDS)
                except ConnectionError:  # the other side was killed before it had read all that we said
                    return
                self._fds += fds
                if not data:
                    return
                *lines, self._pending = (self._pending + data).split(b"\n")
                for line in lines:
                    self._handle(json.loads(line))

    def _leave(self, *_: object) -> None:
        self._leaving = True  # the byte of the signal ends select

    def _handle(self, message: dict[str, Any]) -> None:
        app = message["id"]
        # descriptors arrive with the first byte of their line, perhaps long before its last: first come, first used
        count = message.get("fds", 0)
        fds, self._fds = self._fds[:count], self._fds[count:]
        if "spec" in message:
            self._fork(app, spec_from(message["spec"]), fds)
        elif "port" in message:
            _open_port(fds[0])
        elif "client" in message:
            _open_client(fds[0])
        else:
            self._signal(app, message)
        for fd in fds:
            os.close(fd)

    def _signal(self, app: int, message: dict[str, Any]) -> None:
        for pid in [pid for pid, owner in self._apps.items() if owner == app]:
            with contextlib.suppress(ProcessLookupError):
                if "signal" in message:  # to the main process alone, as a process manager would
                    os.kill(pid, message["signal"])
                    continue
                try:
                    os.killpg(pid, signal.SIGKILL)
                except ProcessLookupError:  # it was forked a moment ago, and has no group of its own yet
                    os.kill(pid, signal.SIGKILL)

    def _fork(self, app: int, spec: ProcessSpec, fds: list[int]) -> None:
        if spec.command:
            # in the parent, so that the next command of this kind finds it imported
            modules = PRELOAD_FOR_COMMAND.get(spec.command[0], ())
            if not all(name in sys.modules for name in modules):
                _import(modules)
                gc.freeze()  # as in main()
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                _end_with(parent)
                os.setsid()  # a group of its own, so that one kill reaches everything that it starts
                # signal dispositions survive a fork, and the app must find those of a fresh interpreter
                signal.set_wakeup_fd(-1)
                for name in (signal.SIGCHLD, signal.SIGINT, signal.SIGTERM):
                    signal.signal(name, signal.SIG_DFL)
                signal.signal(signal.SIGINT, signal.default_int_handler)
                self._control.close()
                null = os.open(os.devnull, os.O_RDONLY)
                os.dup2(null, 0)
                for number, fd in enumerate(fds, FIRST_FD):
                    os.dup2(fd, number)
                # the wake pipe, and descriptors that came for other apps
                os.closerange(3, FIRST_FD)
                run(spec)
                code = 0
            except SystemExit as leave:
                code = _exit_code(leave)
            except BaseException:
                sys.excepthook(*sys.exc_info())
            finally:
                code = _run_exit_handlers(code)
                os._exit(code)  # never back into the loop of the fork server
        self._apps[pid] = app
        self._say(id=app, pid=pid)

    def _reap(self) -> None:
        while True:  # signals do not queue: one SIGCHLD may report several deaths
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                if self._adopts and not self._apps:  # so whatever is left was adopted
                    _kill_descendants()
                return
            app = self._apps.pop(pid, None)
            if app is None:
                continue  # an orphan of an app that we adopted
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(pid, signal.SIGKILL)  # what the app left behind in its group
            self._say(id=app, exit=os.waitstatus_to_exitcode(status))

    def close(self) -> None:
        """Kills every app with its process group, and what it has moved out of that."""
        for pid in self._apps:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(pid, signal.SIGKILL)
        if self._adopts:
            _kill_descendants()

    def _say(self, **message: object) -> None:
        with contextlib.suppress(OSError):
            self._control.sendall(json.dumps(message).encode() + b"\n")


def _open_port(through: int) -> None:
    """Sends a socket that listens on 127.0.0.1 through the socket `through`.

    A socket belongs to the network namespace in which it was made, wherever it is used later. So the grader can listen
    on the loopback of a sandbox that it cannot enter.
    """
    with bind_port() as listener, socket.socket(fileno=os.dup(through)) as out:
        listener.listen(512)
        socket.send_fds(out, [b"port"], [listener.fileno()])


def _open_client(through: int) -> None:
    """Sends a socket through the socket `through` that is to be connected: to what apps listen on; see `_open_port`."""
    with socket.socket() as client, socket.socket(fileno=os.dup(through)) as out:
        socket.send_fds(out, [b"client"], [client.fileno()])


def _exit_code(leave: SystemExit) -> int:
    """What the interpreter would do with this SystemExit: a text is printed and counts as 1."""
    if leave.code is None:
        return 0
    if isinstance(leave.code, int):
        return leave.code & 0xFF
    print(leave.code, file=sys.stderr)
    return 1


def _run_exit_handlers(code: int) -> int:
    """Ends as the interpreter would: non-daemon threads are waited for, exit handlers run, output is flushed.

    os._exit does nothing of this, and sys.exit would run on in the fork server's own frames. 120 is what Python
    exits with when it cannot flush.
    """
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
    set_child_subreaper = 36
    _prctl(set_child_subreaper, 1)


def _end_with(parent: int) -> None:
    """On Linux this process is killed when the fork server is, also before anybody was told of it."""
    set_parent_death_signal = 1
    _prctl(set_parent_death_signal, signal.SIGKILL)
    if os.getppid() != parent:  # it has ended already
        os._exit(1)


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


def _kill_descendants() -> None:
    """Kills what this process has started or adopted, and what that has started; returns when all of it has ended.

    Where orphans are not adopted, these are the processes that are left of the apps' groups.
    """
    if _reaped_all():
        return
    import psutil

    this, deadline = psutil.Process(), time.monotonic() + MAX_SECONDS_OF_KILLING
    while time.monotonic() < deadline:
        for process in this.children(recursive=True):
            with contextlib.suppress(psutil.Error):  # it has just ended, or changed to another account
                process.kill()
        if _reaped_all():
            return
        time.sleep(0.002)


def _reaped_all() -> bool:
    """Takes note of the children that have ended; whether there is none left."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return True
    return False


def _for_each_connection(control: socket.socket, listener: socket.socket) -> None:
    """Forks a fork server for each connection; comes back in the parent when `control` closes."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody asks how a fork server ended; ignored, none stays a zombie
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


def _serve(control: socket.socket, *, adopts: bool = True) -> None:
    fork_server = ForkServer(control, adopts=adopts)
    try:
        fork_server.serve()
    finally:
        fork_server.close()


def _import(modules: Iterable[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydantic.v1 warns on the newest Pythons; the apps import it anyway
        for name in modules:
            with contextlib.suppress(ImportError):  # the app will say so itself, with its own traceback
                importlib.import_module(name)


def main() -> None:
    control = socket.socket(fileno=os.dup(0))
    inherited, *modules = sys.argv[1:] or ["-1"]
    if inherited == "--sandboxed":
        from checks.kit.service.inside.privileges import drop_privileges

        drop_privileges()  # first of all: the modules below are the learner's environment already
    gc.disable()  # nothing is thrown away during imports: without the collector they take a sixth less time
    _import(modules or PRELOAD)
    # Before enabling it, or the collector would go through all of it at once; and in each app, where touching an
    # object's header copies its page, which the fork had shared.
    gc.freeze()
    gc.enable()
    if inherited in ("-1", "--sandboxed"):
        # a grader may have started a PostgreSQL server, which other graders use after it has ended
        _serve(control, adopts=not modules)
    else:
        _for_each_connection(control, socket.socket(fileno=int(inherited)))


if __name__ == "__main__":
    main()
