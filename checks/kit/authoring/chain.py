"""The chain of lessons: lesson N is solution N-1 with what is new and what is broken, solution N is lesson N fixed."""

from __future__ import annotations

from pathlib import Path

from checks.kit.lessons.lesson import Lesson
from checks.kit.lessons.patches import Tree, read_tree
from checks.kit.lessons.paths import ROOT, display_path

OWN = {"README.md", "lesson.toml"}
"""Files that belong to one lesson: never compared, never carried."""

TESTS = "tests/"
"""Begins the names of files that a lesson does not hand on: tests that a learner writes are about that lesson."""


def handed_on(tree: Tree) -> Tree:
    """The files of a solution that the next lesson begins with."""
    return {name: content for name, content in tree.items() if not name.startswith(TESTS)}


def previous_solution(lesson: Lesson) -> Path | None:
    """The solution that the lesson continues; None for the first lesson."""
    folder = ROOT / "solutions" / f"lesson_{lesson.number - 1:02}"
    return folder if folder.is_dir() else None


def chain_faults(lesson: Lesson) -> list[str]:
    """Where the lesson breaks the chain; a line for each file, with what to write or to do."""
    faults = []
    if before := previous_solution(lesson):
        faults += _faults(lesson, "changed", before, lesson.folder)
    if lesson.solution.is_dir():
        faults += _faults(lesson, "edit", lesson.folder, lesson.solution)
    return faults


def _faults(lesson: Lesson, key: str, before: Path, after: Path) -> list[str]:
    """Where two folders differ otherwise than lesson.toml lists under the key."""
    old, new = read_tree(before), read_tree(after)
    if key == "changed":
        old = handed_on(old)
    listed, changed = set(lesson.changed if key == "changed" else lesson.edit), differing(old, new)
    manifest, was = display_path(lesson.folder / "lesson.toml"), display_path(before)
    faults = []
    for name in sorted(changed - listed):
        path = display_path(after / name)
        if name in old:
            faults.append(
                f"{path} is not as in {was}: bring its change here with `workbook dev carry`, "
                f"or list it in {manifest} under `{key}`"
            )
        else:
            faults.append(f"{path} is not in {was}: list it in {manifest} under `{key}`")
    for name in sorted(listed - changed):
        what = f"is as in {was}" if name in old.keys() | new.keys() else "does not exist"
        faults.append(f"{manifest}: `{key}` lists {name}, which {what}; remove it there")
    return faults


def differing(ours: Tree, theirs: Tree) -> set[str]:
    """Names of the files that one tree has otherwise than the other, or not at all."""
    return {name for name in (ours.keys() | theirs.keys()) - OWN if ours.get(name) != theirs.get(name)}
