"""What postmaster.pid says: a file that each server keeps in its data folder as long as it runs.

Its lines: process, data folder, start, port, socket folder, host, shared memory, status.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from pathlib import Path

from checks.kit.postgres.address import Address


def read_postmaster(data: Path) -> list[str] | None:
    """The lines of postmaster.pid if the process it names is alive and the server of this data folder, else None."""
    try:
        lines = (data / "postmaster.pid").read_text().splitlines()
        pid = int(lines[0])
        if sys.platform == "win32":
            import psutil

            return lines if psutil.pid_exists(pid) else None
        os.kill(pid, 0)
    except (OSError, ValueError, IndexError):
        return None
    return lines if _serves(pid, data) else None


def address_of(lines: list[str]) -> Address:
    """Where the server listens; its file must be complete, see `is_ready`."""
    port, folder, host = int(lines[3]), lines[4].strip(), lines[5].strip()
    return Address(folder or host or "127.0.0.1", port)


def is_ready(lines: list[str]) -> bool:
    """Whether the server accepts connections, or did so before it was told to stop."""
    return len(lines) > 7 and lines[7].strip() == "ready"


def listens(address: Address) -> bool:
    """Whether somebody accepts connections on the address's Unix socket; true without one."""
    if address.socket_path is None:
        return True
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(address.socket_path)
        except OSError:
            return False
    return True


def _serves(pid: int, data: Path) -> bool:
    """Whether a process is the server of a data folder: it works in that folder.

    False for a dead server that nobody buried, and for a process that merely got its number. After a restart of the
    machine that may be any program, somebody else's PostgreSQL too. Cheap where /proc tells, else through psutil.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            return Path(f"/proc/{pid}/cwd").samefile(data)
        # root may not look into other accounts' processes in a container; everybody may read the command
        with contextlib.suppress(OSError):
            return os.fsencode(data) in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        return False
    import psutil

    try:
        return Path(psutil.Process(pid).cwd()).samefile(data)
    except (psutil.Error, OSError):
        return False
