"""Starts the warm parent. Imports next to nothing, so that this can be the first thing a process does."""

import os
import socket
import subprocess
import sys

Nursery = tuple[socket.socket, "subprocess.Popen[bytes]"]

_begun: list[Nursery] = []


def begin() -> None:
    """Starts a nursery now for whoever takes one later; nothing where apps are not forked."""
    if hasattr(os, "fork") and not os.environ.get("WORKBOOK_SPAWN") and not _begun:
        _begun.append(start())


def take() -> Nursery:
    """The nursery that was begun, or a new one."""
    return _begun.pop() if _begun else start()


def start() -> Nursery:
    """A nursery in a session of its own, and the socket that commands it; closing the socket ends it."""
    control, theirs = socket.socketpair()
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    with theirs:
        command = [sys.executable, "-m", "checks.kit.service.nursery"]
        nursery = subprocess.Popen(command, stdin=theirs.fileno(), cwd=root, start_new_session=True)
    return control, nursery
