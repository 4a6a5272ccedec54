"""What ends a process of ours ends it properly, so that the server and the apps go with it."""

from __future__ import annotations

import signal
import time

ONE_SIGNAL = 3.0
"""Seconds in which signals count as one: one that is sent to the whole group, `uv run` passes on to us once more."""


def end_as_ctrl_c_does() -> None:
    """Makes SIGTERM and SIGHUP do what SIGINT does, whatever that is at the time: `timeout`, a closed terminal.

    SIGHUP stays ignored where it is, as with nohup.
    """
    # A shell starts what a script runs in the background with SIGINT ignored. asyncio then leaves the signal alone, and
    # an interrupt would hit any task, or all of them, instead of the main one, which ends the others in order.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    came = float("-inf")

    def end(signum: int, frame: object) -> None:
        nonlocal came
        before, came = came, time.monotonic()
        if came - before > ONE_SIGNAL:  # a second interrupt would cut the cleaning up short
            signal.raise_signal(signal.SIGINT)

    for name in ("SIGTERM", "SIGHUP"):
        signum = getattr(signal, name, None)  # Windows has no SIGHUP
        if signum is not None and signal.getsignal(signum) is signal.SIG_DFL:
            signal.signal(signum, end)
