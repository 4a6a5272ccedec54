"""A lesson's files as they were handed out, from checks/lesson_NN/handed_out.patch.

That file is a patch which makes the lesson out of nothing. It lies beside the checks, so it is there in a fork with
commits of its own, inside another repository, and in a copy without git; and as text it can be reviewed.
"""

from __future__ import annotations

from pathlib import Path

from checks.kit.lessons.errors import WorkbookError
from checks.kit.lessons.git import HANDED_OUT, restore_advice
from checks.kit.lessons.lesson import Lesson, find_lesson, number_of
from checks.kit.lessons.patches import Tree, apply, make, read_tree
from checks.kit.lessons.paths import display_path

HEAD = "Lesson {number} as it was handed out. Written by: workbook dev handed-out {number}\n\n"


def handed_out_path(lesson: Lesson) -> Path:
    return lesson.checks_folder / HANDED_OUT


def handed_out(lesson: Lesson) -> Tree:
    """The lesson's files as the workbook ships them; all of them, ticket and lesson.toml too."""
    path = handed_out_path(lesson)
    try:
        head, _, patch = path.read_bytes().partition(b"\n\n")
    except FileNotFoundError:
        raise WorkbookError(
            f"{display_path(path)} is missing. It holds lesson {lesson.number} as it was handed out."
            f"{restore_advice(path) or ' Get it from where you got the workbook.'} Nothing was changed."
        ) from None
    return apply(patch, {}, display_path(path), head.count(b"\n") + 3)


def lesson_to_restore(name: int | str) -> Lesson:
    """The lesson of this number, also where its folder is gone or its lesson.toml cannot be read."""
    number = number_of(name)
    if number is not None and handed_out_path(lesson := Lesson(number)).is_file():
        return lesson
    return find_lesson(name)


def is_current(lesson: Lesson) -> bool:
    """Whether handed_out.patch holds the lesson's files as they are now."""
    path = handed_out_path(lesson)
    return path.is_file() and path.read_bytes() == _text_of(lesson)


def record(lesson: Lesson) -> None:
    """Writes handed_out.patch from the lesson's files as they are now."""
    handed_out_path(lesson).write_bytes(_text_of(lesson))


def _text_of(lesson: Lesson) -> bytes:
    return HEAD.format(number=lesson.number).encode() + make({}, read_tree(lesson.folder))
