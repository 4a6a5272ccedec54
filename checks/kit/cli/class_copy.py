"""`workbook class`: a copy of the workbook that an instructor gives to learners."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from checks.kit.lessons.lesson import Lesson, all_lessons
from checks.kit.report import terminal
from checks.kit.submissions import learners_copy


def make(folder: Path, lessons: Collection[Lesson]) -> None:
    """Writes the copy and says what is in it, and how to give it away. Raises WorkbookError."""
    count = learners_copy.make(folder, lessons)
    out = terminal.console()
    which = "all lessons" if len(lessons) == len(all_lessons()) else f"{len(lessons)} of {len(all_lessons())} lessons"
    out.print(f"{folder} has {which}, in {count} files.", style="bold", highlight=False, soft_wrap=True)
    out.print(
        "Left out: solutions, variants, the outputs of the notebooks, the change log, and the workbook's own tests.\n"
        "Each lesson begins where the one before it was solved, so a learner who looks ahead finds answers. With\n"
        "--lessons you can hand out some lessons now and others later.\n"
        f"Try it as a learner: cd {folder}, then the first two commands of its README. Then pack it, or push it.",
        highlight=False,
        soft_wrap=True,
    )
