"""What is still to do for a lesson, read from its files; nothing runs."""

from __future__ import annotations

import ast
import json

from checks.kit.authoring.chain import chain_faults
from checks.kit.authoring.placeholders import placeholders
from checks.kit.lessons.errors import WorkbookError
from checks.kit.lessons.lesson import Lesson
from checks.kit.lessons.original import handed_out_path, is_current
from checks.kit.lessons.paths import display_path
from checks.kit.lessons.unfinished import missing
from checks.kit.lessons.variants import base_tree, patched, read_variant

RIGHT, WRONG = 3, 5
"""How many variants of each kind a lesson has at least."""

LAST_HEADING = "Going further"


def to_do(lesson: Lesson) -> list[str]:
    """A line for each thing, with the file and what to write there; empty if the lesson is complete on paper."""
    try:
        checks = _checks(lesson) + _notebook(lesson)
    except SyntaxError as error:
        checks = [
            f"{display_path(lesson.checks_folder)}: {error.msg} in line {error.lineno}: {(error.text or '').strip()}"
        ]
    faults = (
        missing(lesson) + _folders(lesson) + checks + chain_faults(lesson) + _variants(lesson) + _handed_out(lesson)
    )
    return faults + placeholders(lesson)


def _handed_out(lesson: Lesson) -> list[str]:
    if is_current(lesson):
        return []
    path, folder = display_path(handed_out_path(lesson)), display_path(lesson.folder)
    return [f"{path} does not hold {folder} as it is; once it is finished: workbook dev handed-out {lesson.number}"]


def can_be_graded(lesson: Lesson) -> bool:
    """Whether there is enough of the lesson to run its checks, whatever else is to do."""
    return not (_folders(lesson) or broken_variants(lesson)) and bool(lesson.checks)


def _folders(lesson: Lesson) -> list[str]:
    lacks = []
    if not lesson.solution.is_dir():
        lacks.append(f"{display_path(lesson.solution)}: copy {display_path(lesson.folder)} there and fix it")
    if not any(lesson.checks_folder.glob("test_*.py")):
        lacks.append(
            f"{display_path(lesson.checks_folder)}/test_....py: write the checks, each an `async def test_...(app)`"
        )
    return lacks


def _checks(lesson: Lesson) -> list[str]:
    """A check's name is in three files: its function, lesson.toml and hints.toml."""
    manifest, hints = display_path(lesson.folder / "lesson.toml"), display_path(lesson.checks_folder / "hints.toml")
    written = lesson.titles
    declared = [entry.name for entry in lesson.checks]
    lacks = [
        f'{manifest}: a [[check]] with name = "{name}" and unsolved = "fails" or "passes"'
        for name in written
        if name not in declared
    ]
    if written:
        lacks += [
            f"{manifest}: [[check]] {name} has no function of that name" for name in declared if name not in written
        ]
    lacks += [
        f"{manifest}: [[check]] {name} is there twice"
        for name in sorted({n for n in declared if declared.count(n) > 1})
    ]
    lacks += [
        f'{manifest}: [[check]] {entry.name}: fault = "...", what it exposes'
        for entry in lesson.checks
        if entry.unsolved == "fails" and not entry.fault
    ]
    return lacks + [f"{hints}: {name} is not a check of this lesson" for name in lesson.hints if name not in declared]


def _notebook(lesson: Lesson) -> list[str]:
    path = display_path(lesson.notebook)
    if not lesson.notebook.is_file():
        return [f"{path}: write the notebook, with a heading for each `section` that the checks name"]
    lacking = [name for name in [*sections(lesson), LAST_HEADING] if name not in headings(lesson)]
    return [f"{path}: a section with the heading {name!r}" for name in lacking]


def sections(lesson: Lesson) -> list[str]:
    """The sections that the checks name as `section="..."`, in their order."""
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in sorted(lesson.checks_folder.glob("*.py"))]
    keywords = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.keyword)]
    named = [
        keyword.value.value
        for keyword in keywords
        if keyword.arg == "section" and isinstance(keyword.value, ast.Constant)
    ]
    return list(dict.fromkeys(name for name in named if isinstance(name, str) and name))


def headings(lesson: Lesson) -> set[str]:
    """The headings of the lesson's notebook."""
    if not lesson.notebook.is_file():
        return set()
    cells = json.loads(lesson.notebook.read_text(encoding="utf-8"))["cells"]
    lines = [line for cell in cells if cell["cell_type"] == "markdown" for line in "".join(cell["source"]).splitlines()]
    return {line.lstrip("#").strip() for line in lines if line.startswith("#")}


def _variants(lesson: Lesson) -> list[str]:
    folder = display_path(lesson.checks_folder / "variants")
    stems = [path.stem for path in (lesson.checks_folder / "variants").glob("*.patch")]
    lacks = []
    for kind, what, least in (("right", "a fix that must pass", RIGHT), ("wrong", "a mistake that must fail", WRONG)):
        if (count := sum(stem.startswith(f"{kind}_") for stem in stems)) < least:
            lacks.append(
                f"{folder}: {count} {kind}_* of at least {least}; write {what}: "
                f"workbook dev variant new {kind}_... --lesson {lesson.number}"
            )
    return lacks + broken_variants(lesson)


def broken_variants(lesson: Lesson) -> list[str]:
    """What is wrong with the variants that there are."""
    declared = {entry.name for entry in lesson.checks}
    faults = []
    for path in sorted((lesson.checks_folder / "variants").glob("*.patch")):
        try:
            variant = read_variant(lesson, path.stem)
            faults += [
                f"{display_path(path)}: {name} is not a check of this lesson" for name in variant.fails - declared
            ]
            patched(variant, base_tree(variant))
            if not variant.patch:
                faults.append(f"{display_path(path)} changes nothing")
        except WorkbookError as error:
            faults.append(str(error))
    return faults
