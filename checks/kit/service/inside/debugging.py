"""breakpoint() in the learner's code, and a debugger of an editor."""

from __future__ import annotations

import os
import re
import sys
from typing import Any

from checks.kit.service.inside.spec import connect, split


def open_debugger(address: str, events: str) -> None:
    """Waits until an editor has attached to debugpy at `host:port`; breakpoint() stops there from then on.

    `events` is an address that gets a line of JSON when an editor can attach.
    """
    import debugpy

    debugpy.configure(subProcess=False)
    debugpy.listen(split(address))
    with connect(events) as listener:
        listener.sendall(b'{"debugger": "listens"}\n')
    debugpy.wait_for_client()
    sys.breakpointhook = debugpy.breakpoint


def stop_in_terminal(path: str) -> None:
    """From now on breakpoint() opens pdb in the terminal whose device is `path`."""

    def stop(*_args: object, **_options: object) -> None:
        import pdb

        # O_NOCTTY: the terminal stays that of `workbook serve`, and Ctrl-C with it
        device = os.open(path, os.O_RDWR | os.O_NOCTTY)
        keyboard, screen = os.fdopen(device), os.fdopen(os.dup(device), "w")
        screen.write("\nbreakpoint(): the app waits here. c goes on, w shows the stack, p prints a value.\n")
        # nosigint: a path operation without async runs in a thread, which may not handle signals
        debugger = pdb.Pdb(stdin=keyboard, stdout=screen, nosigint=True)
        debugger.set_trace(sys._getframe(1))

    sys.breakpointhook = stop


def refuse_breakpoints(folder: str) -> None:
    """From now on breakpoint() raises an exception that says where it works; `folder` is the lesson's."""
    lesson = re.search(r"lesson_(\d+)$", folder)
    number = int(lesson[1]) if lesson else "N"

    def refuse(*_args: object, **_options: object) -> Any:
        raise RuntimeError(
            f"breakpoint() has no keyboard here. It works under `workbook serve {number}` in a terminal, "
            f"or with an editor: workbook serve {number} --debug"
        )

    sys.breakpointhook = refuse
