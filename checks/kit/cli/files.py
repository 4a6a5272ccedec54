"""`reset` and `diff`: the only commands that compare or touch the learner's files."""

from __future__ import annotations

import difflib
import shutil
import subprocess
import time
from pathlib import Path

import typer

from checks.kit.catalogue import ROOT, STATE, CatalogueError, Lesson
from checks.kit.progress import Progress
from checks.kit.report import terminal
from checks.kit.targets import shown


def reset(lesson: Lesson, yes: bool) -> None:
    """Restores lessons/lesson_NN from the last commit that the workbook shipped; keeps a copy of what was there."""
    out = terminal.console()
    original = handed_out(lesson)
    if not yes and not typer.confirm(f"Put {shown(lesson.folder)} back to how it was handed out? A copy is kept."):
        raise typer.Exit(1)
    copy = STATE / "kept" / f"{lesson.name}-{time.strftime('%Y%m%d-%H%M%S')}"
    while copy.exists():
        copy = copy.with_name(copy.name + "x")
    shutil.copytree(lesson.folder, copy)
    tracked = set(original)
    for path in sorted(lesson.folder.rglob("*"), reverse=True):
        relative = path.relative_to(lesson.folder).as_posix()
        if path.is_file() and relative not in tracked:
            path.unlink()
        elif path.is_dir() and not any(path.iterdir()):
            path.rmdir()
    for name, content in original.items():
        target = lesson.folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    Progress().forget(lesson.name)
    out.print(f"{shown(lesson.folder)} is as it was handed out. Your files are in {shown(copy)}.")


def handed_out(lesson: Lesson) -> dict[str, bytes]:
    """The lesson's files as the workbook first shipped them, from git's history."""
    folder = lesson.folder.relative_to(ROOT).as_posix()
    reference = _git("rev-parse", "--verify", "--quiet", "refs/remotes/origin/HEAD").strip() or "HEAD"
    names = [name for name in _git("ls-tree", "-r", "--name-only", "-z", reference, f"{folder}/").split("\0") if name]
    if not names:
        raise CatalogueError(
            f"git knows no {folder} to restore from. Download it again from where you got the workbook; "
            "nothing was changed."
        )
    return {name.removeprefix(f"{folder}/"): _git_bytes("show", f"{reference}:{name}") for name in names}


def _git(*arguments: str) -> str:
    return _git_bytes(*arguments).decode()


def _git_bytes(*arguments: str) -> bytes:
    try:
        return subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, check=False).stdout
    except FileNotFoundError:
        raise CatalogueError("git is not installed; reset needs it. Nothing was changed.") from None


def diff(lesson: Lesson, peek: bool) -> None:
    """Prints the difference from the learner's files to the solution's, file by file."""
    if not peek and not Progress().passed(lesson.name, [entry.name for entry in lesson.checks]):
        raise CatalogueError(
            f"Lesson {lesson.number} does not pass yet, and the solution would spoil it. "
            f"A hint: workbook hint {lesson.number}. To see it all the same: workbook diff {lesson.number} --peek"
        )
    out = terminal.console()
    names = sorted({path for folder in (lesson.folder, lesson.solution) for path in _python_files(folder)})
    same = True
    for name in names:
        mine, theirs = _lines(lesson.folder / name), _lines(lesson.solution / name)
        for line in difflib.unified_diff(mine, theirs, f"yours/{name}", f"solution/{name}", lineterm=""):
            same = False
            style = {"+": "green", "-": "red", "@": "cyan"}.get(line[:1], "")
            out.print(line, style=style, soft_wrap=True)
    if same:
        out.print("Your files are the solution's, to the letter.")


def _python_files(folder: Path) -> list[str]:
    kept = (path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return [path.relative_to(folder).as_posix() for path in kept if path.name not in ("README.md", "lesson.toml")]


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []
