"""Three-way merge of files, as `git merge-file` does it, which needs no repository."""

from __future__ import annotations

import difflib
import re
import subprocess
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from checks.kit.lessons.errors import WorkbookError
from checks.kit.lessons.patches import Tree

MARKER = re.compile(rb"^<<<<<<< ", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Merged:
    """One merged file; None for a file that is absent. With `conflict` it holds conflict markers."""

    content: bytes | None
    conflict: bool = False


def merge(base: bytes | None, ours: bytes | None, theirs: bytes | None) -> Merged:
    """Brings the change from `base` to `theirs` into `ours`."""
    if ours == theirs or base == theirs:
        return Merged(ours)
    if base == ours:
        return Merged(theirs)
    with tempfile.TemporaryDirectory() as folder:
        paths = []
        for name, content in (("here", ours), ("before", base), ("after", theirs)):
            paths.append(Path(folder) / name)
            paths[-1].write_bytes(content or b"")
        labels = ("here", "the change: before", "the change: after")
        options = [option for label in labels for option in ("-L", label)]
        done = subprocess.run(["git", "merge-file", "-p", "--diff3", *options, *map(str, paths)], capture_output=True)
    if done.returncode < 0 or done.returncode > 127:  # it returns the number of conflicts
        raise WorkbookError(f"git merge-file: {done.stderr.decode(errors='replace').strip()}")
    # a change of a file that the other side deleted is always a conflict, also where git sees none
    return Merged(done.stdout, conflict=done.returncode > 0 or None in (ours, theirs))


def conflict_lines(content: bytes) -> list[int]:
    """The numbers of the lines at which conflicts begin."""
    return [content.count(b"\n", 0, match.start()) + 1 for match in MARKER.finditer(content)]


def places(ours: bytes, merged: bytes) -> list[int]:
    """The numbers of the lines of `ours` at which the conflicts of a merge begin."""
    old, new = ours.splitlines(), merged.splitlines()
    at = conflict_lines(merged)
    blocks = difflib.SequenceMatcher(None, old, new, autojunk=False).get_opcodes()
    return [start + 1 for _, start, _, first, last in blocks for line in at if first < line <= last]


@dataclass(slots=True)
class MergedTree:
    """A merged tree and the names of its files that hold conflict markers."""

    tree: Tree = field(default_factory=dict)
    conflicts: list[str] = field(default_factory=list)


def merge_trees(base: Tree, ours: Tree, theirs: Tree, names: Iterable[str] | None = None) -> MergedTree:
    """Brings the changes of all files, or of those named, from `base` to `theirs` into `ours`."""
    result = MergedTree(dict(ours))
    for name in sorted(base.keys() | theirs.keys() if names is None else names):
        merged = merge(base.get(name), ours.get(name), theirs.get(name))
        result.tree.pop(name, None)
        if merged.content is not None:
            result.tree[name] = merged.content
        if merged.conflict:
            result.conflicts.append(name)
    return result
