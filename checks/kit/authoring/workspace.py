"""Where a variant is edited: a folder under .workbook/variants, of which `workbook dev variant save` makes a patch."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace

from checks.kit.authoring.merge import conflict_lines, merge_trees
from checks.kit.lessons.errors import WorkbookError
from checks.kit.lessons.lesson import Lesson
from checks.kit.lessons.patches import PatchError, Tree, make, read_tree, write_tree
from checks.kit.lessons.paths import STATE, display_path
from checks.kit.lessons.variants import Variant, applied, base_tree, find_variant, patched, read_variant, variant_path

FOLDER = STATE / "variants"
NAME = re.compile(r"(right|wrong)_[a-z0-9_]+")


class Workspace:
    """The folder of one variant, with a copy of the base from which it was made beside it."""

    def __init__(self, lesson: Lesson, name: str) -> None:
        self.lesson = lesson
        self.name = name
        self.folder = FOLDER / lesson.name / name
        self._base = FOLDER / lesson.name / f"{name}.base"
        self._head = FOLDER / lesson.name / f"{name}.patch"

    def command(self, verb: str) -> str:
        return f"workbook dev variant {verb} {self.name} --lesson {self.lesson.number}"

    def base(self) -> Tree | None:
        """The files from which the folder was made, if it is there."""
        return read_tree(self._base) if self.folder.is_dir() else None

    def edited(self) -> bool:
        """Whether the folder holds what was not saved; else it can be written anew."""
        if (base := self.base()) is None:
            return False
        path = self._head if self._head.is_file() else variant_path(self.lesson, self.name)
        try:
            return read_tree(self.folder) != applied(read_variant(self.lesson, self.name, path), base)
        except (FileNotFoundError, PatchError):
            return True

    def marked(self) -> list[str]:
        """The files that hold conflict markers."""
        return [name for name, content in read_tree(self.folder).items() if conflict_lines(content)]

    def where(self, conflicts: list[str]) -> str:
        """The places of the conflicts in these files, with the lines at which they begin."""
        places = []
        for name in conflicts:
            shown, path = display_path(self.folder / name), self.folder / name
            lines = conflict_lines(path.read_bytes()) if path.is_file() else []
            places += [f"{shown}:{line}" for line in lines] or [shown]
        return ", ".join(places)

    def new(self, on: str, about: str, fails: frozenset[str]) -> None:
        """A copy of the base, to be edited."""
        if not NAME.fullmatch(self.name):
            raise WorkbookError(f"{self.name}: a variant is called right_... or wrong_..., in small letters.")
        if variant_path(self.lesson, self.name).exists():
            raise WorkbookError(f"There is a variant {self.name} already. Edit it: {self.command('open')}")
        if self.name.startswith("wrong_") != bool(fails):
            raise WorkbookError(
                "A wrong_* names with --fails each check that fails, once or more; a right_* has no --fails."
            )
        if self.folder.exists():
            raise WorkbookError(self._open_already())
        variant = Variant(self.lesson, self.name, about, on, fails, b"")
        base = base_tree(variant)
        self.write(base, base)
        self._head.write_bytes(variant.text())

    def open(self) -> None:
        """The files of a variant that exists, to be edited."""
        variant = find_variant(self.lesson, self.name)
        base = base_tree(variant)
        files = patched(variant, base)
        if self.edited() and read_tree(self.folder) != files:
            raise WorkbookError(self._open_already())
        self.write(files, base)
        self._head.write_bytes(variant.text())

    def write(self, files: Tree, base: Tree) -> None:
        """Puts these files into the folder; `base` is what they will be compared with."""
        for folder, tree in ((self.folder, files), (self._base, base)):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            write_tree(tree, folder)

    def save(self) -> Variant:
        """Writes the difference to the base as the variant's patch, below the head that it has."""
        variant, base = self._variant_and_base()
        patch = make(base, read_tree(self.folder))
        if not patch:
            raise WorkbookError(f"{display_path(self.folder)} is as {variant.on}. Change something first, then save.")
        if marked := self.marked():
            raise WorkbookError(f"{self.where(marked)} holds conflict markers. Resolve them, then save.")
        saved = replace(variant, patch=patch)
        for path in (saved.path, self._head):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(saved.text())
        return saved

    def difference(self) -> str:
        """What the variant changes: as it is being edited, else as it was saved."""
        if not self.folder.is_dir():
            return find_variant(self.lesson, self.name).path.read_text(encoding="utf-8")
        variant, base = self._variant_and_base()
        return replace(variant, patch=make(base, read_tree(self.folder))).text().decode()

    def _variant_and_base(self) -> tuple[Variant, Tree]:
        path = variant_path(self.lesson, self.name)
        if not path.exists():
            path = self._head
        if not NAME.fullmatch(self.name) or not self.folder.is_dir() or not path.exists():
            find_variant(self.lesson, self.name)
            raise WorkbookError(f"{self.name} is not open. Open it: {self.command('open')}")
        variant = read_variant(self.lesson, self.name, path)
        base, was = base_tree(variant), read_tree(self._base)
        if base != was:
            self._follow(was, base, variant)
        return variant, base

    def _follow(self, was: Tree, base: Tree, variant: Variant) -> None:
        """Brings what changed in the base since the folder was made into the folder."""
        edited = self.edited()
        merged = merge_trees(was, read_tree(self.folder), base)
        self.write(merged.tree, base)
        if not edited and not merged.conflicts:
            self._head.write_bytes(replace(variant, patch=make(base, merged.tree)).text())
        if merged.conflicts:
            raise WorkbookError(
                f"{variant.on} was changed since {self.name} was opened, in the same places. Resolve the conflict "
                f"in {self.where(merged.conflicts)}, then: {self.command('save')}"
            )

    def _open_already(self) -> str:
        return (
            f"{self.name} is being edited in {display_path(self.folder)}. Save it: {self.command('save')}; "
            "or delete that folder to start anew."
        )


def edited_workspaces(lesson: Lesson) -> list[Workspace]:
    """Those of the lesson's variants whose folder holds what was not saved."""
    names = sorted(path.name for path in (FOLDER / lesson.name).glob("*") if path.is_dir())
    workspaces = [Workspace(lesson, name) for name in names if NAME.fullmatch(name)]
    return [workspace for workspace in workspaces if workspace.edited()]
