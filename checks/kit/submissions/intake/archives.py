"""Submissions that are .zip files, read in memory: nothing is extracted, and no size that they state is trusted."""

from __future__ import annotations

import io
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from checks.kit.submissions.intake.folders import kind, open_regular
from checks.kit.submissions.intake.source import (
    MAX_FILE_BYTES,
    MAX_SUBMISSION_BYTES,
    Content,
    Entry,
    SubmissionUnreadable,
    moment,
    plausible,
)

MAX_TABLE_BYTES = 16_000_000
"""Bytes of a .zip's table of contents, which zipfile reads as a whole; 100,000 files need about as many."""

EXTENDED_TIMESTAMP = 0x5455
"""The extra field of a .zip entry with its time of modification in seconds after 1970."""

METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""Compressions that zipfile unpacks a little at a time. Of bzip2 and LZMA it unpacks 4 KB at once: into gigabytes."""

BROKEN = (zipfile.BadZipFile, RuntimeError, EOFError, OSError, OverflowError, ValueError, struct.error, zlib.error)
"""What zipfile raises for a file that is damaged or hostile; OSError is for an offset outside of the file."""


class _LimitedFile(io.FileIO):
    """A file of which at most `allowance` bytes are read; then it raises SubmissionUnreadable."""

    allowance = MAX_TABLE_BYTES

    def read(self, size: int | None = -1, /) -> bytes:
        limit = self.allowance + 1
        data = super().read(limit if size is None or size < 0 else min(size, limit)) or b""
        self.allowance -= len(data)
        if self.allowance < 0:
            raise SubmissionUnreadable("It holds more than can be looked through. Ask for the lessons folder alone.")
        return data


@contextmanager
def opened(path: Path) -> Iterator[Archive]:
    """The .zip file as a Source. Raises SubmissionUnreadable if it is none, and OSError if it cannot be opened."""
    with open_regular(path) as regular, _LimitedFile(regular.fileno(), closefd=False) as file:
        try:
            archive = zipfile.ZipFile(file)
        except BROKEN as error:
            raise SubmissionUnreadable("It cannot be opened as a .zip file. Ask for it to be sent again.") from error
        with archive:
            yield Archive(archive, file)


class Archive:
    """An open .zip file: a Source."""

    def __init__(self, archive: zipfile.ZipFile, file: _LimitedFile) -> None:
        self._archive = archive
        self._file = file
        self._infos: dict[str, zipfile.ZipInfo] = {}

    def entries(self) -> Iterator[Entry]:
        for info in self._archive.infolist():
            path, mode = _path(info.orig_filename), info.external_attr >> 16
            if info.orig_filename.endswith(("/", "\\")) and not stat.S_ISLNK(mode):
                continue
            self._infos[path] = info
            # many programs write no mode at all: such an entry is a regular file
            special = kind(mode) if stat.S_IFMT(mode) not in (0, stat.S_IFDIR) else ""
            yield Entry(path, info.file_size, special, _trouble(info), _modified(info))

    def committed(self) -> datetime | None:
        return None

    def contents(self, chosen: Sequence[Entry]) -> Iterator[Content]:
        self._file.allowance = 2 * MAX_SUBMISSION_BYTES  # compressed is seldom larger than not, unless on purpose
        for entry in chosen:
            try:
                with self._archive.open(self._infos[entry.path]) as file:
                    yield Content(entry.path, file.read(MAX_FILE_BYTES + 1))
            except BROKEN:
                yield Content(entry.path, trouble="the .zip file is damaged")


def _path(name: str) -> str:
    """A name with `/`, also where Windows wrote it; a `/` at its beginning stays, so that it can be refused."""
    parts = name.replace("\\", "/").split("/")
    return "/".join(part for number, part in enumerate(parts) if part not in ("", ".") or (number == 0 and not part))


def _modified(info: zipfile.ZipInfo) -> datetime | None:
    """The time in UTC that most programs add to an entry; else its local time, taken for that of this machine."""
    position = 0
    while position + 4 <= len(info.extra):
        tag, size = struct.unpack_from("<HH", info.extra, position)
        if tag == EXTENDED_TIMESTAMP and size >= 5 and position + 9 <= len(info.extra) and info.extra[position + 4] & 1:
            return moment(struct.unpack_from("<i", info.extra, position + 5)[0])
        position += 4 + size
    try:
        return plausible(datetime(*info.date_time).astimezone())
    except (ValueError, OverflowError, OSError):
        return None


def _trouble(info: zipfile.ZipInfo) -> str:
    if stat.S_ISDIR(info.external_attr >> 16):
        return "it is marked as a folder"
    if info.flag_bits & 1:
        return "it is encrypted"
    if info.compress_type not in METHODS:
        return "it is compressed in an unusual way"
    return ""
