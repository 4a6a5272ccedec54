"""Other fixes of a lesson, right and wrong ones, each a patch to the lesson, to its solution or to another variant.

checks/lesson_NN/variants/NAME.patch begins with a head, which an empty line ends; then comes a unified diff:

    about: what somebody wrote here
    on: solution
    fails: test_one, test_another
"""

from __future__ import annotations

import shlex
import textwrap
from dataclasses import dataclass
from pathlib import Path

from checks.kit.lessons.errors import WorkbookError
from checks.kit.lessons.lesson import Lesson
from checks.kit.lessons.patches import NoSuchFileError, PatchError, Tree, apply, read_tree, write_tree
from checks.kit.lessons.paths import display_path

KEYS = ("about", "on", "fails")


@dataclass(frozen=True, slots=True)
class Variant:
    """What a variant's file says. `fails` are the checks that must fail on it: none for a right_*, some for a wrong_*.

    `on` is `lesson`, `solution` or the name of another variant.
    """

    lesson: Lesson
    name: str
    about: str
    on: str
    fails: frozenset[str]
    patch: bytes
    patch_line: int = 1
    """The line of the file at which the patch begins."""

    @property
    def path(self) -> Path:
        return variant_path(self.lesson, self.name)

    def text(self) -> bytes:
        """The whole file, as `read_variant` reads it."""
        head = f"about: {self.about}\non: {self.on}\n"
        if self.fails:
            names = "fails: " + ", ".join(sorted(self.fails))
            wrapped = textwrap.wrap(names, 120, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
            head += "\n".join(wrapped) + "\n"
        return f"{head}\n".encode() + self.patch


def variant_path(lesson: Lesson, name: str) -> Path:
    return lesson.checks_folder / "variants" / f"{name}.patch"


def variants(lesson: Lesson) -> list[Variant]:
    """All variants of a lesson, by name."""
    return [read_variant(lesson, path.stem) for path in sorted((lesson.checks_folder / "variants").glob("*.patch"))]


def find_variant(lesson: Lesson, name: str) -> Variant:
    if not variant_path(lesson, name).is_file():
        known = ", ".join(path.stem for path in sorted((lesson.checks_folder / "variants").glob("*.patch")))
        raise WorkbookError(f"Lesson {lesson.number} has no variant {name!r}. Variants: {known or 'none yet'}.")
    return read_variant(lesson, name)


def read_variant(lesson: Lesson, name: str, path: Path | None = None) -> Variant:
    """Reads one variant's file; what is wrong with its head is an error that names file and line."""
    path = path or variant_path(lesson, name)
    head, _, patch = path.read_bytes().partition(b"\n\n")
    lines = head.decode().splitlines()
    values: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        key, colon, value = line.partition(":")
        if line.startswith(" ") and values:
            values[list(values)[-1]] += " " + line.strip()
        elif colon and key in KEYS and key not in values:
            values[key] = value.strip()
        else:
            raise PatchError(f"{display_path(path)}:{number}: expected one of {', '.join(KEYS)}, not {line!r}.")
    fails = frozenset(check.strip() for check in values.get("fails", "").split(",") if check.strip())
    if not values.get("about") or not values.get("on") or not name.startswith("wrong_" if fails else "right_"):
        raise PatchError(
            f"{display_path(path)}:1: the head says `about: ...` and `on: lesson`, solution or another variant; "
            "a wrong_* names in `fails: ...` the checks that fail, a right_* has no `fails`."
        )
    return Variant(lesson, name, values["about"], values["on"], fails, patch, len(lines) + 2)


def base_tree(variant: Variant, above: tuple[str, ...] = ()) -> Tree:
    """The files that a variant's patch applies to."""
    if variant.on in ("lesson", "solution"):
        folder = variant.lesson.folder if variant.on == "lesson" else variant.lesson.solution
        if not folder.is_dir():
            raise PatchError(f"{display_path(variant.path)} changes {display_path(folder)}, which is missing.")
        return read_tree(folder)
    if variant.on in above or not variant_path(variant.lesson, variant.on).is_file():
        raise PatchError(
            f"{display_path(variant.path)}: `on: {variant.on}` is neither lesson, solution nor another variant "
            "below this one."
        )
    below = read_variant(variant.lesson, variant.on)
    return patched(below, base_tree(below, (*above, variant.name)))


def patched(variant: Variant, base: Tree) -> Tree:
    """The variant's files, made from those of its base. A patch that does not fit says how to repair it."""
    try:
        return applied(variant, base)
    except NoSuchFileError as error:
        again = new_command(variant)
        raise PatchError(f"{error} Delete the patch. If you still want it, make it again: {again}") from None
    except PatchError as error:
        raise PatchError(
            f"{error} If `{variant.on}` was changed, bring the change into its variants: workbook dev carry"
        ) from None


def applied(variant: Variant, base: Tree) -> Tree:
    """The same, for callers that say themselves how to repair a patch that does not fit."""
    return apply(variant.patch, base, display_path(variant.path), variant.patch_line)


def new_command(variant: Variant) -> str:
    """The command with which a variant is begun anew."""
    about = shlex.quote(variant.about)
    on = "" if variant.on == "solution" else f" --on {variant.on}"
    fails = "".join(f" --fails {name}" for name in sorted(variant.fails))
    return f"workbook dev variant new {variant.name} --lesson {variant.lesson.number} --about {about}{on}{fails}"


def materialize(variant: Variant, scratch: Path) -> Path:
    """Writes a variant's files into a folder of its own under `scratch`, and returns that folder."""
    folder = scratch / variant.lesson.name / variant.name
    write_tree(patched(variant, base_tree(variant)), folder)
    return folder
