"""Brings a change of a solution into every later lesson, solution and variant: `workbook dev carry`.

Each step merges what changed in one folder since a commit into the next one: solution N into lesson N+1 and into
solution N+1, and so on, so that a conflict is resolved once and not in every later folder. What could not be merged
is written under .workbook, never into a lesson.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from checks.kit.authoring.chain import OWN, TESTS, differing
from checks.kit.authoring.conflicts import Conflict, known_conflicts
from checks.kit.authoring.merge import MergedTree, merge, merge_trees, places
from checks.kit.authoring.workspace import Workspace
from checks.kit.lessons.errors import WorkbookError
from checks.kit.lessons.git import git, names
from checks.kit.lessons.lesson import Lesson
from checks.kit.lessons.patches import PatchError, Tree, make, read_tree, write_tree
from checks.kit.lessons.paths import ROOT, display_path
from checks.kit.lessons.variants import Variant, applied, new_command, variants


class Kind(StrEnum):
    """What became of one file, or of one variant."""

    MERGED = "merged"
    REMADE = "re-made"
    EQUAL = "equal already"
    CONFLICT = "conflict"


@dataclass(frozen=True, slots=True)
class Step:
    """One file or variant that was looked at. `advice` is what to do about a conflict."""

    kind: Kind
    path: str
    advice: str = ""


class Carry:
    """One run of the command. `revision` is the commit that holds the files as they were before the change.

    With `write=False` it only finds out what it would do.
    """

    def __init__(self, lessons: list[Lesson], revision: str, *, write: bool = True) -> None:
        self._lessons = lessons
        self._revision = git("rev-parse", "--verify", f"{revision}^{{commit}}").decode().strip()
        self._write = write
        self._before: dict[Path, Tree] = {}
        self._now: dict[Path, Tree] = {}
        self._known = known_conflicts()

    def run(self, start: int, files: list[str]) -> Iterator[Step]:
        """Carries the changes of solution `start` and of all later ones; with `files`, only of these."""
        chain = [lesson for lesson in self._lessons if lesson.number >= start]
        for lesson, following in zip(chain, [*chain[1:], None], strict=True):
            yield from self._variants(lesson)
            if following is not None:
                changed = {name for name in self._changed(lesson.solution, files) if not name.startswith(TESTS)}
                for folder in (following.folder, following.solution):
                    if folder.is_dir():
                        for name in sorted(changed - self._unknown(lesson, following, folder)):
                            yield self._file(lesson.solution, folder, name)
        yield from self._waiting(start, files)

    def before(self, folder: Path) -> Tree:
        """The folder's files at the revision."""
        if folder not in self._before:
            below = f"{folder.relative_to(ROOT).as_posix()}/"
            listed = names(git("ls-tree", "-r", "-z", self._revision, below))
            tree, now = {}, self.now(folder)
            for head, _, path in (line.partition("\t") for line in listed):
                name, blob = path.removeprefix(below), head.split()[2]
                same = name in now and _blob(now[name], len(blob)) == blob  # one process less
                tree[name] = now[name] if same else git("cat-file", "blob", blob)
            self._before[folder] = tree
        return self._before[folder]

    def now(self, folder: Path) -> Tree:
        """The folder's files with what was merged into them."""
        if folder not in self._now:
            self._now[folder] = read_tree(folder) if folder.is_dir() else {}
        return self._now[folder]

    def _changed(self, folder: Path, files: list[str]) -> set[str]:
        changed = differing(self.before(folder), self.now(folder)) if folder.is_dir() else set()
        return changed & set(files) if files else changed

    def _unknown(self, lesson: Lesson, following: Lesson, folder: Path) -> set[str]:
        """Files that differ on purpose, of which no commit tells what changed: those after an uncommitted lesson."""
        if self.before(lesson.solution):
            return set()
        return {*following.changed, *(following.edit if folder == following.solution else ())}

    def _file(self, source: Path, folder: Path, name: str) -> Step:
        """Merges one changed file of a solution into a folder of the next lesson."""
        path = display_path(folder / name)
        before, after, here = (tree.get(name) for tree in (self.before(source), self.now(source), self.now(folder)))
        base, known = before, self._known.pop(path, None)
        if known and known.waits():
            if known.after == after or not known.untouched():
                return Step(Kind.CONFLICT, path, known.advice())
            base = known.base
        elif known and known.before == before:  # else the change that conflicted is committed
            base = known.after
            self._close(known)
        merged = merge(base, here, after)
        if merged.conflict:
            conflict = Conflict(path, before, base, after, here, merged.content)
            if self._write:
                conflict.keep()
                return Step(Kind.CONFLICT, path, conflict.advice())
            lines = ", ".join(map(str, places(here or b"", merged.content or b"")))
            where = f"in line {lines}" if lines else "with it"
            advice = f"the change of {display_path(source / name)} conflicts {where}; to resolve it: workbook dev carry"
            return Step(Kind.CONFLICT, path, advice)
        if merged.content == here:
            return Step(Kind.EQUAL, path)
        self._put(folder, name, merged.content)
        return Step(Kind.MERGED, path)

    def _put(self, folder: Path, name: str, content: bytes | None) -> None:
        self.now(folder).pop(name, None)
        if content is not None:
            self.now(folder)[name] = content
        if self._write:
            if content is None:
                (folder / name).unlink()
            else:
                write_tree({name: content}, folder)

    def _waiting(self, start: int, files: list[str]) -> Iterator[Step]:
        """Conflicts of earlier runs that this one did not come across."""
        for path, conflict in self._known.items():
            taken_back = conflict.source() == conflict.before and conflict.untouched()
            if taken_back or not conflict.waits():
                self._close(conflict)
            elif conflict.number > start and (not files or conflict.name in files):
                yield Step(Kind.CONFLICT, path, conflict.advice())

    def _close(self, conflict: Conflict) -> None:
        if self._write:
            conflict.close()

    def _variants(self, lesson: Lesson) -> Iterator[Step]:
        """Re-makes each patch that its base has moved away from; bases come before what lies on them."""
        trees: dict[str, tuple[Tree, Tree]] = {}
        for name, folder in (("lesson", lesson.folder), ("solution", lesson.solution)):
            if folder.is_dir():
                trees[name] = (self.before(folder), self.now(folder))
        waiting = variants(lesson)
        while ready := [variant for variant in waiting if variant.on in trees]:
            for variant in ready:
                waiting.remove(variant)
                old, new = trees[variant.on]
                step, tree = self._variant(variant, old, new)
                if tree is not None:
                    trees[variant.name] = tree
                if step is not None:
                    yield step
        for variant in waiting:
            yield Step(Kind.CONFLICT, display_path(variant.path), f"repair {variant.on} first, on which it lies")

    def _variant(self, variant: Variant, old: Tree, new: Tree) -> tuple[Step | None, tuple[Tree, Tree] | None]:
        """What became of a variant, and its files before and after; neither for one that cannot be made."""
        path = display_path(variant.path)
        workspace = Workspace(variant.lesson, variant.name)
        try:
            was = applied(variant, old)
        except PatchError as error:
            try:  # made for the base as it is now, for instance by an earlier run
                now = applied(variant, new)
            except PatchError:
                base = workspace.base()  # or for one in between, which no commit has
                if base is None or (made := _applied(variant, base)) is None:
                    return Step(Kind.CONFLICT, path, self._lost(variant, error)), None
                old, was = base, made
            else:
                return Step(Kind.EQUAL, path), (now, now)
        if not differing(old, new):
            return None, (was, was)
        result = merge_trees(old, was, new)
        if result.conflicts:
            return Step(Kind.CONFLICT, path, self._conflict(variant, workspace, result, new)), None
        patch = make(new, result.tree)
        if not patch:
            advice = f"{variant.on} now does what the variant did: delete it, or make it differ again"
            return Step(Kind.CONFLICT, path, advice), None
        if patch == variant.patch:
            return Step(Kind.EQUAL, path), (was, result.tree)
        if self._write:
            variant.path.write_bytes(replace(variant, patch=patch).text())
        return Step(Kind.REMADE, path), (was, result.tree)

    def _conflict(self, variant: Variant, workspace: Workspace, result: MergedTree, new: Tree) -> str:
        """Opens the variant with its conflicts, unless somebody works on it; returns what to do."""
        save = workspace.command("save")
        if workspace.base() == new:
            if marked := workspace.marked():
                return f"resolve {workspace.where(marked)}, then: {save}"
            return f"if what you resolved in {display_path(workspace.folder)} is complete: {save}"
        if workspace.edited():
            return (
                f"{display_path(workspace.folder)} holds edits that are not saved, and stays as it is. "
                f"Save them first: {save}; then run carry again"
            )
        if not self._write:
            files = ", ".join(result.conflicts)
            return f"the change of {variant.on} conflicts in {files}; to resolve it: workbook dev carry"
        workspace.write(result.tree, new)
        return f"resolve {workspace.where(result.conflicts)}, then: {save}"

    def _lost(self, variant: Variant, error: PatchError) -> str:
        """What to do about a patch for which no base is known."""
        folder = variant.lesson.folder if variant.on == "lesson" else variant.lesson.solution
        revision = self._revision[:9]
        if self.before(folder):
            why = f"it fits {variant.on} neither as it is nor as it was at {revision}: {error}"
        else:
            why = f"{display_path(folder)} is not in commit {revision}, so nobody knows what changed: {error}"
        return (
            f"{why} Edit the patch by hand; or delete it, and make it again with: {new_command(variant)}. "
            "If you commit a solution before you change it, its variants can follow"
        )


def _applied(variant: Variant, base: Tree) -> Tree | None:
    try:
        return applied(variant, base)
    except PatchError:
        return None


def _blob(content: bytes, digits: int) -> str:
    """The name that git gives to a file of this content."""
    made = hashlib.sha1 if digits == 40 else hashlib.sha256
    return made(b"blob %d\0" % len(content) + content).hexdigest()


def check_files(lessons: list[Lesson], start: int, files: list[str]) -> None:
    """Refuses a start or a file that does not exist."""
    solution = next((lesson.solution for lesson in lessons if lesson.number == start), None)
    if solution is None:
        raise WorkbookError(f"There is no lesson {start} to carry from.")
    for name in files:
        if name in OWN:
            raise WorkbookError(f"{name} belongs to one lesson and is not carried.")
