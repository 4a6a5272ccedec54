"""Runs one app with uvicorn in this process: the last lines of the kit before the learner's code.

Reached in two ways: forked by the fork server (`fork_server`), or as a fresh interpreter that reads
its ProcessSpec from standard input:

    python -m checks.kit.service.inside.child
"""

from __future__ import annotations

import faulthandler
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from types import FrameType

from checks.kit.service.inside.debugging import open_debugger, refuse_breakpoints, stop_in_terminal
from checks.kit.service.inside.endpoint_header import EndpointHeader
from checks.kit.service.inside.request_events import RequestEvents
from checks.kit.service.inside.spec import FD, AppSpec, ProcessSpec, bind, connect, number_of, spec_from, split

HASH_SEED = "PYTHONHASHSEED"
"""An interpreter reads this variable when it starts, so a forked one cannot obey."""


def run(spec: ProcessSpec) -> None:
    """Takes over environment, folder, output and limits, then serves until told to stop.

    Ends with SystemExit where the app or command does, and lets every exception of theirs through.
    """
    if isinstance(spec, AppSpec) and spec.env.get(HASH_SEED, "") not in ("", os.environ.get(HASH_SEED)):
        _serve_in_a_fresh_interpreter(spec)
    try:
        log = _open(spec.log)
        out = _open(spec.out) if spec.out else log
    except FileNotFoundError:  # the caller has gone, and its folder with it
        raise SystemExit(1) from None
    # the descriptors, not sys.stdout: what C code and child processes write must land in the log too
    os.dup2(out, 1)
    os.dup2(log, 2)
    for number in {out, log}:
        os.close(number)
    os.environ.clear()
    os.environ.update(spec.env)
    if sys.platform != "win32":
        time.tzset()  # a forked process has the time zone of its parent, whatever TZ says now
    os.chdir(spec.folder)
    sys.path.insert(0, spec.folder)
    sys.argv = ["uvicorn", spec.app] if isinstance(spec, AppSpec) else list(spec.command)
    if spec.pycache:
        # compiled files belong to us, and nothing of ours may appear below the learner's folder
        sys.pycache_prefix = spec.pycache
        sys.dont_write_bytecode = False
    else:
        sys.dont_write_bytecode = True
    # after our own imports and files, so that a tight limit hits the learner's code and not us
    _limit(spec)
    refuse_breakpoints(spec.folder)
    if not isinstance(spec, AppSpec):
        if HASH_SEED in spec.env:
            _replace(spec)
        import runpy

        if spec.command[0] == "-c":
            sys.argv.pop(1)
            exec(compile(spec.command[1], "<command>", "exec"), {"__name__": "__main__"})
            return
        runpy.run_module(spec.command[0], run_name="__main__", alter_sys=True)
    elif spec.workers == 1:
        _serve(spec, bind(spec.listen) if spec.listen.startswith(FD) else None)
    else:
        _supervise(spec)


def _serve_in_a_fresh_interpreter(spec: AppSpec) -> None:
    """Goes on as a process that was started with this hash seed, and reads the same spec."""
    reading, writing = os.pipe()
    os.write(writing, spec.to_json().encode())  # far less than a pipe holds
    os.close(writing)
    os.dup2(reading, 0)
    os.close(reading)
    os.environ[HASH_SEED] = spec.env[HASH_SEED]
    os.execv(sys.executable, [sys.executable, "-m", "checks.kit.service.inside.child"])


def _replace(spec: ProcessSpec) -> None:
    """Goes on as a fresh interpreter."""
    compiled = ("PYTHONPYCACHEPREFIX", spec.pycache) if spec.pycache else ("PYTHONDONTWRITEBYTECODE", "1")
    os.environ.update([compiled])
    os.execv(sys.executable, [sys.executable, *([] if spec.command[0] == "-c" else ["-m"]), *spec.command])


def _open(path: str) -> int:
    return number_of(path) if path.startswith(FD) else open_log(path)


def open_log(path: str) -> int:
    """A descriptor that appends to `path`; several processes may hold one, and no write overwrites another."""
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)


def _limit(spec: ProcessSpec) -> None:
    try:
        import resource
    except ImportError:  # Windows has none
        return
    wanted = {
        resource.RLIMIT_AS: spec.memory,
        resource.RLIMIT_FSIZE: spec.file_size,
        resource.RLIMIT_CPU: spec.cpu,
        resource.RLIMIT_NPROC: spec.processes,
        resource.RLIMIT_NOFILE: spec.files,
    }
    for kind, limit in wanted.items():
        if limit:
            # the soft limit sends SIGXCPU, which leaves a trace in the exit code; the hard one kills
            hard = limit + 5 if kind == resource.RLIMIT_CPU else limit
            try:
                resource.setrlimit(kind, (limit, hard))
            except (ValueError, OSError):  # macOS knows no RLIMIT_AS; a lower hard limit is limit enough
                continue
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core file would be as big as the memory, in the lesson


def _supervise(spec: AppSpec) -> None:
    """Forks the workers around one listening socket, passes signals on, ends when all have ended.

    Not uvicorn's own supervisor: that one spawns fresh interpreters, which costs a second each.
    """
    listener = bind(spec.listen)
    listener.listen(2048)
    workers = []
    for _ in range(spec.workers):
        pid = os.fork()
        if pid == 0:
            _serve(spec, listener)
            os._exit(0)  # not sys.exit: the parent's exit handlers are the parent's
        workers.append(pid)

    def forward(signum: int, _frame: object) -> None:
        for worker in workers:
            os.kill(worker, signum)

    signal.signal(signal.SIGTERM, forward)
    signal.signal(signal.SIGINT, forward)
    codes = [os.waitstatus_to_exitcode(os.waitpid(worker, 0)[1]) for worker in workers]
    sys.exit(max(abs(code) for code in codes))


def _serve(spec: AppSpec, listener: socket.socket | None) -> None:
    import asyncio

    import uvicorn
    from uvicorn.config import STARTUP_FAILURE

    class Server(uvicorn.Server):
        asked: Callable[[], object] = staticmethod(lambda: None)  # before the main loop there is nothing to wake

        # the first moment at which a request gets a response; a file or a poll would be later or too early
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            faulthandler.cancel_dump_traceback_later()
            with connect(spec.ready) as notice:
                notice.sendall(b"ready\n")

        async def main_loop(self) -> None:
            """uvicorn looks every 0.1 s whether it was asked to stop. A grader stops many apps, so this wakes it."""
            asked = asyncio.Event()
            loop = asyncio.get_running_loop()
            # a signal handler runs between any two bytecodes, where only a thread-safe call may touch the loop
            self.asked = lambda: loop.call_soon_threadsafe(asked.set)
            ticking, waiting = asyncio.ensure_future(super().main_loop()), asyncio.ensure_future(asked.wait())
            await asyncio.wait({ticking, waiting}, return_when=asyncio.FIRST_COMPLETED)
            ticking.cancel()
            waiting.cancel()

        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            super().handle_exit(sig, frame)
            self.asked()

    if spec.terminal:
        stop_in_terminal(spec.terminal)
    if spec.debugger:
        open_debugger(spec.debugger, spec.events)
    if spec.dump_after:
        faulthandler.dump_traceback_later(spec.dump_after, file=2)
    by_path = "/" in spec.listen
    host, port = split(spec.listen) if not by_path and listener is None else ("127.0.0.1", 0)
    config = uvicorn.Config(
        spec.app, uds=spec.listen if by_path else None, host=host, port=port, ws="none", access_log=False
    )
    config.load_app()
    config.load()
    if spec.events:
        config.loaded_app = RequestEvents(config.loaded_app, connect(spec.events))
    else:
        config.loaded_app = EndpointHeader(config.loaded_app)
    server = Server(config)
    server.run(sockets=[listener] if listener else None)
    if not server.started:
        sys.exit(STARTUP_FAILURE)


if __name__ == "__main__":
    run(spec_from(json.load(sys.stdin)))
