"""`workbook dev carry`: shows what became of each file and variant, then a summary."""

from __future__ import annotations

from collections import Counter

from checks.kit.authoring.carry import Carry, Kind, check_files
from checks.kit.authoring.chain import chain_faults
from checks.kit.authoring.paper import broken_variants
from checks.kit.lessons.git import GitError
from checks.kit.lessons.lesson import Lesson, all_lessons
from checks.kit.lessons.original import is_current
from checks.kit.lessons.patches import PatchError
from checks.kit.report import terminal

STYLE = {Kind.MERGED: "green", Kind.REMADE: "green", Kind.CONFLICT: "bold red"}


def carry(start: int | None, files: list[str], revision: str) -> int:
    """The exit code: 0 if nothing conflicts."""
    out = terminal.console()
    lessons = all_lessons()
    first = lessons[0].number if start is None else start
    check_files(lessons, first, files)
    counts: Counter[Kind] = Counter()
    for step in Carry(lessons, revision).run(first, files):
        counts[step.kind] += 1
        if step.kind is not Kind.EQUAL:
            out.print(f"{step.kind:<9} {step.path}", style=STYLE[step.kind], soft_wrap=True)
        if step.advice:
            out.print(f"{'':<9} {step.advice}", soft_wrap=True)
    summary = ", ".join(f"{counts[kind]} {kind}" for kind in Kind if counts[kind])
    out.print(f"{summary or f'Nothing changed since {revision} that a later lesson has'}.", style="bold")
    if stale := [str(lesson.number) for lesson in lessons if not is_current(lesson)]:
        out.print(f"Then write down what is handed out: workbook dev handed-out {' '.join(stale)}", soft_wrap=True)
    return 1 if counts[Kind.CONFLICT] else 0


def check(revision: str) -> int:
    """The exit code: 0 if files are equal where the chain says so, every patch applies, and nothing is to be carried.

    Writes nothing.
    """
    out = terminal.console()
    lessons = all_lessons()
    left = _left(lessons, revision)
    faults = [f"{path}: {what}" for path, what in left.items()]
    for fault in (fault for lesson in lessons for fault in chain_faults(lesson) + broken_variants(lesson)):
        if not fault.startswith(tuple(f"{path}{end}" for path in left for end in " :")):  # else it is said already
            faults.append(fault)
    for fault in faults:
        out.print(f"✗ {fault}", soft_wrap=True)
    verdict = f"{len(faults)} broken." if faults else "The chain holds, and every patch applies."
    out.print(verdict, style="bold red" if faults else "bold green")
    return 1 if faults else 0


def _left(lessons: list[Lesson], revision: str) -> dict[str, str]:
    """What carry would merge, and its conflicts; by path."""
    left = {}
    try:
        for step in Carry(lessons, revision, write=False).run(lessons[0].number, []):
            if step.kind is Kind.CONFLICT:
                left[step.path] = step.advice
            elif step.kind is not Kind.EQUAL:
                left[step.path] = "a change is to be brought here: workbook dev carry"
    except GitError:
        if revision != "HEAD":  # else it may be a copy without a history
            raise
    except PatchError:
        pass  # a variant that cannot be read, which is listed anyway
    return left
