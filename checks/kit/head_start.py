"""Starts the warm parent. Imports next to nothing, so that this can be the first thing a process does.

Importing pytest takes a sixth of a cold run, and no plugin is asked before that. So head_start.pth, which lies
beside the installed packages, lets Python call `at_start` whenever it starts with a lesson among its arguments.
"""

import os
import socket
import subprocess
import sys

Nursery = tuple[socket.socket, "subprocess.Popen[bytes]"]

CHECKS = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

_begun: list[Nursery] = []


def grades(arguments: list[str]) -> bool:
    """Whether these arguments of pytest name a lesson's checks."""
    lessons = os.path.join(CHECKS, "lesson_")
    named = [argument.partition("::")[0] for argument in arguments if not argument.startswith("-")]
    return any(os.path.abspath(path).startswith(lessons) for path in named or [os.getcwd()])


def at_start() -> None:
    """Begins where pytest is about to grade a lesson of this checkout."""
    arguments = sys.orig_argv[1:]
    if grades(arguments) and any(os.path.basename(argument).split(".")[0] == "pytest" for argument in arguments):
        sys.excepthook = _without_a_traceback
        begin()
        return
    for name in ("checks", "checks.kit", __name__):  # the checkout in the current folder may be another one
        del sys.modules[name]


def _without_a_traceback(kind: type[BaseException], error: BaseException, trace: object) -> None:
    """For a Ctrl-C that comes before pytest listens: only imports have been interrupted."""
    if issubclass(kind, KeyboardInterrupt):
        sys.stderr.write("\nInterrupted. Nothing was graded yet; run the same command again.\n")
    else:
        sys.__excepthook__(kind, error, trace)  # type: ignore[arg-type]


def begin() -> None:
    """Starts a nursery now for whoever takes one later; nothing where apps are not forked."""
    if hasattr(os, "fork") and not os.environ.get("WORKBOOK_SPAWN") and not _begun:
        _begun.append(start())


def take() -> Nursery:
    """The nursery that was begun, or a new one."""
    return _begun.pop() if _begun else start()


def start(*modules: str, listener: "socket.socket | None" = None) -> Nursery:
    """A nursery in a session of its own, and the socket that commands it; closing the socket ends it.

    It imports `modules` instead of what apps need. With a `listener` it makes a nursery for each connection.
    """
    control, theirs = socket.socketpair()
    with theirs:
        inherited = [listener.fileno()] if listener else []
        command = [sys.executable, "-m", "checks.kit.service.nursery", *map(str, inherited or [-1]), *modules]
        nursery = subprocess.Popen(
            command, stdin=theirs.fileno(), cwd=os.path.dirname(CHECKS), start_new_session=True, pass_fds=inherited
        )
    return control, nursery
