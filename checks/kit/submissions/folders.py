"""Hand-ins that are folders, read without following a link or waiting for anything."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from checks.kit.submissions.source import (
    ENTRIES,
    FILE_BYTES,
    Content,
    Entry,
    HandInUnreadable,
    ignored,
)

LONGEST_PATH = 1_000
"""Characters of the path of a folder that is entered, from the hand-in on; systems refuse some thousands."""

KINDS = {
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFDIR: "a folder too deep down",
    stat.S_IFREG: "",
}


class Folder:
    """A learner's folder: a Source. The folder itself may be reached through a link, nothing in it is."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen = 0

    def entries(self) -> Iterator[Entry]:
        todo = [""]
        while todo:
            inside: list[str] = []
            yield from self._listed(todo.pop(), inside)
            todo += inside

    def contents(self, chosen: Sequence[Entry]) -> Iterator[Content]:
        for entry in chosen:
            try:
                with open_regular(self._path / entry.path) as file:
                    yield Content(entry.path, file.read(FILE_BYTES + 1))
            except OSError as error:
                yield Content(entry.path, trouble=said(error))

    def _listed(self, folder: str, inside: list[str]) -> Iterator[Entry]:
        """What is in one folder; those to enter next are added to `inside`."""
        try:
            with os.scandir(self._path / folder) as found:
                for entry in found:
                    self._count()
                    path = f"{folder}/{entry.name}" if folder else entry.name
                    if ignored(path):
                        continue
                    if entry.is_dir(follow_symlinks=False) and len(path) <= LONGEST_PATH:
                        inside.append(path)
                    else:
                        yield _entry(path, entry)
        except OSError as error:
            if not folder:
                raise HandInUnreadable(f"The folder cannot be listed: {said(error)}.") from error
            # as of a file in it: a lesson is then known to lack something
            yield Entry(f"{folder}/*", trouble=said(error))

    def _count(self) -> None:
        self._seen += 1
        if self._seen > ENTRIES:
            raise HandInUnreadable(f"It holds more than {ENTRIES:,} files and folders. Ask for the lessons alone.")


def _entry(path: str, entry: os.DirEntry[str]) -> Entry:
    try:
        status = entry.stat(follow_symlinks=False)
    except OSError as error:
        return Entry(path, trouble=said(error))
    return Entry(path, status.st_size, kind(status.st_mode))


def kind(mode: int) -> str:
    """What a mode says that something is, with its article; empty for a regular file."""
    return KINDS.get(stat.S_IFMT(mode), "no regular file")


def open_regular(path: Path) -> BinaryIO:
    """Opens a regular file for reading. Raises OSError for anything else, and does not wait for a pipe's other end."""
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    number = os.open(path, flags)
    # looked at after opening: what a name stands for can change between a look and an open
    if found := kind(os.fstat(number).st_mode):
        os.close(number)
        raise OSError(0, f"it is {found}")
    return os.fdopen(number, "rb")


def said(error: OSError) -> str:
    """The system's reason in a few words, in lower case: "permission denied"."""
    reason = error.strerror or type(error).__name__
    return reason[:1].lower() + reason[1:]
