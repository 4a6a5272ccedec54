"""What the machine must offer for a run, looked at before anything starts: otherwise it fails somewhere in between."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

from checks.kit.lessons.errors import WorkbookError

NEEDED_TASKS = 100
"""Processes and threads of a run: PostgreSQL's, those of three apps with two workers each, and the grader's."""

LOW_LIMIT = 2000
"""A limit of processes from which on it is not worth a count of those that there are."""

MANY_PER_CORE = 5
"""Processes that want one core at a time, from which on a machine is busy, as an average of the last minute."""


def check_machine() -> None:
    """Raises WorkbookError where a run cannot work, with what to do about it."""
    if not has_loopback():
        raise WorkbookError(
            "The loopback interface is off, and over 127.0.0.1 the service reaches its database. "
            "Switch it on: sudo ip link set lo up; or allow a network, where this is a sandbox or a container."
        )
    limit = task_limit()
    if limit is not None and limit < LOW_LIMIT and (used := count_tasks()) + NEEDED_TASKS > limit:
        raise WorkbookError(
            f"You may have {limit} processes and threads, {used} are there, and a run needs up to {NEEDED_TASKS} more. "
            f"Raise the limit: ulimit -u {LOW_LIMIT}; if that is refused, end other programs."
        )


def busy() -> str:
    """A sentence about a machine that has much else to do, for a check that waited in vain; empty if it has not."""
    if not hasattr(os, "getloadavg"):  # Windows
        return ""
    wanting, cores = os.getloadavg()[0], os.cpu_count() or 1
    if wanting < MANY_PER_CORE * cores:
        return ""
    return (
        f"But this machine is busy: {wanting:.0f} processes want to run, for each of which there should be a core, and "
        f"there {'is one' if cores == 1 else f'are {cores}'}. Run the check again when it is quiet."
    )


def has_loopback() -> bool:
    """Whether this process can reach 127.0.0.1. Nothing is sent: a UDP socket only looks up the way."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect(("127.0.0.1", 9))
    except OSError:
        return False
    return True


def task_limit() -> int | None:
    """How many processes and threads this user may have (ulimit -u); None where that is not limited, or not known."""
    if sys.platform != "linux" or os.getuid() == 0:  # the kernel does not hold root to it
        return None
    import resource

    limit, _ = resource.getrlimit(resource.RLIMIT_NPROC)
    return None if limit == resource.RLIM_INFINITY else limit


def count_tasks() -> int:
    """Processes and threads of this user, as the kernel counts them for the limit."""
    mine, count = os.getuid(), 0
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if process.stat().st_uid == mine:
                count += len(os.listdir(process / "task"))  # noqa: PTH208
        except OSError:  # it has ended
            continue
    return count
