"""What the app says: the lines of its log as JSON, its metrics, and its requests' ids."""

from __future__ import annotations

import asyncio
import functools
import itertools
import json
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from checks.kit.lessons.words import plural
from checks.kit.report import expect

if TYPE_CHECKING:
    from checks.kit.service.app import App, PendingRequest, Response
    from checks.kit.service.process import RunningProcess
    from checks.kit.wire import Statement

Line = dict[str, Any]

LOST = "Support looks for the request of a customer who complains, and does not find it, or finds another one."

PATIENCE = 10.0
"""Seconds in which a line must be written; a bound for failures, not a measurement."""

VOLATILE = re.compile(r"[0-9a-f]{8}-[0-9a-f-]{27}|0x[0-9a-f]+|[0-9a-f]{16,}|\d+(?:\.\d+)?(?:e-?\d+)?")
"""What differs between two lines that say the same."""

REQUEST_ID = "x-request-id"

PING = re.compile(r"\s*SELECT\s+(1|true|now\(\)|pg_is_in_recovery\(\))(\s+AS\s+\w+)?\s*;?\s*", re.IGNORECASE)
"""What an app may send at any time, to find out for itself whether the database is there."""

FIXED = (
    "event", "method", "route", "status", "statements", "database_ms", "pool_wait_ms", "duration_ms", "statement",
    "request_id",
)  # fmt: skip
"""Keys whose meaning the ticket fixes."""


class Log:
    """What a process has written since it accepted requests."""

    def __init__(self, app: App | RunningProcess) -> None:
        self.app = app
        self._start = len(app.log)

    @property
    def texts(self) -> list[str]:
        """The lines as they are."""
        return [line for line in self.app.log[self._start :].splitlines() if line.strip()]

    @property
    def lines(self) -> list[Line]:
        """Those that are JSON objects."""
        return [line for text in self.texts if (line := parsed(text)) is not None]

    def of(self, request_id: str) -> list[Line]:
        """The lines of one request."""
        return [line for line in self.lines if line.get("request_id") == request_id]

    def requests(self, request_id: str) -> list[Line]:
        """The lines that sum one request up."""
        return [line for line in self.of(request_id) if line.get("event") == "request"]

    async def until(self, found: Callable[[], Any]) -> Any:
        """What a function finds as soon as it finds something, or in the end."""
        until = asyncio.get_running_loop().time() + PATIENCE
        while not (result := found()) and asyncio.get_running_loop().time() < until:
            await self.app.flush()  # type: ignore[union-attr]
        return result

    async def request(self, request_id: str, what: str) -> Line:
        """The line of a request that has ended. It may be written after the response."""
        found = await self.until(lambda: self.requests(request_id))
        expect(
            len(found) == 1,
            f"{what}, whose X-Request-ID is {request_id}, has {plural(len(found), 'line')} with event=request and this "
            f"id. Expected: one. All lines with this id: {shown(self.of(request_id))}",
            because=LOST,
            section="One line for each request",
        )
        [line] = found
        numbers = ("duration_ms", "statements", "database_ms", "pool_wait_ms")
        wrong = [name for name in numbers if isinstance(line.get(name), bool) or not is_number(line.get(name))]
        expect(
            not wrong,
            f"In the line of {what} these are not numbers of at least 0: {', '.join(wrong)}. {shown([line])}",
            because="A program that adds up or compares these values cannot read them.",
            section="One line for each request",
        )
        return line


def is_number(value: object) -> bool:
    return isinstance(value, int | float) and value >= 0


@functools.lru_cache(maxsize=4096)  # a check looks at the whole log after each request
def parsed(text: str) -> Line | None:
    """The object of a line; None if it is none."""
    try:
        line = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return line if isinstance(line, dict) else None


def skeleton(line: Line) -> str:
    """What a line says, without what differs each time: numbers, ids, and times.

    Of a line with a fixed meaning only what the ticket names: a level, for example, may depend on how long it took.
    """
    fixed = FIXED if line.get("event") in ("request", "slow_statement") else line
    return " ".join(sorted(f"{name}={VOLATILE.sub('#', str(line[name]))}" for name in fixed if name in line))


def written_twice(lines: list[Line]) -> list[Line]:
    """Lines that two handlers have written: the next one is the same, but for the time at which it was formatted.

    The same words at another moment are another line, such as that of each COMMIT.
    """
    return [line for before, line in itertools.pairwise(lines) if before.keys() == line.keys() and alike(before, line)]


def alike(one: Line, other: Line) -> bool:
    return skeleton(one) == skeleton(other) and sum(one[name] != other[name] for name in one) <= 1


def said(lines: list[Line]) -> Counter[str]:
    return Counter(map(skeleton, lines))


def shown(lines: list[Any]) -> str:
    """Lines for a verdict. What the ticket names comes first in each of them, since the rest is cut off."""
    texts = [line if isinstance(line, str) else json.dumps(_sorted(line), ensure_ascii=False) for line in lines]
    return "; ".join(text[:300] for text in texts[:4]) + (" ..." if len(texts) > 4 else "") if texts else "none"


def _sorted(line: Any) -> Any:
    return {key: line[key] for key in FIXED if key in line} | line if isinstance(line, dict) else line


def short(lines: Iterable[Line]) -> str:
    """Lines for a verdict, each by what it says."""
    return shown([str(line.get("event", line))[:100] for line in lines])


def asks(statement: Statement) -> bool:
    """For `wire.hold`: a statement of a request, and no ping."""
    return statement.data and not PING.fullmatch(statement.text)


def new_id() -> dict[str, str]:
    """A header with an id that the app takes over."""
    return {"X-Request-ID": str(uuid4())}


async def send(app: App, method: str, path: str, **options: Any) -> tuple[str, Response]:
    """Sends a request with an id of its own; the id, and the response."""
    header = new_id()
    options["headers"] = options.get("headers", {}) | header
    return header["X-Request-ID"], await app.request(method, path, **options)


async def held_until(until: float, request: PendingRequest) -> float:
    """Waits until a time, or until the request has ended; returns a time at which it had not."""
    now = time.perf_counter()
    while time.perf_counter() < until and not request.task.done():
        now = time.perf_counter()
        await asyncio.sleep(0.02)  # between two looks at the clock
    return now


def must(response: Response, status: int) -> None:
    """What the check goes on from."""
    expect(
        response.status == status,
        f"{response}. Expected: status {status}, as before this lesson.",
        because="What worked does not work any more.",
        section="See it break",
    )


async def templates(app: App) -> Callable[[str, str], str]:
    """Finds the template of a path, as the API's document has it."""
    known = (await app.get("/openapi.json"))["paths"]

    def template(method: str, path: str) -> str:
        path = path.partition("?")[0]
        fits = [
            one
            for one, methods in known.items()
            if method.lower() in methods and re.fullmatch(re.sub(r"\\{\w+\\}", "[^/]+", re.escape(one)), path)
        ]
        return min(fits, key=lambda one: one.count("{"), default=path)

    return template


async def metrics(app: App) -> list[Any]:
    """The samples of GET /metrics, each with its name, labels and value."""
    from prometheus_client.parser import text_string_to_metric_families

    response = await app.get("/metrics")
    try:
        samples = [one for family in text_string_to_metric_families(response.text) for one in family.samples]
    except (ValueError, IndexError, KeyError):
        samples = []
    expect(
        response.status == 200 and bool(samples),
        f"{response}. Expected: status 200, and metrics in the text format of Prometheus.",
        because="The dashboards are empty, and no alarm is raised.",
        section="Metrics have few labels",
    )
    return samples


def total(samples: list[Any], name: str, **labels: str) -> float:
    """The sum of the samples with this name and these labels, whatever others they have."""
    return sum(one.value for one in samples if one.name == name and labels.items() <= {**one.labels}.items())
