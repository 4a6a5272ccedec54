"""Notices that files in folders changed, by looking: a folder that others share tells nobody of their changes."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterable
from pathlib import Path

from checks.kit.cli.file_watcher import IGNORED_FOLDERS

POLL_SECONDS = 2.0
"""The time between two looks."""

MAX_SHARE = 0.1
"""The share of the time that looking may take: for very many files there is more time between two looks."""

Snapshot = dict[str, tuple[int, int]]
"""Of each file: its path, when it was changed in nanoseconds, and its size in bytes."""


def snapshot(paths: Iterable[Path]) -> Snapshot:
    """The files at and below these paths as they are now. A path that is not there has none."""
    found: Snapshot = {}
    for path in paths:
        _add(found, path)
        for folder, folders, names in os.walk(path):
            folders[:] = [name for name in folders if name not in IGNORED_FOLDERS]
            for name in names:
                _add(found, Path(folder, name))
    return found


def _add(found: Snapshot, path: Path) -> None:
    try:
        state = path.stat(follow_symlinks=False)
    except OSError:  # it was deleted in this moment
        return
    if not path.is_dir():
        found[str(path)] = (state.st_mtime_ns, state.st_size)


async def changed(paths: Iterable[Path], before: Snapshot) -> Snapshot:
    """Waits until the files differ from `before` and nobody changes them any more, and returns how they are then.

    A file that is being copied is thus not read before it is whole.
    """
    paths = list(paths)
    last, pause = before, 0.0  # the first look at once: `before` may be old
    while True:
        await asyncio.sleep(pause)
        start = time.monotonic()
        now = await asyncio.to_thread(snapshot, paths)
        pause = max(POLL_SECONDS, (time.monotonic() - start) / MAX_SHARE)
        if now != before and now == last:
            return now
        last = now
