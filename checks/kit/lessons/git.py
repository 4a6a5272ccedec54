"""What git knows of this checkout. Paths go in and come out relative to it, also where it lies inside a repository."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from checks.kit.lessons.errors import WorkbookError
from checks.kit.lessons.paths import ROOT

HANDED_OUT = "handed_out.patch"
"""The file in checks/lesson_NN that holds the lesson as it was handed out; see original.py."""

ELSEWHERE = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX")
"""Variables with which git, in a hook for example, would look at another repository than this checkout's."""


class GitError(WorkbookError):
    """git is missing, or it refused a command."""


def git(*arguments: str) -> bytes:
    """What a git command prints. Raises GitError with git's own words if it fails."""
    environ = {name: value for name, value in os.environ.items() if name not in ELSEWHERE}
    try:
        done = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, check=False, env=environ)
    except FileNotFoundError:
        raise GitError("git is not installed, and this command needs it. Nothing was changed.") from None
    if done.returncode:
        raise GitError(f"git {arguments[0]}: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout


def names(output: bytes) -> list[str]:
    """The paths of a git command that was given -z."""
    return [name for name in output.decode().split("\0") if name]


def restore_advice(path: Path) -> str:
    """The command that brings back a file or folder, from git or from the lesson as handed out; empty without one.

    Where git refuses to look into its repository, its own words, which name the remedy.
    """
    if not path.is_relative_to(ROOT) or path == ROOT:
        return ""
    relative = path.relative_to(ROOT)
    try:
        if git("ls-tree", "HEAD", relative.as_posix()):
            return f" Restore it with: git checkout -- {relative.as_posix()}"
    except GitError:
        pass
    folder, lesson = (*relative.parts, "")[:2]
    if folder == "lessons" and (ROOT / "checks" / lesson / HANDED_OUT).is_file():
        return f" Restore the lesson with: workbook reset {int(lesson.removeprefix('lesson_'))}"
    return _refusal()


def _refusal() -> str:
    if any((parent / ".git").exists() for parent in (ROOT, *ROOT.parents)):
        try:
            git("rev-parse")
        except GitError as error:
            return f" {error}"
    return ""
