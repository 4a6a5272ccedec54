"""Why an app did not start: what can be told from its exit code and its log."""

from __future__ import annotations

import re
from signal import Signals

OTHER_SERVER = re.compile(r"Uvicorn running on (?P<url>https?://\S+)|attempting to bind on address (?P<taken>\(.+?\))")
"""What uvicorn logs about an address. The app that we start has none of its own before it accepts requests."""

DUMP = re.compile(r"^Timeout \(\d+:\d\d:\d\d(\.\d+)?\)!\n", re.MULTILINE)
"""The first line of what faulthandler prints after a while: where each thread is, the newest call first."""

DUMPED_FRAME = re.compile(r'^  File "(?P<path>[^"]+)", line (?P<line>\d+) in (?P<function>\S+)$', re.MULTILINE)

MEANS = {
    "SIGKILL": "Somebody killed it, perhaps the system because memory ran out.",
    "SIGXCPU": "It used all of the processor time that it may use: is there a loop without an end?",
    "SIGSEGV": "It crashed outside of Python, in a library's C code.",
    "SIGABRT": "It gave up outside of Python, in a library's C code.",
}
"""What it means that a signal ended the app."""


def how_it_ended(code: int) -> str:
    """`ended with exit code 3`, or `was ended by SIGKILL`."""
    return f"ended with exit code {code}" if code >= 0 else f"was ended by {_name(-code)}"


def likely_cause(code: int | None, log: str) -> str:
    """A sentence or two; `code` is None if the app was still running. Empty where the log has to speak for itself."""
    if other := OTHER_SERVER.search(log):
        where = f"serves on {other['url']}" if other["url"] else f"wants to serve on {other['taken']}"
        return (
            f"It {where} instead: a module calls uvicorn.run() while it is imported. "
            'Put the call under `if __name__ == "__main__":`, or remove it.'
        )
    if code is None:
        if "Waiting for application startup." in log and "Application startup complete." not in log:
            return "Its lifespan has begun and has not come to its `yield`: it waits for something."
        return "It is still busy with its imports: is there a loop, or a call that waits?" if DUMP.search(log) else ""
    if code < 0:
        return MEANS.get(_name(-code), "")
    return "No exception ended it: look for sys.exit() or os._exit()." if code == 0 else ""


def without_dump(log: str) -> str:
    """What the app printed, without where its threads were when the time was over."""
    dump = DUMP.search(log)
    return log[: dump.start()] if dump else log


def dumped_frames(log: str) -> list[tuple[str, int, str]]:
    """Where the app was when the time was over: path, line, function; the newest call first."""
    dump = DUMP.search(log)
    found = DUMPED_FRAME.finditer(log, dump.end()) if dump else ()
    return [(frame["path"], int(frame["line"]), frame["function"]) for frame in found]


def _name(signum: int) -> str:
    try:
        return Signals(signum).name
    except ValueError:
        return f"signal {signum}"
