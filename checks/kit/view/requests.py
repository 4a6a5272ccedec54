"""The requests of `workbook serve` as the page shows them, each with the statements that were sent meanwhile."""

from __future__ import annotations

import asyncio
from typing import Any

from checks.kit.service.process import APP
from checks.kit.view.regions import Regions
from checks.kit.view.render import render
from checks.kit.view.served_request import Happening, Request

MAX_REQUESTS = 40
"""Requests that the page shows; the newest."""

PAUSE = 0.2
"""Seconds between two drawings: a load test sends thousands of requests."""


class Requests:
    """The panel. `hears` takes the events of a feed; see cli/serve_feed.py."""

    def __init__(self, regions: Regions) -> None:
        self._regions = regions
        self._lesson = 0
        self._served = False
        self._start = 0
        self._all: list[Request] = []
        self._under_way: dict[int, Request] = {}
        self._changed: set[str] = set()
        self._list_changed = True
        self._drawing: asyncio.TimerHandle | None = None

    def begins(self, lesson: int, served: bool) -> None:
        """Whether `serve` of this lesson runs; if so, its feed comes from the beginning."""
        if served or lesson != self._lesson:
            self._all, self._under_way = [], {}
        elif (lesson, served) == (self._lesson, self._served):
            return
        self._lesson, self._served, self._list_changed = lesson, served, True
        self._later()

    def hears(self, event: dict[str, Any]) -> None:
        what = event.pop("event")
        if what == "starts":
            self._start += 1
            for request in self._under_way.values():
                self._close(request, request.responded or request.began)
            self._under_way = {}
        elif what == "request":
            self._request(event)
        elif what == "statement":
            self._happened(Happening(**event), event["process"] in ("", APP))
        elif what == "call":
            self._happened(Happening(**event), True)
        self._later()

    def _request(self, event: dict[str, Any]) -> None:
        number, at = event["id"], event["at"]
        if "request" in event:
            new = Request(f"{self._start}-{number}", event["request"], at, shared=bool(self._under_way))
            for other in self._under_way.values():
                other.shared = True
                self._changed.add(other.key)
            self._under_way[number] = new
            self._add(new)
        elif request := self._under_way.get(number):
            if "status" in event:
                request.status, request.responded = event["status"], at
            else:
                request.error = event["error"]
                self._close(request, at)
                del self._under_way[number]
            self._changed.add(request.key)

    def _close(self, request: Request, at: float) -> None:
        request.ended = at
        self._changed.add(request.key)

    def _happened(self, happening: Happening, of_app: bool) -> None:
        """Into each request that was under way when it began; a worker's belong to none."""
        during = [
            request
            for request in self._all
            if of_app
            and not request.outside
            and request.began <= happening.began
            and (request.ended is None or happening.began <= request.ended)
        ]
        if not during:
            if not self._all or not self._all[-1].outside:
                key = f"{self._start}-after-{self._all[-1].key if self._all else 'start'}"
                self._add(Request(key, "Outside of a request", happening.began, outside=True))
            during = [self._all[-1]]
        for request in during:
            request.happened.append(happening)
            self._changed.add(request.key)

    def _add(self, request: Request) -> None:
        self._all.append(request)
        del self._all[:-MAX_REQUESTS]
        self._list_changed = True

    def _later(self) -> None:
        if self._drawing is None:
            self._drawing = asyncio.get_running_loop().call_later(PAUSE, self.draw)

    def draw(self) -> None:
        """Shows what has changed since the last time, newest first."""
        self._drawing = None
        again, self._list_changed = self._list_changed, False
        changed, self._changed = self._changed, set()
        newest_first = list(reversed(self._all))
        if again:
            self._regions.drop("request:")
            values = {"requests": newest_first, "lesson": self._lesson, "served": self._served}
            self._regions.set("requests", render("requests.html", **values))
        for request in newest_first:
            if again or request.key in changed:
                self._regions.set(f"request:{request.key}", render("request.html", request=request), again=again)
