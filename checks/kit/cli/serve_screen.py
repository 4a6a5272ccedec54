"""What `workbook serve` shows: requests, statements, calls of outside services and logs, as they happen."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from checks.kit.cli.served_processes import base_name
from checks.kit.cli.tracebacks import fold
from checks.kit.lessons.lesson import Lesson
from checks.kit.lessons.words import plural
from checks.kit.report import terminal
from checks.kit.service.process import APP, RunningProcess

if TYPE_CHECKING:
    from rich.console import Console

    from checks.kit.testbed.outside_service import Call
    from checks.kit.wire import ClosedConnection, Connection, Recording, Statement, Wire

UVICORN_LIFECYCLE = re.compile(r"INFO: {4,}(Started|Waiting|Application|Uvicorn|Shutting|Finished|connection)")
"""What uvicorn logs while all is well."""

DEBUG_PORT = 5678
"""Where an editor attaches: the port that debugpy's own documentation uses."""

CONNECTION = {
    "opened": "opened",
    "terminate": "closed",
    "dropped": "dropped without Terminate",
    "server": "closed by the server",
    "cut": "cut",
    "refused": "refused",
}
"""What is said of a connection, by what happened to it."""


@dataclass(slots=True)
class Request:
    """A request under way. `statements_before` had been sent when it arrived; `status` is 0 before its response."""

    name: str
    statements_before: int
    status: int = 0


class Screen:
    """Prints events in the order in which they happen: a response above its COMMIT left before its COMMIT."""

    def __init__(
        self, out: Console, lesson: Lesson, folder: Path, seen: Recording, wire: Wire, *, tracebacks: bool = False
    ) -> None:
        self.out = out
        self._lesson = lesson
        self.folder = folder
        self._seen = seen
        self._wire = wire
        self._tracebacks = tracebacks
        self._shown: dict[RunningProcess, int] = {}  # characters of each log that have been printed
        self._requests: dict[int, Request] = {}

    def statement_done(self, statement: Statement) -> None:
        """Prints a statement that the server has responded to."""
        if statement.driver:
            return
        result = statement.error.message if statement.error else plural(statement.rows, "row") if statement.rows else ""
        text, label = " ".join(statement.text.split()), self._label(statement.process, statement.connection)
        if self.out.is_terminal:
            text = terminal.shorten_statement(text, max(self.out.width - len(f"{label}   {result}"), 30))
        self.out.print(f"{label} {text}  {result}", style="red" if statement.error else "", soft_wrap=True)

    def connection(self, number: int, what: str) -> None:
        """Prints that a connection was opened, or how it ended."""
        known: list[Connection | ClosedConnection] = [*self._wire.connections, *reversed(self._wire.closed)]
        process = next((one.process for one in known if one.id == number), "")
        self.out.print(f"{self._label(process, number)} {CONNECTION[what]}", style="yellow")

    @staticmethod
    def _label(process: str, connection: int) -> str:
        """`  #3` for a connection of the app, `  app.worker #3` for one of another process."""
        name = base_name(process)
        return f"  #{connection}" if name in ("", APP) else f"  {name} #{connection}"

    def called(self, service: str, call: Call) -> None:
        """Prints what an outside service was asked and what it returned."""
        self.out.print(f"  → {service}: {call}  ← {call.outcome}", style="cyan", soft_wrap=True)

    def request_event(self, event: dict[str, Any]) -> None:
        """A line from the app's process; see RequestEvents."""
        self.logged()  # what the app printed before this belongs to what happened before
        if "debugger" in event:
            self._waits()
        elif "request" in event:
            self._requests[event["id"]] = Request(event["request"], len(self._seen.statements))
            self.out.print(f"\n→ {event['request']}", style="bold")
        elif "status" in event:
            self._responded(self._requests[event["id"]], event["status"])
        else:
            self._ended(self._requests.pop(event["id"]), event["error"])

    def _waits(self) -> None:
        self.out.print(
            f"The app waits for an editor at 127.0.0.1:{DEBUG_PORT}. In VS Code press F5; other editors attach to "
            "debugpy there. Ctrl-C stops.",
            style="bold",
        )

    def _responded(self, request: Request, status: int) -> None:
        request.status = status
        if len(self._seen.statements) == request.statements_before:
            self.out.print("  nothing crossed the wire", style="dim")
        if status < 500:  # any other one is shown with its traceback, which comes with the request's end
            self.out.print(f"← {status} {request.name}", style="bold green" if status < 400 else "bold red")

    def _ended(self, request: Request, error: str) -> None:
        if request.status >= 500:
            self.out.print(f"← {request.status} {request.name}", style="bold red")
        elif error:
            when = "after its response" if request.status else "and sent no response"
            self.out.print(f"{request.name} raised an exception {when}", style="bold red")
        if not error:
            return
        shown = error.rstrip().splitlines() if self._tracebacks else fold(error, self.folder)
        for line in shown:
            self.out.print(f"    {line}", soft_wrap=True)
        if not self._tracebacks:
            number = self._lesson.number
            self.out.print(f"    The whole traceback: workbook serve {number} --tracebacks", style="dim")

    def serves(self, processes: Iterable[RunningProcess]) -> None:
        """From now on the logs of these are shown."""
        self._shown = dict.fromkeys(processes, 0)

    def logged(self) -> None:
        """Prints what is new in the logs, without uvicorn's ordinary life."""
        for process, shown in self._shown.items():
            mark = "  " if base_name(process.name) == APP else f"  {base_name(process.name)} | "
            whole_lines = process.log.rpartition("\n")[0]
            self._shown[process] = len(whole_lines)
            for line in whole_lines[shown:].splitlines():
                if line.strip() and not UVICORN_LIFECYCLE.match(line):
                    self.out.print(f"{mark}{line}", style="dim", soft_wrap=True, markup=False)
