"""A report while it grows: lines of JSON over a socket, from the process that grades to the one that shows it.

{"event": "lesson", "lesson": 3, "title": "…", "target": "…", "notebook": "…", "postgres": "…"}
{"event": "check", "name": "test_…", "title": "…"}                  has begun
{"event": "result", "result": {…}}                                  has ended; see Result
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from checks.kit.report.model import Report, Result

MAX_LINE_BYTES = 1 << 24
"""Bytes of the longest line that a grader may send."""


class Sender:
    """The grader's end of a connection to `address` (a Unix socket's path or host:port).

    If the reader has left, nothing is sent and nothing is raised.
    """

    def __init__(self, address: str) -> None:
        from checks.kit.service.inside.spec import connect

        self._socket = connect(address)

    def lesson(self, report: Report) -> None:
        head = {name: value for name, value in asdict(report).items() if name != "results"}
        self._tell("lesson", **head)

    def check(self, result: Result) -> None:
        self._tell("check", name=result.name, title=result.title)

    def result(self, result: Result) -> None:
        self._tell("result", result=asdict(result))

    def _tell(self, event: str, **fields: object) -> None:
        with contextlib.suppress(OSError):
            self._socket.sendall(json.dumps({"event": event, **fields}).encode() + b"\n")


class LiveReport:
    """The report made of the lines so far. `running` is the title of the check that runs, empty between checks."""

    def __init__(self) -> None:
        self.report: Report | None = None
        self.running = ""

    def feed(self, line: bytes | str) -> Result | None:
        """Reads one line; returns the result if the line is about one."""
        message: dict[str, Any] = json.loads(line)
        event = message.pop("event")
        if event == "lesson":  # once at the beginning, and again when the server is known
            results = self.report.results if self.report else []
            self.report = Report(**message, results=results)
        elif event == "check":
            self.running = message["title"]
        elif event == "result":
            assert self.report is not None
            result = Result.from_dict(message["result"])
            self.report.results.append(result)
            self.running = ""
            return result
        return None


class LiveReceiver:
    """The socket to which one grader connects; `on_line` is called with each line of JSON."""

    def __init__(self, on_line: Callable[[bytes], None]) -> None:
        self._on_line = on_line
        self._server: asyncio.Server | None = None
        self._connections: list[asyncio.Task[Any]] = []

    async def open(self, path: Path) -> str:
        """Listens, at `path` where there are Unix sockets; returns the address for `--live`."""
        if sys.platform == "win32":
            self._server = await asyncio.start_server(self._listen, "127.0.0.1", 0, limit=MAX_LINE_BYTES)
            return f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        self._server = await asyncio.start_unix_server(self._listen, path, limit=MAX_LINE_BYTES)
        return str(path)

    async def _listen(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.append(task)
        with contextlib.suppress(asyncio.CancelledError):  # Python 3.11 would print a traceback for it
            async for line in reader:
                self._on_line(line)
        writer.close()

    async def drain(self) -> None:
        """Returns when all has been read that the grader sent; to be called when it has ended."""
        for _ in range(3):  # a connection of its last moment is being accepted
            await asyncio.sleep(0)
        await asyncio.gather(*self._connections)

    def close(self) -> None:
        if self._server is not None:
            self._server.close()
