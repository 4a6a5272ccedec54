"""Whose code is graded."""

from __future__ import annotations

import os
from pathlib import Path

from checks.kit.lessons.errors import WorkbookError
from checks.kit.lessons.git import restore_advice
from checks.kit.lessons.lesson import Lesson
from checks.kit.lessons.paths import ROOT, display_path


def find_target(name: str) -> Path:
    """`lessons`, `solutions`, or a folder: one that holds lesson_NN folders, or one lesson's folder itself."""
    if name in ("lessons", "solutions"):
        return ROOT / name
    folder = Path(name).resolve()
    if not folder.is_dir():
        raise WorkbookError(f"--target {name}: there is no such folder. Give lessons, solutions or a folder.")
    return folder


def lesson_folder(target: Path, lesson: Lesson) -> Path:
    """The lesson's folder within a target of `find_target`."""
    inside = target / lesson.name
    if not inside.is_dir():
        if target in (ROOT / "lessons", ROOT / "solutions"):
            raise WorkbookError(f"{display_path(inside)} is missing.{restore_advice(inside)}")
        inside = target
    if "%" in str(inside) and (inside / "alembic.ini").is_file():
        raise WorkbookError(
            f"Alembic cannot work in {inside}: a % in a path has a special meaning for it. "
            "Move the folder to a path without %."
        )
    return inside


def lesson_name(path: Path) -> str | None:
    """`lesson_04` for a file below checks/lesson_04, else None."""
    inside = path.relative_to(ROOT).parts if path.is_relative_to(ROOT) else ()
    return inside[1] if len(inside) > 2 and inside[0] == "checks" and inside[1].startswith("lesson_") else None


def names_a_lesson(arguments: list[str]) -> bool:
    """Whether these arguments of pytest, or else the current folder, name a lesson's checks."""
    named = [argument.partition("::")[0] for argument in arguments if not argument.startswith("-")]
    return any(lesson_name(Path(path).resolve() / "x") for path in named or ["."])


def checks_command(arguments: list[str], folder: Path) -> str:
    """What to type where pytest, in `folder`, was given a lesson's own folder or a file in it; empty if it was not."""
    for argument in arguments or ["."]:
        path = (folder / argument.partition("::")[0]).resolve()
        inside = path.relative_to(ROOT).parts if path.is_relative_to(ROOT) else ()
        if len(inside) > 1 and inside[0] in ("lessons", "solutions") and inside[1].startswith("lesson_"):
            there = os.path.relpath(ROOT / "checks" / inside[1], folder)
            return f"pytest {Path(there).as_posix()}" + (" --target solutions" if inside[0] == "solutions" else "")
    return ""
