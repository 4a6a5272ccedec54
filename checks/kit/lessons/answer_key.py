"""A lesson's answer key, made from its variants: what people write, which check notices it, and the solution."""

from __future__ import annotations

from collections.abc import Iterator

from checks.kit.lessons.errors import WorkbookError
from checks.kit.lessons.lesson import CheckEntry, Lesson
from checks.kit.lessons.original import handed_out
from checks.kit.lessons.patches import make, read_tree
from checks.kit.lessons.paths import display_path
from checks.kit.lessons.variants import Variant, variants

MANY = 3
"""A fix that fails more checks than these stands under the first of them only."""


def answer_key(lesson: Lesson) -> str:
    """The key as Markdown. Raises WorkbookError in a copy without solutions or variants."""
    known = variants(lesson)
    if not known or not lesson.solution.is_dir():
        missing = display_path(lesson.solution if known else lesson.checks_folder / "variants")
        raise WorkbookError(f"An answer key is made from {missing}, which is not in this copy of the workbook.")
    return "\n".join(_lines(lesson, known)) + "\n"


def _lines(lesson: Lesson, known: list[Variant]) -> Iterator[str]:
    wrong, right = ([one for one in known if bool(one.fails) is fails] for fails in (True, False))
    numbers = {entry.name: number for number, entry in enumerate(lesson.checks, 1)}
    yield f"# Lesson {lesson.number:02}, {lesson.title}: answer key"
    yield ""
    yield (
        f"It lists {len(wrong)} wrong fixes with the checks that fail on them, and {len(right)} other right ones. "
        f"`workbook dev verify {lesson.number}` grades all of them."
    )
    yield f"To see the code of one: `workbook dev variant open NAME --lesson {lesson.number}`."
    yield ""
    yield "## What each check notices"
    for entry in lesson.checks:
        yield from _check(lesson, entry, numbers, wrong)
    yield ""
    yield "## Other right fixes"
    yield ""
    yield from (f"- {one.about} (`{one.name}`)" for one in right)
    yield ""
    yield "## The solution"
    yield ""
    yield "```diff"
    yield make(dict(handed_out(lesson)), read_tree(lesson.solution)).decode(errors="replace").rstrip("\n")
    yield "```"


def _check(lesson: Lesson, entry: CheckEntry, numbers: dict[str, int], wrong: list[Variant]) -> Iterator[str]:
    yield ""
    yield f"### {numbers[entry.name]}. {lesson.titles[entry.name]}"
    yield ""
    yield f"`{entry.name}`. As handed out, the lesson {entry.unsolved} it{_because(entry)}."
    found = [one for one in wrong if entry.name in one.fails]
    here = [
        one
        for one in found
        if len(one.fails) <= MANY or numbers[entry.name] == min(numbers[name] for name in one.fails)
    ]
    if found:
        yield ""
    for one in sorted(here, key=lambda one: (len(one.fails), one.name)):
        others = sorted(numbers[name] for name in one.fails if name != entry.name)
        also = f"; fails {', '.join(map(str, others))} as well" if others else ""
        yield f"- {one.about} (`{one.name}`{also})"
    if above := len(found) - len(here):
        yield f"- {above} of those above, which fail many checks"


def _because(entry: CheckEntry) -> str:
    return f": {entry.fault}" if entry.fault else ""
