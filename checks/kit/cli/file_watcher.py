"""Notices when somebody saves a change."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path, PurePath

from watchfiles import Change, DefaultFilter, awatch

from checks.kit.lessons.code_state import SOURCE

IGNORED_FOLDERS = {*DefaultFilter.ignore_dirs, "venv", "site-packages"}

STEP = 20
"""Milliseconds without another change after which a save is complete; editors write in several steps."""

POLL_SECONDS = 1.0
"""How often we look where the system does not tell us of changes."""


class SourceFilter(DefaultFilter):
    """Lets events through that may be about a source file: one, or a folder, whose name has no suffix."""

    def __call__(self, change: Change, path: str) -> bool:
        return super().__call__(change, path) and (path.endswith(SOURCE) or not PurePath(path).suffix)


async def watch_saves(folder: Path, notice: Callable[[str], None]) -> AsyncIterator[set[Path]]:
    """The source files below `folder` that were changed, made or deleted, relative to it.

    A file that was written with the same content has not changed. `notice` is called with a sentence if the system
    cannot tell us of changes; then we look every second. Raises FileNotFoundError if the folder is gone.
    """
    known = _read(folder)
    async for _ in _events(folder, notice):
        before, known = known, _read(folder)
        if changed := {path for path in before.keys() | known.keys() if before.get(path) != known.get(path)}:
            yield changed


async def _events(folder: Path, notice: Callable[[str], None]) -> AsyncIterator[None]:
    """An item each time that something may have changed."""
    try:
        async for _ in awatch(folder, watch_filter=SourceFilter(), step=STEP, debounce=200):
            yield
    except FileNotFoundError:
        raise
    except (OSError, RuntimeError) as error:  # the second one: what goes wrong inside of watchfiles
        notice(
            f"The system cannot watch more files ({error}), so we look for saves every second. "
            "On Linux, this raises the limit: "
            "sudo sysctl fs.inotify.max_user_instances=1024 fs.inotify.max_user_watches=524288"
        )
    while True:
        await asyncio.sleep(POLL_SECONDS)
        yield


def _read(folder: Path) -> dict[Path, bytes]:
    """The source files below a folder, by their path relative to it. Raises FileNotFoundError if it is gone."""
    if not folder.is_dir():
        raise FileNotFoundError(folder)
    found = {}
    seen = set()
    for root, folders, names in os.walk(folder, followlinks=True):
        if (real := os.path.realpath(root)) in seen:  # a link that leads back
            folders.clear()
            continue
        seen.add(real)
        folders[:] = [name for name in folders if name not in IGNORED_FOLDERS]
        for name in names:
            path = Path(root, name)
            if name.endswith(SOURCE) and not name.startswith(".#"):  # a link with which emacs marks what it edits
                try:
                    found[path.relative_to(folder)] = path.read_bytes()
                except OSError:  # it was deleted in this moment, or nobody may read it
                    continue
    return found
