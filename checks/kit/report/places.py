"""Finds the learner's own lines in what their app logged."""

from __future__ import annotations

import re
from pathlib import Path

from checks.kit.report.model import Place

FRAME = re.compile(r'^\s*(?:[|+]\s*)*File "(?P<path>[^"]+)", line (?P<line>\d+)(?:, in (?P<function>\S+))?')
ERROR = re.compile(
    r"^\s*(?:[|+]\s*)*(?P<error>[A-Za-z_][\w.]*(?:Error|Exception|Exit|Interrupt|Required|Warning)\b.*)$"
)


def places(log: str, folder: Path, root: Path, most: int = 3) -> list[Place]:
    """The last line inside `folder` of each traceback in the log, newest first, without repeats."""
    found: list[Place] = []
    current: Place | None = None
    for line in log.splitlines():
        if frame := FRAME.match(line):
            path = Path(frame["path"])
            if path.is_relative_to(folder):
                shown = path.relative_to(root) if path.is_relative_to(root) else path
                current = Place(str(shown), int(frame["line"]), frame["function"] or "")
        elif current and (error := ERROR.match(line)):
            found.append(Place(current.path, current.line, current.function, _short(error["error"])))
            current = None
    unique: dict[tuple[str, int], Place] = {}
    for place in reversed(found):
        unique.setdefault((place.path, place.line), place)
    return list(unique.values())[:most]


def _short(text: str, width: int = 200) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"
