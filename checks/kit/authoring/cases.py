"""The apps of a lesson and what each must show: the lesson as handed out, its solution and its variants."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from checks.kit.lessons.lesson import Lesson
from checks.kit.lessons.variants import Variant, materialize, variants

AS_HANDED_OUT = "as handed out"
SOLUTION = "solution"


@dataclass(frozen=True, slots=True)
class Case:
    """One app to grade. `fails` are the checks that must fail; all others must pass.

    The files of a variant are in `folder` between `write` and `remove`.
    """

    lesson: Lesson
    label: str
    folder: Path
    fails: frozenset[str]
    variant: Variant | None = None

    def write(self) -> None:
        """Writes a variant's files; the lesson and its solution are there."""
        if self.variant is not None:
            materialize(self.variant, self.folder.parents[1])

    def remove(self) -> None:
        """Deletes what `write` has written."""
        if self.variant is not None:
            shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def is_wrong(self) -> bool:
        """Whether it is a wrong variant, which is known to fail."""
        return self.label.startswith("wrong_")

    @property
    def key(self) -> str:
        """The same for each run of this case: `lesson_04/wrong_no_ping`."""
        return f"{self.lesson.name}/{self.label}"


def cases(lesson: Lesson, scratch: Path) -> Iterator[Case]:
    """The lesson, its solution and its variants, whose folders are under `scratch`."""
    unsolved = frozenset(entry.name for entry in lesson.checks if entry.unsolved == "fails")
    yield Case(lesson, AS_HANDED_OUT, lesson.folder, unsolved)
    yield Case(lesson, SOLUTION, lesson.solution, frozenset())
    for variant in variants(lesson):
        yield Case(lesson, variant.name, scratch / lesson.name / variant.name, variant.fails, variant)
