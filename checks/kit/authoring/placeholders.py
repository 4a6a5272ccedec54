"""What a template left for the author of a lesson to write."""

from __future__ import annotations

import json
from pathlib import Path

from checks.kit.lessons.git import HANDED_OUT
from checks.kit.lessons.lesson import Lesson
from checks.kit.lessons.paths import display_path

PLACEHOLDER = "TODO"
FOLDERS_WITHOUT_TEXT = {"__pycache__"}


def placeholders(lesson: Lesson) -> list[str]:
    """`FILE:LINE: TODO: ...` for each line of the lesson's files that still says TODO."""
    found = []
    for path in _files(lesson):
        for place, line in _lines(path):
            if PLACEHOLDER in line:
                found.append(f"{display_path(path)}:{place}: {line[line.index(PLACEHOLDER) :].strip()}")
    return found


def _files(lesson: Lesson) -> list[Path]:
    """The author's files: those of the learner's app first."""
    folders = (lesson.folder, lesson.solution, lesson.checks_folder)
    inside = [path for folder in folders for path in sorted(folder.rglob("*")) if path.is_file()]
    notebook = [lesson.notebook] if lesson.notebook.is_file() else []
    inside = [path for path in inside if path.name != HANDED_OUT]  # made of the lesson's own files
    return [path for path in inside if not FOLDERS_WITHOUT_TEXT.intersection(path.parts)] + notebook


def _lines(path: Path) -> list[tuple[str, str]]:
    """The lines of a file with their numbers; of a notebook those of its cells, with the cell's id."""
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix != ".ipynb":
            return [(str(number), line) for number, line in enumerate(text.splitlines(), 1)]
        cells = json.loads(text)["cells"]
    except (ValueError, KeyError):  # no text, or no notebook: others say so
        return []
    return [(cell.get("id", "?"), line) for cell in cells for line in "".join(cell["source"]).splitlines()]
