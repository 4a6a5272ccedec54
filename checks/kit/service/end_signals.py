"""What ends a process of ours ends it properly, so that the server and the apps go with it."""

from __future__ import annotations

import signal


def end_as_ctrl_c_does() -> None:
    """Makes SIGTERM and SIGHUP do what SIGINT does, whatever that is at the time: `timeout`, a closed terminal.

    A signal that is ignored stays so, as with nohup.
    """
    for name in ("SIGTERM", "SIGHUP"):
        signum = getattr(signal, name, None)  # Windows has no SIGHUP
        if signum is not None and signal.getsignal(signum) is signal.SIG_DFL:
            signal.signal(signum, _end)


def _end(signum: int, frame: object) -> None:
    if callable(signal.getsignal(signal.SIGINT)):
        signal.raise_signal(signal.SIGINT)
    else:  # a shell starts what runs in its background with SIGINT ignored
        raise KeyboardInterrupt
