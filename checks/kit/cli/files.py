"""`reset` and `diff`: the commands that compare or touch the learner's files."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import typer

from checks.kit.lessons.compare import difference_to_solution, unified
from checks.kit.lessons.lesson import Lesson
from checks.kit.lessons.original import handed_out
from checks.kit.lessons.patches import read_tree, write_tree
from checks.kit.lessons.paths import STATE, display_path
from checks.kit.lessons.progress import Progress
from checks.kit.report import terminal


def reset(lesson: Lesson, yes: bool) -> None:
    """Makes lessons/lesson_NN what it was when it was handed out; keeps a copy of what was there."""
    out = terminal.console()
    original = handed_out(lesson)  # as a whole, before anything is touched
    if not yes and not typer.confirm(
        f"Put {display_path(lesson.folder)} back to how it was handed out? A copy is kept."
    ):
        raise typer.Exit(1)
    copy = _keep_copy(lesson.folder) if lesson.folder.is_dir() else None
    for path in sorted(lesson.folder.rglob("*"), reverse=True):
        if path.is_symlink() or not path.is_dir():
            if path.is_symlink() or path.relative_to(lesson.folder).as_posix() not in original:
                path.unlink()
        elif not any(path.iterdir()):
            path.rmdir()
    write_tree(original, lesson.folder)
    Progress().forget(lesson.name)
    where = f" Your files are in {display_path(copy)}." if copy else ""
    out.print(f"{display_path(lesson.folder)} is as it was handed out.{where}")


def _keep_copy(folder: Path) -> Path:
    """A copy of the learner's files, below .workbook."""
    copy = STATE / "kept" / f"{folder.name}-{time.strftime('%Y%m%d-%H%M%S')}"
    while copy.exists():
        copy = copy.with_name(copy.name + "x")
    shutil.copytree(folder, copy, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    return copy


def diff(lesson: Lesson, peek: bool) -> None:
    """Prints the difference from the learner's files to the solution's, file by file."""
    if not _print(difference_to_solution(lesson, peek)):
        terminal.console().print("Your files are the solution's, to the letter.")


def diff_mine(lesson: Lesson) -> None:
    """Prints what the learner changed since the lesson was handed out."""
    if not _print(unified(handed_out(lesson), read_tree(lesson.folder), "handed-out", "yours")):
        terminal.console().print(f"{display_path(lesson.folder)} is as it was handed out.")


def _print(lines: Iterator[str]) -> bool:
    """Whether there are any."""
    out = terminal.console()
    printed = False
    for line in lines:
        printed = True
        out.print(line, style={"+": "green", "-": "red", "@": "cyan"}.get(line[:1], ""), soft_wrap=True)
    return printed
