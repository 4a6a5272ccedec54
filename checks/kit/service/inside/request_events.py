"""Tells `workbook serve` of each request, its response, and the exception that it ended with."""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
import socket
import time
import traceback
from typing import Any


class RequestEvents:
    """ASGI middleware that writes a line of JSON for what happens to each request, outside of the app.

        {"id": 7, "at": 1.2, "request": "GET /books/1"}     it arrived
        {"id": 7, "at": 1.3, "status": 500}                 the head of its response leaves
        {"id": 7, "at": 1.4, "error": "Traceback ..."}      the app is done with it; empty where it raised no error

    `at` is seconds of time.perf_counter.

    uvicorn logs the same exceptions without their requests; it no longer does.
    """

    def __init__(self, app: Any, events: socket.socket) -> None:
        self._app = app
        self._events = events
        self._ids = itertools.count(1)
        self._told: BaseException | None = None
        logging.getLogger("uvicorn.error").addFilter(self._is_new)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        number = next(self._ids)
        query = scope.get("query_string", b"").decode("latin-1")
        self._tell(id=number, request=f"{scope['method']} {scope['path']}{'?' if query else ''}{query}")

        async def tell_and_send(message: Any) -> None:
            if message["type"] == "http.response.start":
                self._tell(id=number, status=message["status"])
            await send(message)

        error = ""
        try:
            await self._app(scope, receive, tell_and_send)
        except Exception as raised:
            self._told = raised
            error = "".join(traceback.format_exception(raised))
            raise
        finally:
            self._tell(id=number, error=error)

    def _is_new(self, record: logging.LogRecord) -> bool:
        """A filter of log records. uvicorn logs the exception at once, so that there is only the last one to know."""
        return self._told is None or not record.exc_info or record.exc_info[1] is not self._told

    def _tell(self, **event: object) -> None:
        with contextlib.suppress(OSError):  # nobody reads any more; that must not become an error of the app
            self._events.sendall(json.dumps({"at": time.perf_counter(), **event}).encode() + b"\n")
