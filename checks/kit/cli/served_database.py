"""What a running `workbook serve` offers: its database to `workbook psql`, and what it shows to `workbook view`."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from checks.kit.lessons.file_lock import FileLock
from checks.kit.lessons.lesson import Lesson
from checks.kit.lessons.paths import STATE

FOLDER = STATE / "run"


@dataclass(frozen=True, slots=True)
class ServedDatabase:
    """`url` is for psql and other clients; `binaries` is the folder of the server's programs, if it has its own.

    `feed` is the socket on which `workbook serve` tells what it shows, if there is one.
    """

    url: str
    server: str
    binaries: str = ""
    feed: str = ""


@contextlib.contextmanager
def offer(lesson: Lesson, database: ServedDatabase, folder: Path = FOLDER) -> Iterator[None]:
    """While the block lasts, `find` gives this database; its lock says that this process still lives."""
    # readable by this account alone, because the URL holds a password
    descriptor, name = tempfile.mkstemp(dir=folder, prefix=f"{lesson.name}-", suffix=".served")
    path = Path(name)
    lock = FileLock(path)
    lock.shared()
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(asdict(database), file)
        yield
    finally:
        path.unlink(missing_ok=True)
        lock.close()


def find(lesson: Lesson, folder: Path = FOLDER) -> ServedDatabase | None:
    """The database of the newest `workbook serve` of this lesson that runs."""
    found = sorted(folder.glob(f"{lesson.name}-*.served"), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in found:
        with contextlib.suppress(OSError, ValueError, TypeError):  # gone, or half written
            lock = FileLock(path)
            try:
                if not lock.try_exclusive():
                    return ServedDatabase(**json.loads(path.read_text(encoding="utf-8")))
            finally:
                lock.close()
            path.unlink()  # of a serve that was killed
    return None
