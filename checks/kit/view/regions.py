"""What the page shows, as named regions of HTML, and the browsers that follow them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

QUIET = 15.0
"""Seconds without a change after which `follow` yields None, so that a browser that has left is noticed."""


class Regions:
    """The HTML of each region as it is now. A region may hold others; a new region comes after the one that holds it.

    A browser that reads slowly gets the newest HTML of a region, and not each one before it.
    """

    def __init__(self) -> None:
        self._html: dict[str, str] = {}
        self._followers: list[_Follower] = []
        self._closed = False

    def set(self, name: str, html: str, *, again: bool = False) -> None:
        """Shows this HTML in a region. `again`: the region that holds it is new, so it is sent in any case."""
        if self._html.get(name) == html and not again:
            return
        self._html.pop(name, None)  # to its place after the region that holds it
        self._html[name] = html
        for follower in self._followers:
            follower.changed(name)

    def drop(self, beginning: str) -> None:
        """Forgets all regions whose names begin like this; those that held them are shown without them."""
        for name in [name for name in self._html if name.startswith(beginning)]:
            del self._html[name]

    def close(self) -> None:
        """Ends all that follow."""
        self._closed = True
        for follower in self._followers:
            follower.woken.set()

    async def follow(self) -> AsyncIterator[tuple[str, str] | None]:
        """Name and HTML of all regions, then of each one that changes, until the end."""
        follower = _Follower(self._html)
        self._followers.append(follower)
        try:
            while not self._closed:
                try:
                    await asyncio.wait_for(follower.woken.wait(), QUIET)
                except TimeoutError:
                    yield None
                for name in follower.take():
                    if (html := self._html.get(name)) is not None:
                        yield name, html
        finally:
            self._followers.remove(follower)


class _Follower:
    """What one browser has not been told yet."""

    def __init__(self, names: dict[str, str]) -> None:
        self.woken = asyncio.Event()
        self._changed: dict[str, None] = {}
        for name in names:
            self.changed(name)

    def changed(self, name: str) -> None:
        self._changed.pop(name, None)
        self._changed[name] = None
        self.woken.set()

    def take(self) -> list[str]:
        changed, self._changed = list(self._changed), {}
        self.woken.clear()
        return changed
