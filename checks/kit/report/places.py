"""Finds the learner's own lines in what their app logged."""

from __future__ import annotations

import os
import re
from pathlib import Path

from checks.kit.report.model import Place

FRAME = re.compile(r'^\s*(?:[|+]\s*)*File "(?P<path>[^"]+)", line (?P<line>\d+)(?:, in (?P<function>\S+))?')
ERROR = re.compile(r"^(?:\s*[|+] )*(?P<error>[A-Za-z_][\w.]*(?:: .*)?)$")
"""A traceback's last line: its source lines are indented, this one is not, whatever the exception is called."""

NOISE = re.compile(r'INFO:|\s*$|\s*File "<frozen ')
"""Uvicorn's ordinary life, and the import system's own frames."""

LONGEST_LINE = 8_000
"""Characters of a line of a log that are kept."""

LOG_TAIL = 12
"""Lines of an app's log that are shown where there is no traceback of the learner's own."""


def tail(log: str, root: Path) -> str:
    """The last lines of a log that say something; paths below `root` are shown relative to it."""
    lines = [line for line in log.splitlines() if not NOISE.match(line)][-LOG_TAIL:]
    return "\n".join(line[:LONGEST_LINE].replace(f"{root}{os.sep}", "") for line in lines)


def places(log: str, folder: Path, root: Path, most: int = 3) -> list[Place]:
    """The last line inside `folder` of each traceback in the log, newest first, without repeats."""
    found: list[Place] = []
    current: Place | None = None
    lines = log.splitlines()
    for number, line in enumerate(lines):
        if frame := FRAME.match(line):
            path = Path(frame["path"])
            if path.is_relative_to(folder):
                shown = path.relative_to(root) if path.is_relative_to(root) else path
                current = Place(str(shown), int(frame["line"]), frame["function"] or "")
        elif current and (error := ERROR.match(line)):
            text = error["error"]
            if "validation error" in text:  # pydantic gives the reason on the next lines
                text = " ".join([text, *(more.strip() for more in lines[number + 1 : number + 3])])
            found.append(Place(current.path, current.line, current.function, _short(text)))
            current = None
    unique: dict[tuple[str, int], Place] = {}
    for place in reversed(found):
        unique.setdefault((place.path, place.line), place)
    return list(unique.values())[:most]


def _short(text: str, width: int = 200) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"
