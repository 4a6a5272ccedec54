"""What `workbook serve` tells the page of `workbook view`: the events that its own terminal shows, as lines of JSON.

{"event": "starts"}                                                     the app starts, as after each save
{"event": "request", "id": 7, "at": 1.25, "request": "GET /books/1"}    then with "status", then with "error"
{"event": "statement", "connection": 3, "process": "app", "text": …}    the server has responded to a statement
{"event": "call", "text": "payment provider: POST /payments", …}        what an outside service was asked

Times are seconds of time.perf_counter, whose clock all processes of a machine share.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Any

from checks.kit.cli.served_processes import base_name
from checks.kit.cli.tracebacks import fold
from checks.kit.report.timeline import shown_text, what_came_back

if TYPE_CHECKING:
    from checks.kit.testbed.outside_service import Call
    from checks.kit.wire import Statement

REMEMBERED = 2_000
"""Events that a page hears of which comes later."""

MAX_UNREAD = 8 << 20
"""Bytes that wait for one page; one that reads no more is cut."""


class Feed:
    """Hears what the terminal of `serve` hears, and tells the pages that are connected."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lines: deque[bytes] = deque(maxlen=REMEMBERED)
        self._pages: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None

    async def open(self, path: Path) -> str:
        """Listens at `path`, in a folder of this account's own; returns it, or "" where there are no such sockets."""
        if sys.platform == "win32":
            return ""
        self._server = await asyncio.start_unix_server(self._connected, path)
        return str(path)

    def close(self) -> None:
        if self._server is not None:
            self._server.close()
        for page in self._pages:
            page.close()

    def starts(self) -> None:
        """The app starts; the numbers of its requests begin anew."""
        self._tell("starts")

    def request_event(self, event: dict[str, Any]) -> None:
        """What RequestEvents wrote; a traceback is folded to the learner's own lines."""
        if event.get("error"):
            event = event | {"error": "\n".join(fold(event["error"], self._folder))}
        if "id" in event:
            self._tell("request", **event)

    def statement_done(self, statement: Statement) -> None:
        if not statement.driver:
            self._tell(
                "statement",
                connection=statement.connection,
                process=base_name(statement.process),
                text=shown_text(statement),
                began=statement.started,
                ended=statement.finished,
                result=what_came_back(statement),
                failed=statement.error is not None,
            )

    def called(self, service: str, call: Call) -> None:
        self._tell("call", text=f"{service}: {call}", began=call.arrived, ended=call.ended, result=call.outcome)

    def _tell(self, event: str, **fields: object) -> None:
        line = json.dumps({"event": event, **fields}).encode() + b"\n"
        self._lines.append(line)
        for page in list(self._pages):
            if page.is_closing() or page.transport.get_write_buffer_size() > MAX_UNREAD:
                self._pages.discard(page)
                page.close()
            else:
                page.write(line)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"".join(self._lines))
        self._pages.add(writer)
