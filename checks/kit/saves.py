"""Notices when somebody saves."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

from watchfiles import Change, DefaultFilter, awatch

STEP = 20
"""Milliseconds without another change after which a save is complete; editors write in several steps."""


class Handwritten(DefaultFilter):
    """What people edit: no compiled files, no editors' leftovers, no tickets."""

    def __call__(self, change: Change, path: str) -> bool:
        return super().__call__(change, path) and not path.endswith((".md", ".tmp", "~"))


async def saves(folder: Path) -> AsyncIterator[set[Path]]:
    """The files below `folder` that were changed, made or deleted, relative to it; FileNotFoundError if it is gone."""
    async for changes in awatch(folder, watch_filter=Handwritten(), step=STEP, debounce=200):
        yield {Path(path).relative_to(folder) for _, path in changes}
