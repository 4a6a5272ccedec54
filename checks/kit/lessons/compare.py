"""How the learner's files differ from the solution's."""

from __future__ import annotations

import difflib
from collections.abc import Iterator

from checks.kit.lessons.code_state import SOURCE
from checks.kit.lessons.errors import WorkbookError
from checks.kit.lessons.lesson import Lesson
from checks.kit.lessons.patches import Tree, read_tree
from checks.kit.lessons.paths import display_path
from checks.kit.lessons.progress import Progress


def difference_to_solution(lesson: Lesson, peek: bool = False) -> Iterator[str]:
    """The lines of a unified diff, from the learner's files to the solution's.

    Raises WorkbookError where there is no solution, and, unless `peek`, before the lesson passes.
    """
    if not lesson.solution.is_dir():
        raise WorkbookError(f"There is no {display_path(lesson.solution)} in this checkout to compare with.")
    if not peek and not Progress().passed(lesson.name, [entry.name for entry in lesson.checks]):
        raise WorkbookError(
            f"Lesson {lesson.number} does not pass yet, and the solution would spoil it. "
            f"A hint: workbook hint {lesson.number}. To see it all the same: workbook diff {lesson.number} --peek"
        )
    return unified(read_tree(lesson.folder), read_tree(lesson.solution), "yours", "solution")


def unified(old: Tree, new: Tree, old_name: str, new_name: str) -> Iterator[str]:
    """The lines of a unified diff of source files; what an app wrote into its folder is left out."""
    for name in sorted(old.keys() | new.keys()):
        if name in ("README.md", "lesson.toml") or not name.endswith(SOURCE):
            continue
        before, after = (tree.get(name, b"").decode(errors="replace").splitlines() for tree in (old, new))
        yield from difflib.unified_diff(before, after, f"{old_name}/{name}", f"{new_name}/{name}", lineterm="")
