"""Submissions that are .tar files, compressed or not: read once from beginning to end, in memory."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import BinaryIO, cast

from checks.kit.submissions.intake.folders import open_regular
from checks.kit.submissions.intake.source import (
    MAX_ENTRIES,
    MAX_FILE_BYTES,
    MAX_SUBMISSION_BYTES,
    Content,
    Entry,
    SubmissionUnreadable,
    ignored,
    moment,
)

SUFFIXES = (".tar", ".gz", ".tgz", ".bz2", ".tbz2", ".xz", ".txz")

MAX_UNPACKED_BYTES = 200_000_000
"""Bytes that are unpacked of one file, with what is not read, such as a folder .git."""

UNPACKERS: dict[bytes, Callable[[BinaryIO], object]] = {
    b"\x1f\x8b": lambda file: gzip.GzipFile(fileobj=file),
    b"BZ": bz2.BZ2File,
    b"\xfd7": lzma.LZMAFile,
}
"""What unpacks a stream, by its first two bytes."""

BROKEN = (tarfile.TarError, EOFError, OSError, ValueError, zlib.error, lzma.LZMAError)
"""What tarfile and the unpackers raise for a file that is damaged or hostile."""

KINDS = {tarfile.SYMTYPE: "a symbolic link", tarfile.LNKTYPE: "a hard link", tarfile.FIFOTYPE: "a named pipe"}


class _Limited(io.RawIOBase):
    """An unpacked stream of which a limited number of bytes can be read; then it raises SubmissionUnreadable."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._allowance = MAX_UNPACKED_BYTES

    def readable(self) -> bool:
        return True

    def read(self, size: int | None = -1, /) -> bytes:
        data = self._stream.read(self._allowance + 1 if size is None or size < 0 else min(size, self._allowance + 1))
        self._allowance -= len(data)
        if self._allowance < 0:
            raise SubmissionUnreadable(
                f"It unpacks into more than {MAX_UNPACKED_BYTES // 1_000_000} MB. Ask for the lessons folder alone."
            )
        return data


class Tar:
    """A .tar file that was read: a Source."""

    def __init__(self) -> None:
        self._entries: list[Entry] = []
        self._data: dict[str, bytes] = {}

    def entries(self) -> Iterator[Entry]:
        return iter(self._entries)

    def contents(self, chosen: Sequence[Entry]) -> Iterator[Content]:
        for entry in chosen:
            yield Content(entry.path, self._data[entry.path])

    def committed(self) -> datetime | None:
        return None

    def read(self, archive: tarfile.TarFile) -> None:
        """Takes what may be wanted of the archive, which is read as a stream."""
        total = 0
        for member in archive:
            path = "/".join(part for part in member.name.split("/") if part != ".")
            if member.isdir() or ignored(path):
                continue
            if len(self._entries) > MAX_ENTRIES:
                raise SubmissionUnreadable(f"It holds more than {MAX_ENTRIES:,} files. Ask for the lessons alone.")
            kind = "" if member.isreg() else KINDS.get(member.type, "a device")
            self._entries.append(Entry(path, member.size, kind, modified=moment(member.mtime)))
            if kind or member.size > MAX_FILE_BYTES:
                continue
            file = archive.extractfile(member)
            self._data[path] = file.read(MAX_FILE_BYTES + 1) if file else b""
            total += len(self._data[path])
            if total > 2 * MAX_SUBMISSION_BYTES:
                raise SubmissionUnreadable("It holds more than can be read. Ask for the lessons folder alone.")


@contextmanager
def opened(path: Path) -> Iterator[Tar]:
    """The .tar file as a Source. Raises SubmissionUnreadable if it is none, and OSError if it cannot be opened."""
    tar = Tar()
    with open_regular(path) as file:
        begins = file.read(2)
        file.seek(0)
        unpacked = cast("BinaryIO", UNPACKERS[begins](file) if begins in UNPACKERS else file)
        try:
            with tarfile.open(fileobj=cast("BinaryIO", _Limited(unpacked)), mode="r|") as archive:
                tar.read(archive)
        except BROKEN as error:
            raise SubmissionUnreadable("It cannot be opened as a .tar file. Ask for it to be sent again.") from error
    yield tar
