"""Remembers the processes and folders of a run, so that the next run can clear up after one that was killed."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import tempfile
import time
from pathlib import Path

AGREE = 2.0
"""Seconds by which a process's start and its entry may differ and still be about the same process."""


class Journal:
    """One run: a file of lines `pid unix-time`, and a scratch folder with a short path (for Unix sockets)."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.scratch = Path(tempfile.mkdtemp(prefix="bookshop-"))
        self._path = folder / f"{os.getpid()}-{self.scratch.name}.run"  # a process may hold several
        self._path.write_text(f"{os.getpid()} {time.time()}\n{self.scratch}\n", encoding="utf-8")

    def add(self, pid: int) -> None:
        with self._path.open("a", encoding="utf-8") as file:
            file.write(f"{pid} {time.time()}\n")

    def close(self) -> None:
        shutil.rmtree(self.scratch, ignore_errors=True)
        self._path.unlink(missing_ok=True)


def sweep(folder: Path) -> int:
    """Ends what runs that died left behind; returns how many processes that were."""
    ended = 0
    for path in folder.glob("*.run"):
        lines = _read(path)
        if len(lines) < 2 or _alive(lines[0]):
            continue
        for line in lines[2:]:
            ended += _end_group(line)
        scratch = Path(lines[1])
        if scratch.name.startswith("bookshop-"):
            shutil.rmtree(scratch, ignore_errors=True)
        path.unlink(missing_ok=True)
    return ended


def _read(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except OSError:  # another run was faster
        return []


def _entry(line: str) -> tuple[int, float]:
    pid, _, stamp = line.partition(" ")
    return int(pid), float(stamp)


def _alive(line: str) -> bool:
    """Whether the run that wrote this line still goes on; a newer process with its pid does not count."""
    import psutil

    pid, stamp = _entry(line)
    try:
        return bool(psutil.Process(pid).create_time() <= stamp + AGREE)
    except psutil.Error:
        return False


def _end_group(line: str) -> int:
    import psutil

    group, stamp = _entry(line)
    ended = 0
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            same_group = os.getpgid(process.pid) == group if hasattr(os, "getpgid") else process.pid == group
            if same_group and process.create_time() >= stamp - AGREE:
                process.send_signal(getattr(signal, "SIGKILL", signal.SIGTERM))
                ended += 1
    return ended
