"""A report while it grows: lines of JSON over a socket, from whoever grades to whoever shows it.

{"event": "lesson", "lesson": 3, "title": "…", "target": "…", "notebook": "…", "postgres": "…"}
{"event": "check", "name": "test_…", "title": "…"}                  has begun
{"event": "result", "result": {…}}                                  has ended; see Result
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import asdict
from typing import Any

from checks.kit.report.model import Report, Result


class Sender:
    """The grader's end. A reader that has left is no reason to stop grading."""

    def __init__(self, address: str) -> None:
        from checks.kit.service.order import connect

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


class Growing:
    """The reader's end: feed it the lines. `running` is the title of the check under way."""

    def __init__(self) -> None:
        self.report: Report | None = None
        self.running = ""

    def feed(self, line: bytes | str) -> Result | None:
        """Takes one line in; returns the result if it tells of one."""
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
