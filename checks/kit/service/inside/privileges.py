"""What a process in a sandbox gives up before it does anything else."""

from __future__ import annotations

import ctypes
import os

USER = "WORKBOOK_SANDBOX_USER"
"""In the environment of a sandbox: the number of the account that its processes change to."""


def drop_privileges() -> None:
    """To be called inside, before anything else: gives up what is left of root, and closes itself to its children.

    Raises OSError if the account cannot be changed; nothing may run then.
    """
    if number := os.environ.pop(USER, ""):
        # in this order: after setuid there is no right left to change the groups
        os.setgroups([])
        os.setgid(int(number))
        os.setuid(int(number))
    # A process that cannot be dumped cannot be traced, and /proc/PID/mem and fd of it are closed to its own account.
    # After setuid, because changing the account sets it anew.
    set_dumpable = 4
    ctypes.CDLL(None).prctl(set_dumpable, 0, 0, 0, 0)
