"""Finds the learner's own lines in what their processes printed."""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from pathlib import Path

from checks.kit.report.model import Place

FRAME = re.compile(r'^\s*(?:[|+]\s*)*File "(?P<path>[^"]+)", line (?P<line>\d+)(?:, in (?P<function>\S+))?')
ERROR = re.compile(r"^(?:\s*[|+] )*(?P<error>[A-Za-z_][\w.]*(?:: .*)?)$")
"""A traceback's last line: its source lines are indented, this one is not, whatever the exception is called."""

WARNING = re.compile(r"^(?P<path>.+\.py):(?P<line>\d+): (?P<error>\w*Warning: .*)$")
"""What `warnings` prints, such as for a coroutine that was never awaited."""

ENDPOINT = re.compile(r"(?P<path>.+\.py):(?P<line>\d{1,6}):(?P<function>[\w<>]{1,100})")
"""`path:line:function`, as a process of the learner's says it, which may say anything."""

MADE_IT = "made the response; the cause may be in what it calls, or in its dependencies"
"""What is said of a place that no traceback and no warning names."""

AFTERMATH = "IllegalStateChangeError"
"""What `close()` of a session raises while other tasks still use it: the cause is in what these tasks raised."""

NOISE = re.compile(r'INFO:|\s*$|\s*File "<frozen ')
"""Uvicorn's ordinary life, and the import system's own frames."""

MAX_PLACES = 3
"""Places in one verdict."""

LOG_TAIL = 12
"""Lines of a log that are shown where there is no traceback of the learner's own."""


def tail(log: str, root: Path) -> list[str]:
    """The last lines of a log that say something, at most LOG_TAIL; paths below `root` are shown relative to it."""
    lines = [line for line in log.splitlines() if not NOISE.match(line)][-LOG_TAIL:]
    return [line.replace(f"{root}{os.sep}", "") for line in lines]


def places(log: str, folder: Path, root: Path) -> list[Place]:
    """The last line inside `folder` of each traceback in the log, newest first, without repeats; at most MAX_PLACES.

    Then those of what only follows from another error, and those of warnings. Paths are relative to `root` where they
    lie inside it.
    """
    found: list[Place] = []
    warned: list[Place] = []
    current: Place | None = None
    called_back = False
    lines = log.splitlines()
    for number, line in enumerate(lines):
        if frame := FRAME.match(line):
            # what SQLAlchemy calls, such as a pool of the app's own, is not where the app went wrong
            called_back = called_back or (current is not None and f"{os.sep}sqlalchemy{os.sep}" in frame["path"])
            if not called_back and (shown := _shown(frame["path"], folder, root)):
                current = Place(shown, int(frame["line"]), frame["function"] or "")
        elif warning := WARNING.match(line):
            if shown := _shown(warning["path"], folder, root):
                warned.append(Place(shown, int(warning["line"]), "", _short(warning["error"])))
        elif current and (error := ERROR.match(line)):
            text = error["error"]
            if "validation error" in text:  # pydantic gives the reason on the next lines
                text = " ".join([text, *(more.strip() for more in lines[number + 1 : number + 3])])
            found.append(Place(current.path, current.line, current.function, _short(text)))
            current, called_back = None, False
    unique: dict[tuple[str, int], Place] = {}
    found.reverse()
    found.sort(key=lambda place: AFTERMATH in place.error)
    for place in [*found, *reversed(warned)]:
        unique.setdefault((place.path, place.line), place)
    return list(unique.values())[:MAX_PLACES]


def endpoint_place(endpoint: str, folder: Path, root: Path, files: Collection[str]) -> Place | None:
    """The function of `path:line:function`, if it is in one of these files of `folder`; the fault may be elsewhere."""
    parts = ENDPOINT.fullmatch(endpoint)
    if not parts or not (shown := _shown(parts["path"], folder, root)):
        return None
    inside = Path(parts["path"]).relative_to(folder).as_posix() in files
    return Place(shown, int(parts["line"]), parts["function"], MADE_IT) if inside else None


def _shown(path: str, folder: Path, root: Path) -> str:
    """A path relative to `root` where it lies inside it; empty if it is not inside `folder`."""
    there = Path(path)
    if not there.is_relative_to(folder):
        return ""
    return str(there.relative_to(root) if there.is_relative_to(root) else there)


def _short(text: str, width: int = 200) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"
