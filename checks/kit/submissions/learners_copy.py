"""A copy of the workbook for the learners of a class: without the answers, with all that works without them."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Collection, Iterator
from pathlib import Path

from checks.kit.lessons.errors import WorkbookError
from checks.kit.lessons.git import GitError, git, names
from checks.kit.lessons.lesson import Lesson
from checks.kit.lessons.original import handed_out
from checks.kit.lessons.paths import ROOT

ANSWERS = ("solutions/", "CHANGELOG.md")
"""The solutions, and what tells how they came about."""

FOR_AUTHORS = (".ci/", ".github/", "checks/self_test/")
"""What needs the solutions, and runs where the workbook is made."""

OF_A_LESSON = re.compile(r"(?:lessons|checks)/(lesson_\d\d)/|notebooks/(lesson_\d\d)\.ipynb")

NOT_OURS = {".git", ".venv", ".workbook", "__pycache__", ".mypy_cache", ".ruff_cache", ".ipynb_checkpoints"}
"""Folders of a checkout without Git that are not part of the workbook."""


def make(folder: Path, lessons: Collection[Lesson]) -> int:
    """Writes the copy, whole or not at all, and returns how many files it has. Raises WorkbookError and OSError.

    `folder` must not exist, or be empty. Lessons are as they were handed out, whatever was changed here since.
    """
    if not (ROOT / "solutions").is_dir():
        raise WorkbookError("This copy has no solutions/, so it is one for learners already. Copy the folder itself.")
    if folder.resolve().is_relative_to(ROOT):
        raise WorkbookError(f"{folder} lies in this workbook. Name a folder elsewhere.")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise WorkbookError(f"{folder} is there already. Name a folder that does not exist yet.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as scratch:
        new = Path(scratch) / "new"
        new.mkdir(mode=0o755)
        count = _fill(new, lessons)
        new.replace(folder)
    return count


def _fill(new: Path, lessons: Collection[Lesson]) -> int:
    wanted = {lesson.name for lesson in lessons}
    count = 0
    for path in _files():
        of_lesson = OF_A_LESSON.match(path)
        if of_lesson is not None and (of_lesson[1] or of_lesson[2]) not in wanted:
            continue
        if path.startswith((*ANSWERS, *FOR_AUTHORS, "lessons/lesson_")) or "/variants/" in path:
            continue
        copy = new / path
        copy.parent.mkdir(parents=True, exist_ok=True)
        if path.endswith(".ipynb"):
            copy.write_text(_without_outputs((ROOT / path).read_text(encoding="utf-8")), encoding="utf-8")
        else:
            shutil.copy(ROOT / path, copy)
        count += 1
    for lesson in lessons:
        for path, content in handed_out(lesson).items():
            copy = new / "lessons" / lesson.name / path
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(content)
            count += 1
    return count


def _files() -> Iterator[str]:
    """The paths of the workbook's files, with `/`: those that Git knows, or all in a copy without Git."""
    try:
        known = names(git("ls-files", "-z"))
    except GitError:
        known = []
    if known:
        yield from (path for path in known if (ROOT / path).is_file())
        return
    for path in sorted(ROOT.rglob("*")):
        relative = path.relative_to(ROOT)
        if path.is_file() and NOT_OURS.isdisjoint(relative.parts):
            yield relative.as_posix()


def _without_outputs(notebook: str) -> str:
    """A notebook as if it had never been run: its saved outputs show what the solution does."""
    content = json.loads(notebook)
    for cell in content["cells"]:
        if cell["cell_type"] == "code":
            cell["outputs"], cell["execution_count"] = [], None
    return json.dumps(content, ensure_ascii=False, indent=1) + "\n"
