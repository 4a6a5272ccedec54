"""Runs a command in our place: the keyboard and the signals are its own."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from checks.kit.testbed.runtime import Runtime

KILL_AFTER = 5.0
"""Seconds after a SIGTERM or SIGHUP until a command that ignores it is killed, as an interactive shell does."""


async def run_in_foreground(
    runtime: Runtime, command: Sequence[str], *, folder: Path | None = None, env: Mapping[str, str] | None = None
) -> int:
    """Runs a command until it ends; its exit code, which is 128 and the signal's number if a signal ended it.

    The terminal sends it Ctrl-C. SIGTERM and SIGHUP, which reach this process, are passed on. `runtime` notes it.
    """
    loop = asyncio.get_running_loop()
    received: list[int] = []
    process: asyncio.subprocess.Process | None = None

    def send(signum: int) -> None:
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signum)

    def pass_on(signum: int, frame: object) -> None:
        received.append(signum)
        send(signum)
        loop.call_soon_threadsafe(loop.call_later, KILL_AFTER, send, getattr(signal, "SIGKILL", signal.SIGTERM))

    handlers: dict[str, Callable[[int, object], None]] = {
        "SIGTERM": pass_on,
        "SIGHUP": pass_on,
        # after those, which would otherwise become a SIGINT that is lost; not SIG_IGN, which the command would inherit
        "SIGINT": lambda *_: None,
    }
    before = {}
    try:
        for name, handler in handlers.items():
            if signum := getattr(signal, name, None):
                before[signum] = signal.signal(signum, handler)
        process = await asyncio.create_subprocess_exec(*command, cwd=folder, env=env)
        runtime.note_process(process.pid)
        for signum in received:  # while it was starting
            send(signum)
        code = await process.wait()
    finally:
        for signum, handler_before in before.items():
            signal.signal(signum, handler_before)
    return code if code >= 0 else 128 - code
