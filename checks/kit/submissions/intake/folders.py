"""Submissions that are folders, read without following a link or waiting for a pipe."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import BinaryIO

from checks.kit.submissions.intake.source import (
    MAX_ENTRIES,
    MAX_FILE_BYTES,
    Content,
    Entry,
    SubmissionUnreadable,
    ignored,
    moment,
)

MAX_FOLDER_CHARACTERS = 1_000
"""Characters of the path, within the submission, of a folder that is entered; systems refuse some thousands."""

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
    """A learner's folder: a Source. The path of the folder may contain links; links inside are not followed."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen = 0

    def entries(self) -> Iterator[Entry]:
        folders = [""]
        while folders:  # a loop, because a submission can be deeper than Python recurses
            below: list[str] = []
            yield from self._listed(folders.pop(), below)
            folders += below

    def contents(self, chosen: Sequence[Entry]) -> Iterator[Content]:
        for entry in chosen:
            try:
                with open_regular(self._path / entry.path) as file:
                    yield Content(entry.path, file.read(MAX_FILE_BYTES + 1))
            except OSError as error:
                yield Content(entry.path, trouble=reason(error))

    def committed(self) -> datetime | None:
        """None: a folder's .git is not read, because its settings could start programs."""
        return None

    def _listed(self, folder: str, below: list[str]) -> Iterator[Entry]:
        """The entries of one folder; the folders in it are added to `below`."""
        try:
            with os.scandir(self._path / folder) as entries:
                for entry in entries:
                    self._count()
                    path = f"{folder}/{entry.name}" if folder else entry.name
                    if ignored(path):
                        continue
                    if entry.is_dir(follow_symlinks=False) and len(path) <= MAX_FOLDER_CHARACTERS:
                        below.append(path)
                    else:
                        yield _entry(path, entry)
        except OSError as error:
            if not folder:
                raise SubmissionUnreadable(f"The folder cannot be listed: {reason(error)}.") from error
            # like a file that cannot be read: the lesson is then left out, because part of it is missing
            yield Entry(f"{folder}/*", trouble=reason(error))

    def _count(self) -> None:
        self._seen += 1
        if self._seen > MAX_ENTRIES:
            raise SubmissionUnreadable(
                f"It holds more than {MAX_ENTRIES:,} files and folders. Ask for the lessons alone."
            )


def _entry(path: str, entry: os.DirEntry[str]) -> Entry:
    try:
        status = entry.stat(follow_symlinks=False)
    except OSError as error:
        return Entry(path, trouble=reason(error))
    return Entry(path, status.st_size, kind(status.st_mode), modified=moment(status.st_mtime))


def kind(mode: int) -> str:
    """What a file of this mode is, with an article ("a socket"); empty for a regular file."""
    return KINDS.get(stat.S_IFMT(mode), "no regular file")


def open_regular(path: Path) -> BinaryIO:
    """Opens a regular file for reading. Raises OSError for anything else; does not wait for the other end of a pipe."""
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    number = os.open(path, flags)
    # checked after opening: before it, the file could be replaced between the check and the opening
    if special := kind(os.fstat(number).st_mode):
        os.close(number)
        raise OSError(0, f"it is {special}")
    return os.fdopen(number, "rb")


def reason(error: OSError) -> str:
    """The system's message in lower case: "permission denied"."""
    message = error.strerror or type(error).__name__
    return message[:1].lower() + message[1:]
