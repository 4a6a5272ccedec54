"""A lock on a file, which the kernel releases however its process ends."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO


class FileLock:
    """A lock on the file `path`, which is made if it is not there. Held until `close`, or until the process has ended.

    On Windows it locks nothing.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: IO[bytes] = path.open("ab")

    def shared(self) -> None:
        """Waits until nobody holds it exclusively; several processes may then hold it."""
        self._flock("LOCK_SH")

    @contextlib.contextmanager
    def exclusive(self) -> Iterator[None]:
        """Waits until nobody else holds it; closes it at the end of the block."""
        try:
            self._flock("LOCK_EX")
            yield
        finally:
            self.close()

    def try_exclusive(self) -> bool:
        """Whether nobody else holds it; if so, this process does from now on."""
        try:
            self._flock("LOCK_EX", "LOCK_NB")
        except BlockingIOError:
            return False
        return True

    def is_at_path(self) -> bool:
        """False if the file was deleted: the next process locks another one."""
        return self._path.exists() and os.path.samestat(os.fstat(self._file.fileno()), self._path.stat())

    def _flock(self, *names: str) -> None:
        if sys.platform == "win32":
            return
        import fcntl

        flags = 0
        for name in names:
            flags |= getattr(fcntl, name)
        fcntl.flock(self._file, flags)

    def close(self) -> None:
        self._file.close()
