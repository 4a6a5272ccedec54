"""Whose code is graded."""

from __future__ import annotations

from pathlib import Path

from checks.kit.catalogue import ROOT, CatalogueError, Lesson


def find_target(name: str) -> Path:
    """`lessons`, `solutions`, or a folder: one that holds lesson_NN folders, or one lesson's folder itself."""
    if name in ("lessons", "solutions"):
        return ROOT / name
    folder = Path(name).resolve()
    if not folder.is_dir():
        raise CatalogueError(f"--target {name}: there is no such folder. Give lessons, solutions or a folder.")
    return folder


def lesson_folder(target: Path, lesson: Lesson) -> Path:
    """The lesson's folder within a target of `find_target`."""
    inside = target / lesson.name
    if inside.is_dir():
        return inside
    if target in (ROOT / "lessons", ROOT / "solutions"):
        raise CatalogueError(f"{shown(inside)} is missing. Restore it with: git checkout -- {shown(inside)}")
    return target


def shown(path: Path) -> str:
    """A path as messages show it: relative to the checkout where it lies inside."""
    return str(path.relative_to(ROOT) if path.is_relative_to(ROOT) else path)
