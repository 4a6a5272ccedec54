"""Unified diffs between two trees of text files, applied without guessing.

`patch`, and the libraries that follow it, look for a hunk's place a few lines further up or down and overlook context
that differs. Here a hunk applies at the line that it states or not at all, so that a change of the base is noticed.
"""

from __future__ import annotations

import difflib
import io
import re
from collections.abc import Iterator
from pathlib import Path

from checks.kit.lessons.errors import WorkbookError

Tree = dict[str, bytes]
"""Contents of files by their path, relative to a folder and with `/`."""

HUNK = re.compile(r"@@ -(\d+)(?:,(\d+))? \+(\d+)(?:,(\d+))? @@")
NO_NEWLINE = "\\ No newline at end of file\n"
ABSENT = "/dev/null"


class PatchError(WorkbookError):
    """A patch that cannot be read or does not apply; the message begins with its file and line."""


class NoSuchFileError(PatchError):
    """A patch that changes a file which is not there."""


CACHES = frozenset(("__pycache__", ".mypy_cache", ".pytest_cache", ".ruff_cache", ".hypothesis"))
"""Folders that compilers and tools make beside the files that they read."""


def read_tree(folder: Path) -> Tree:
    """All files below a folder, without what Python compiled and what tools remember."""
    paths = (path for path in sorted(folder.rglob("*")) if path.is_file() and CACHES.isdisjoint(path.parts))
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def write_tree(tree: Tree, folder: Path) -> None:
    """Writes every file of the tree; what else is in the folder stays."""
    for name, content in tree.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def make(before: Tree, after: Tree) -> bytes:
    """The difference as a patch with three lines of context; empty if there is none."""
    text = ""
    for name in sorted(before.keys() | after.keys()):
        old, new = before.get(name), after.get(name)
        if old == new:
            continue
        text += f"--- {ABSENT if old is None else f'a/{name}'}\n+++ {ABSENT if new is None else f'b/{name}'}\n"
        diff = list(difflib.unified_diff(_lines(name, old or b""), _lines(name, new or b"")))
        text += "".join(line if line.endswith("\n") else f"{line}\n{NO_NEWLINE}" for line in diff[2:])
    return text.encode()


def apply(patch: bytes, tree: Tree, source: str, first_line: int = 1) -> Tree:
    """A new tree with the patch applied. `source` and `first_line` say where the patch comes from, for errors."""
    result, reader = dict(tree), _Reader(patch, source, first_line)
    while reader.line:
        old = reader.path("--- ", "a/")
        new = reader.path("+++ ", "b/")
        name = old or new
        if name is None or (old and new and old != new):
            raise reader.error("a patch changes, adds or deletes a file; it does not rename one")
        if (name in result) != (old is not None):
            if old:
                raise NoSuchFileError(str(reader.error(f"the base has no file {name}")))
            raise reader.error(f"the base already has a file {name}")
        lines = list(_hunks(reader, name, _lines(name, result.pop(name, b""))))
        if new:
            result[name] = "".join(lines).encode()
        elif lines:
            raise reader.error(f"{name} is to be deleted, but the patch leaves lines of it")
    return result


def _lines(name: str, content: bytes) -> list[str]:
    """Lines with their ends; only a line feed ends one, so that CRLF and form feeds come out as they went in."""
    try:
        text = content.decode()
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise PatchError(f"{name} is not a text file in UTF-8, so a patch cannot hold it.")
    return io.StringIO(text).readlines()


def _hunks(reader: _Reader, name: str, lines: list[str]) -> Iterator[str]:
    """The lines of the file as they are after all hunks."""
    at = grown = 0
    while match := HUNK.match(reader.line):
        old_start, old_count, new_start, new_count = map(int, match.groups("1"))
        start = old_start - (old_count > 0)  # a hunk without old lines names the line before its place
        if start < at or start > len(lines) or start + grown != new_start - (new_count > 0):
            raise reader.error(f"this hunk cannot be at line {old_start} of {name}")
        yield from lines[at:start]
        at, old_left, new_left = start, old_count, new_count
        reader.advance()
        while old_left > 0 or new_left > 0:
            number = reader.number
            kind, text = reader.content()
            if kind in " -":
                if lines[at : at + 1] != [text]:
                    found = repr(lines[at]) if at < len(lines) else "the end of the file"
                    raise reader.error(f"line {at + 1} of {name} is {found}, not {text!r}", number)
                at, old_left = at + 1, old_left - 1
            if kind in " +":
                yield text
                new_left -= 1
            if old_left < 0 or new_left < 0:
                raise reader.error("this hunk has more lines than its @@ line says", number)
        grown += new_count - old_count
    yield from lines[at:]


class _Reader:
    """The lines of a patch, one after another; `line` is the current one, empty after the last, `number` its number."""

    def __init__(self, patch: bytes, source: str, first_line: int) -> None:
        self._rest = iter(_lines(source, patch))
        self._source, self.number = source, first_line
        self.line = next(self._rest, "")

    def advance(self) -> None:
        self.line = next(self._rest, "")
        self.number += 1

    def error(self, what: str, number: int | None = None) -> PatchError:
        return PatchError(f"{self._source}:{number or self.number}: {what}.")

    def path(self, mark: str, prefix: str) -> str | None:
        """The file that a `---` or `+++` line names, None for /dev/null."""
        named = self.line.removeprefix(mark).rstrip("\n")
        name = named.removeprefix(prefix)
        inside = named.startswith(prefix) and name and not name.startswith("/") and ".." not in name.split("/")
        if not self.line.startswith(mark) or not (inside or named == ABSENT):
            raise self.error(f"expected {mark}{prefix}FILE or {mark}{ABSENT}, not {self.line.rstrip()!r}")
        self.advance()
        return name if inside else None

    def content(self) -> tuple[str, str]:
        """The kind of a hunk's line, which is one of ' ', '-' and '+', and its text."""
        # an empty line of context, from which an editor took the blank that marks it
        kind, text = (" ", "\n") if self.line == "\n" else (self.line[:1], self.line[1:])
        if not kind or kind not in " -+":
            raise self.error("this hunk has fewer lines than its @@ line says")
        self.advance()
        if self.line == NO_NEWLINE:
            text = text.removesuffix("\n")
            self.advance()
        return kind, text
