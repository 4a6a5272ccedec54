"""Remembers the processes and folders of a run, so that the next run can clear up after one that was killed."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

from checks.kit.lessons.file_lock import FileLock
from checks.kit.lessons.short_folder import short_temporary_folder
from checks.kit.service.process_start import ProcessStart


class RunRecord:
    """One run: a file of lines `pid start`, and a scratch folder with a short path (for Unix sockets).

    The first line is the run itself, the second the scratch folder. Each pid that follows is ended with its group, if
    it leads one.
    The file is in `folder` as long as the run lives, or until a later run finds it. The run holds a lock on it, which
    says that it lives whatever happens to the clock, in a container, and to the numbers of processes.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._scratch = short_temporary_folder() / f"bookshop-{secrets.token_hex(4)}"
        self._path = folder / f"{os.getpid()}-{self._scratch.name}.run"  # a process may hold several
        with _lock_on(folder):  # or a run that clears up could find the file before it is locked
            self._lock = FileLock(self._path)
            with contextlib.suppress(OSError):  # the file system has no locks; then the process is looked for
                self._lock.try_exclusive()
            self._path.write_text(f"{_entry(os.getpid())}\n{self._scratch}\n", encoding="utf-8")
        try:
            # after it is written down: whenever this process is killed, the next run finds the folder
            self._scratch.mkdir(mode=0o700)
        except BaseException:
            self.close()
            raise

    @property
    def scratch(self) -> Path:
        """The scratch folder; made again if somebody has cleaned up the temporary files, as macOS does by itself."""
        self._scratch.mkdir(mode=0o700, exist_ok=True)
        return self._scratch

    def add(self, pid: int) -> None:
        """Notes a process that has just started: if this run is killed, a later one ends it, and the group it leads."""
        if entry := _entry(pid):
            # opened each time and closed: whatever kills this process, the line is in the file
            with self._path.open("a", encoding="utf-8") as file:
                file.write(f"{entry}\n")

    def close(self) -> None:
        """Deletes scratch folder and file; the processes must have ended."""
        shutil.rmtree(self._scratch, ignore_errors=True)
        if sys.platform == "win32":  # which deletes no file that is open
            self._lock.close()
        self._path.unlink(missing_ok=True)
        self._lock.close()


def clean_up_dead_runs(folder: Path) -> int:
    """Kills what runs that died left running and deletes their scratch; returns how many processes that were."""
    if not folder.is_dir():
        return 0
    ended = 0
    with _lock_on(folder):
        for path in folder.glob("*.run"):
            lines = _read(path)
            if _alive(path, lines):
                continue
            for line in lines[2:]:
                ended += _end_group(line)
            scratch = Path(lines[1]) if len(lines) > 1 else Path()
            if scratch.name.startswith("bookshop-"):  # a damaged file must not name a folder that is not ours
                shutil.rmtree(scratch, ignore_errors=True)
            path.unlink(missing_ok=True)
    return ended


@contextlib.contextmanager
def _lock_on(folder: Path) -> Iterator[None]:
    """Within the block nobody else makes a record in this folder, or clears up there."""
    lock = FileLock(folder / "lock")
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):
            stack.enter_context(lock.exclusive())
        yield


def _read(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except OSError:  # its run has just ended
        return []


def _entry(pid: int) -> str:
    """A line about a process; empty if it has ended."""
    start = ProcessStart.of(pid)
    return f"{pid} {start}" if start else ""


def _parsed(line: str) -> tuple[int, ProcessStart] | None:
    pid, _, start = line.partition(" ")
    try:
        return int(pid), ProcessStart.from_text(start)
    except ValueError:  # an older workbook wrote it, or a run that was killed wrote half of it
        return None


def _alive(path: Path, lines: list[str]) -> bool:
    """Whether the run that wrote these lines still goes on."""
    if sys.platform != "win32":
        try:
            lock = FileLock(path)
            with contextlib.closing(lock):
                return not lock.try_exclusive()
        except OSError:  # the file system has no locks, or the file belongs to somebody else
            pass
    entry = _parsed(lines[0]) if lines else None
    return entry is not None and ProcessStart.of(entry[0]) == entry[1]


def _end_group(line: str) -> int:
    """Kills a process and what is left of its group; by its members, as the leader may be gone and its children not."""
    import psutil

    entry = _parsed(line)
    if entry is None:
        return 0
    group, start = entry
    leader = ProcessStart.of(group)
    if leader is not None and leader != start:
        return 0  # a process that is not ours has got the number, which the system gives to nobody while a group has it
    ended = 0
    for pid in psutil.pids():
        with contextlib.suppress(psutil.Error, OSError):
            same_group = pid == group or (hasattr(os, "getpgid") and os.getpgid(pid) == group)
            member = ProcessStart.of(pid) if same_group else None
            if member is not None and start.is_before(member):
                os.kill(pid, getattr(signal, "SIGKILL", signal.SIGTERM))
                ended += 1
    return ended
