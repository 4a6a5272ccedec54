"""A traceback as `workbook serve` shows it: the error, and the learner's own lines on the way to it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from checks.kit.lessons.paths import display_path
from checks.kit.report.known_errors import explain_error

FRAME = re.compile(r'^(?:  \| )*  File "(?P<path>[^"]+)", line (?P<line>\d+), in (?P<function>\S+)$')

CHAINED = ("The above exception was the direct cause", "During handling of the above exception")
"""How the sentences begin that stand between an exception and the one that it led to."""

MAX_MESSAGE = 4
"""Lines of an error's message; SQLAlchemy adds the statement and its parameters."""


def fold(traceback: str, folder: Path) -> list[str]:
    """The last exception of a printed traceback, and the frames of `folder` that led to it, the outermost first."""
    lines = traceback.rstrip().splitlines()
    begin = max((number for number, line in enumerate(lines) if line.startswith(CHAINED)), default=-1) + 1
    last = max((number for number, line in enumerate(lines) if FRAME.match(line)), default=begin)
    message = [line for line in lines[last + 1 :] if line and not line[0].isspace()]
    folded = message[:MAX_MESSAGE] + (["…"] if len(message) > MAX_MESSAGE else [])
    if means := explain_error(" ".join(message)):
        folded.append(f"In other words: {means}")
    frames = list(_frames(lines[begin:], folder)) or list(_frames(lines, folder))
    return [*folded, *frames]


def _frames(lines: list[str], folder: Path) -> Iterator[str]:
    for number, line in enumerate(lines):
        if (frame := FRAME.match(line)) and Path(frame["path"]).is_relative_to(folder):
            yield f"  {display_path(Path(frame['path']))}:{frame['line']}  in {frame['function']}"
            if number + 1 < len(lines) and not FRAME.match(lines[number + 1]):
                yield f"    {lines[number + 1].strip()}"
