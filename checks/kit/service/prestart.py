"""Starts a fork server. Imports next to nothing, so that it can be the first thing that a process does."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from pathlib import Path

ForkServerProcess = tuple[socket.socket, "subprocess.Popen[bytes]"]
"""The socket that commands a fork server, and its process."""

ROOT = Path(__file__).resolve().parents[3]
"""The checkout: the folder from which `checks` is imported."""

_prestarted: list[ForkServerProcess] = []


def prestart() -> None:
    """Starts a fork server now, for the first `take` to return; does nothing where apps are not forked."""
    if hasattr(os, "fork") and not os.environ.get("WORKBOOK_SPAWN") and not _prestarted:
        with contextlib.suppress(OSError):  # too many processes: that is said when one is needed
            _prestarted.append(start_fork_server())


def take_fork_server() -> ForkServerProcess:
    """The fork server that `prestart` started, or a new one."""
    return _prestarted.pop() if _prestarted else start_fork_server()


def start_fork_server(*modules: str, listener: socket.socket | None = None) -> ForkServerProcess:
    """A fork server in a session of its own, and the socket that commands it; closing the socket ends it.

    It imports `modules` instead of what apps need. With a `listener` it forks a copy of itself for each connection.
    """
    # A socket pair, not a pipe or a signal: when this process dies, however it dies, the kernel closes our end, and the
    # fork server reads that as the order to kill its apps and leave.
    control, theirs = socket.socketpair()
    with theirs:
        inherited = [listener.fileno()] if listener else []
        command = [
            sys.executable,
            "-m",
            "checks.kit.service.inside.fork_server",
            *map(str, inherited or [-1]),
            *modules,
        ]
        process = subprocess.Popen(command, stdin=theirs.fileno(), cwd=ROOT, start_new_session=True, pass_fds=inherited)
    return control, process
