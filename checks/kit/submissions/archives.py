"""Hand-ins that are .zip files, read in memory: nothing is extracted, and no size that they claim is believed."""

from __future__ import annotations

import io
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from checks.kit.submissions.folders import kind, open_regular
from checks.kit.submissions.source import FILE_BYTES, HAND_IN_BYTES, Content, Entry, HandInUnreadable

TABLE_BYTES = 16_000_000
"""Bytes of a zip's table of contents, which is read and held as a whole; 100,000 files need about as much."""

METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""Compressions that can be read a little at a time. Of bzip2 and LZMA, zipfile unpacks 4 KB at once: into gigabytes."""

BROKEN = (zipfile.BadZipFile, RuntimeError, EOFError, OSError, OverflowError, ValueError, struct.error, zlib.error)
"""What zipfile raises for a file that is damaged or made to do damage; an OSError is a place outside of the file."""


class _Frugal(io.FileIO):
    """A file of which no more than `allowance` bytes are read. Raises HandInUnreadable where more are asked for."""

    allowance = TABLE_BYTES

    def read(self, size: int | None = -1, /) -> bytes:
        most = self.allowance + 1
        data = super().read(most if size is None or size < 0 else min(size, most)) or b""
        self.allowance -= len(data)
        if self.allowance < 0:
            raise HandInUnreadable("It holds more than can be looked through. Ask for the lessons folder alone.")
        return data


@contextmanager
def opened(path: Path) -> Iterator[Archive]:
    """The zip file as a Source. Raises HandInUnreadable where it is none, and OSError where it cannot be opened."""
    with open_regular(path) as raw, _Frugal(raw.fileno(), closefd=False) as file:
        try:
            archive = zipfile.ZipFile(file)
        except BROKEN as error:
            raise HandInUnreadable("It cannot be opened as a .zip file. Ask for it to be sent again.") from error
        with archive:
            yield Archive(archive, file)


class Archive:
    """An opened zip file: a Source."""

    def __init__(self, archive: zipfile.ZipFile, file: _Frugal) -> None:
        self._archive = archive
        self._file = file
        self._found: dict[str, zipfile.ZipInfo] = {}

    def entries(self) -> Iterator[Entry]:
        for info in self._archive.infolist():
            path, mode = _path(info.orig_filename), info.external_attr >> 16
            if info.orig_filename.endswith(("/", "\\")) and not stat.S_ISLNK(mode):
                continue
            self._found[path] = info
            named = kind(mode) if stat.S_IFMT(mode) not in (0, stat.S_IFDIR) else ""
            yield Entry(path, info.file_size, named, _trouble(info))

    def contents(self, chosen: Sequence[Entry]) -> Iterator[Content]:
        self._file.allowance = 2 * HAND_IN_BYTES  # packed is seldom larger than unpacked, unless somebody saw to it
        for entry in chosen:
            try:
                with self._archive.open(self._found[entry.path]) as file:
                    yield Content(entry.path, file.read(FILE_BYTES + 1))
            except BROKEN:
                yield Content(entry.path, trouble="the .zip file is damaged")


def _path(name: str) -> str:
    """A name as it was written, perhaps on Windows; a `/` in front stays, so that it can be refused."""
    parts = name.replace("\\", "/").split("/")
    return "/".join(part for number, part in enumerate(parts) if part not in ("", ".") or (number == 0 and not part))


def _trouble(info: zipfile.ZipInfo) -> str:
    if stat.S_ISDIR(info.external_attr >> 16):
        return "it is marked as a folder"
    if info.flag_bits & 1:
        return "it is encrypted"
    if info.compress_type not in METHODS:
        return "it is compressed in an unusual way"
    return ""
