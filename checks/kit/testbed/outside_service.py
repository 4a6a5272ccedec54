"""A service outside of the shop that the learner's processes call over HTTP, as a check controls it.

async with outside_service(testbed, env="PAYMENT_URL") as provider:
    provider.respond(status=201, json={"id": "p1"})     to every call from now on
    provider.respond_next(status=402)                   to the next call only
    async with provider.hold() as held:                 calls arrive and get no response
        await held.arrived()
"""

from __future__ import annotations

import asyncio
import contextlib
import json as jsons
import socket
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import parse_qsl, unquote

from checks.kit.lessons.words import plural
from checks.kit.service.process import Note, ignore
from checks.kit.testbed.evidence import Line, Source
from checks.kit.testbed.http_server import Break, ClientLeft, HttpServer, Outgoing, Request

CALL_TIMEOUT = 10.0
"""Seconds after which a call that is awaited counts as never coming; a bound for failures, not a measurement."""

MAX_CALLS = 10_000
"""Calls that are remembered; later ones get their response and are not."""

MAX_BYTES = 64 << 20
"""Bytes of their headers and bodies that are remembered, all together."""

USUAL_HEADERS = frozenset(
    ("host", "accept", "accept-encoding", "connection", "user-agent", "content-length", "transfer-encoding")
)
"""What nearly every client sends and a verdict leaves out, as it does with the content type of JSON."""

MAX_BODY_SHOWN, MAX_RESPONSE_SHOWN = 300, 60
"""Characters of a body in a verdict."""


class NeverCalled(Exception):
    """A call that was waited for did not arrive, or its client did not leave."""


class UnexpectedCall(Exception):
    """A call without what the service needs: a field that is not there, or a body that is not JSON."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A response of an outside service. `json`, unless it is None, is its body, or else `body`.

    `breaks` closes the connection too early, as in `break_next`, for a function that chooses which call breaks.
    """

    status: int = 200
    json: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    breaks: Break = ""

    def outgoing(self, breaks: Break = "") -> Outgoing:
        """What is written."""
        headers = dict(self.headers)
        if self.json is not None and "content-type" not in {name.lower() for name in headers}:
            headers["Content-Type"] = "application/json"
        return Outgoing(self.status, list(headers.items()), self.content, breaks)

    @property
    def content(self) -> bytes:
        return self.body if self.json is None else jsons.dumps(self.json).encode()


Answering = Answer | Callable[["Call"], Answer]
"""A response, or a function that makes one of the call."""


@dataclass(slots=True, eq=False)
class Call:
    """A request that an outside service has received. `call["cents"]` reads a field of its JSON body.

    `headers` have their names in lower case; `query` has the parameters of the query. `answer` is what it got, None if
    it got no response, or none yet. `outcome` says the same in words. `decided` is what the service decided on when the
    call arrived: it has done that work, also where the connection broke or the client had left. `arrived` and `ended`
    are seconds of time.perf_counter(); `ended` is None until it is known what the call gets.
    """

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes
    answer: Answer | None = None
    outcome: str = "no response yet"
    decided: Answer | None = None
    arrived: float = field(default_factory=time.perf_counter)
    ended: float | None = None

    @property
    def json(self) -> Any:
        """The decoded body. Raises UnexpectedCall."""
        try:
            return jsons.loads(self.body)
        except (ValueError, RecursionError):
            raise UnexpectedCall(f"The body of {self} is not JSON.") from None

    def __getitem__(self, key: str) -> Any:
        body = self.json
        try:
            return body[key]
        except (KeyError, TypeError, IndexError):
            raise UnexpectedCall(f"{self} has no field {key!r}.") from None

    def __str__(self) -> str:
        """`POST /payments idempotency-key: 7 {"cents": 1200}`, without the headers that nearly every client sends."""
        query = "?" + "&".join(f"{name}={value}" for name, value in self.query.items()) if self.query else ""
        told = [f"{name}: {value}" for name, value in self.headers.items() if _is_telling(name, value)]
        return " ".join([self.method, self.path + query, *told, _short(self.body, MAX_BODY_SHOWN)]).rstrip()


Choice = Callable[[Call], bool]


class HeldCalls:
    """Calls that have arrived and get no response until they are released; made by `OutsideService.hold`."""

    def __init__(self, which: Choice | None, limit: int | None, called: str) -> None:
        self.calls: list[Call] = []
        """All that were held, in the order of their arrival, released ones too."""
        self._which = which
        self._limit = limit
        self._called = called
        self._waiting: deque[asyncio.Event] = deque()
        self._open = True
        self._left = 0
        self._changed = asyncio.Condition()

    async def arrived(self, n: int = 1, timeout: float = CALL_TIMEOUT) -> list[Call]:
        """Returns when `n` calls have been held, with these calls. Raises NeverCalled after `timeout` seconds."""
        await self._until(lambda: len(self.calls) >= n, timeout)
        if len(self.calls) < n:
            raise NeverCalled(
                f"{len(self.calls)} of {plural(n, 'call')} arrived at {self._called} within {timeout:.0f} s."
            )
        return self.calls[:]

    async def client_left(self, n: int = 1) -> None:
        """Returns when the clients of `n` held calls have closed their connections, as after a timeout of theirs.

        Raises NeverCalled if they stay.
        """
        await self._until(lambda: self._left >= n)
        if self._left < n:
            raise NeverCalled(
                f"{self._left} of {plural(n, 'client')} of {self._called} gave up within {CALL_TIMEOUT:.0f} s "
                "without a response."
            )

    def release_one(self) -> None:
        """The call that has waited longest gets its response."""
        if self._waiting:
            self._waiting.popleft().set()

    def release(self) -> None:
        """All get their responses, and no more calls are held."""
        self._open = False
        while self._waiting:
            self.release_one()

    def wants(self, call: Call) -> bool:
        """Whether to hold this call, which has just arrived."""
        full = self._limit is not None and len(self.calls) >= self._limit
        return self._open and not full and (self._which is None or self._which(call))

    async def take(self, call: Call, left: ClientLeft) -> None:
        """Holds a call; returns when it is released, whether or not its client has left meanwhile."""
        released = asyncio.Event()
        self._waiting.append(released)
        self.calls.append(call)
        await self._notify()
        leaving = asyncio.ensure_future(self._note_leaving(left))
        try:
            await released.wait()
        finally:
            leaving.cancel()

    async def _note_leaving(self, left: ClientLeft) -> None:
        await left.wait()
        self._left += 1
        await self._notify()

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    async def _until(self, holds: Callable[[], bool], timeout: float = CALL_TIMEOUT) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout), self._changed:
                await self._changed.wait_for(holds)


class OutsideService:
    """A real HTTP server that a check controls. `url` is where it is, `name` what it is: "payment provider".

    What a call gets is settled when it arrives: the first of `break_next` and `respond_next` that is left, or else
    what `respond` has set. A call that is held gets it later.
    """

    def __init__(self, name: str = "outside service", answer: Answering | None = None, note: Note = ignore) -> None:
        self.name = name
        self.url = ""
        self.calls: list[Call] = []
        """All calls, in the order of their arrival."""
        self.on_end: list[Callable[[Call], None]] = []
        """Functions that get each Call when it has got its response, or when it gets none."""
        self._standing: Answering = answer or Answer()
        self._next: deque[tuple[Answering | None, Break]] = deque()
        self._holds: list[HeldCalls] = []
        self.failure: Exception | None = None  # of a function that was to make a response
        self._note = note
        self._count = 0
        self._bytes = 0
        self._arrival = asyncio.Condition()
        self._server = HttpServer(self._handle)

    def respond(
        self,
        answer: Answering | None = None,
        *,
        status: int = 200,
        json: Any = None,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
    ) -> None:
        """Sets the response to all calls from now on: `provider.respond(status=201, json={...})`.

        `answer` in place of the rest is an Answer, or a function that gets the Call and returns one.
        """
        self._standing = answer or Answer(status, json, headers or {}, body)

    def respond_next(
        self,
        answer: Answering | None = None,
        *,
        status: int = 200,
        json: Any = None,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
    ) -> None:
        """Sets the response to the next call only, or to the one after those that are set already."""
        self._next.append((answer or Answer(status, json, headers or {}, body), ""))

    def break_next(self, after: Break = "request") -> None:
        """The next call arrives, and its connection closes `after` the "request", the response's "headers", or "half".

        "half" is half of the response's body. The service has done its work then, and its client cannot know.
        """
        self._next.append((None, after))

    @asynccontextmanager
    async def hold(self, which: Choice | None = None, limit: int | None = None) -> AsyncIterator[HeldCalls]:
        """Calls arrive and get no response until `held.release()`, or until the block ends.

        `which` chooses among them by a function of the Call; at most `limit` are held.
        """
        held = HeldCalls(which, limit, self._called)
        self._holds.append(held)
        self._note(f"{self._called} receives requests and does not respond")
        try:
            yield held
        finally:
            self._holds.remove(held)
            held.release()
            self._note(f"{self._called} responds again")

    async def received(self, n: int = 1, which: Choice | None = None) -> list[Call]:
        """Returns when `n` calls have arrived, counted from the beginning, with these calls. Raises NeverCalled.

        `which` counts only those for which this function of the Call is true.
        """

        def chosen() -> list[Call]:
            return [call for call in self.calls if which is None or which(call)]

        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CALL_TIMEOUT), self._arrival:
                await self._arrival.wait_for(lambda: len(chosen()) >= n)
        if len(chosen()) < n:
            raise NeverCalled(
                f"{len(chosen())} of {plural(n, 'call')} arrived at {self._called} within {CALL_TIMEOUT:.0f} s."
            )
        return chosen()

    def evidence(self) -> list[Line]:
        """The calls for a verdict: method, path, headers, body, and what the service returned."""
        return [Line(str(call), f"#{number}", call.outcome) for number, call in enumerate(self.calls, 1)]

    async def listen(self, listener: socket.socket) -> None:
        """Serves on a listening socket; `url` is known from then on."""
        host, port = listener.getsockname()[:2]
        self.url = f"http://{host}:{port}"
        await self._server.listen(listener)

    async def close(self) -> None:
        """Closes all connections."""
        await self._server.close()

    @property
    def _called(self) -> str:
        return f"the {self.name}"

    async def _handle(self, request: Request, left: ClientLeft) -> Outgoing:
        call = _call(request)
        await self._remember(call)
        answering, breaks = self._next.popleft() if self._next else (None, "")
        answer = call.decided = self._made(answering or self._standing, call)
        breaks = breaks or answer.breaks
        if breaks:
            self._note(f"{self._called} closes the connection {BREAKS[breaks]}")
        if held := next((held for held in self._holds if held.wants(call)), None):
            await held.take(call, left)
        call.ended = time.perf_counter()
        if left:
            call.outcome = "the client had left"
        elif breaks:
            call.outcome = f"closed {BREAKS[breaks]}"
        else:
            call.answer, call.outcome = answer, _shown(answer)
        for told in self.on_end:
            told(call)
        return answer.outgoing(breaks)

    async def _remember(self, call: Call) -> None:
        self._count += 1
        self._bytes += len(call.body) + sum(len(name) + len(value) for name, value in call.headers.items())
        if self._count <= MAX_CALLS and self._bytes <= MAX_BYTES:
            self.calls.append(call)
        async with self._arrival:
            self._arrival.notify_all()

    def _made(self, answering: Answering, call: Call) -> Answer:
        if isinstance(answering, Answer):
            return answering
        try:
            return answering(call)
        except UnexpectedCall as error:  # as a service does with a request that it does not understand
            return Answer(400, {"error": str(error)})
        except Exception as error:
            self.failure = self.failure or error
            return Answer(500, {"error": f"The check's own function failed: {error!r}"})


BREAKS: Mapping[Break, str] = {
    "request": "before its response",
    "headers": "after the headers of its response",
    "half": "in the middle of its response",
}
"""What is said of a connection that breaks."""


class Surroundings(Protocol):
    """What `outside_service` needs of a testbed."""

    env: dict[str, str | None]

    @property
    def note(self) -> Note: ...

    async def listen(self) -> socket.socket: ...

    def add_evidence(self, title: str, lines: Source) -> None: ...

    def outside(self, env: str) -> tuple[str, Answering | None]: ...


@asynccontextmanager
async def outside_service(
    testbed: Surroundings, *, env: str, title: str = "", answer: Answering | None = None
) -> AsyncIterator[OutsideService]:
    """An outside service for a fixture: the learner's processes find it at the variable `env`.

    What it received is in the verdict under `title`. Name and first response are those of lesson.toml's `[[outside]]`
    with this `env`, unless there is an `answer`.
    """
    name, usual = testbed.outside(env)
    service = OutsideService(name, answer or usual, testbed.note)
    await service.listen(await testbed.listen())
    testbed.env[env] = service.url
    testbed.add_evidence(title or f"What the {name} received", service.evidence)
    try:
        yield service
    finally:
        await service.close()
    if service.failure is not None:
        raise service.failure


def counted(status: int, body: str) -> Callable[[Call], Answer]:
    """Answers with this JSON, in which `{n}` is another number each time."""
    numbers = iter(range(1, 1 << 62))
    return lambda _: Answer(status, jsons.loads(body.replace("{n}", str(next(numbers)))) if body else None)


def _call(request: Request) -> Call:
    path, _, query = request.target.partition("?")
    headers: dict[str, str] = {}
    for name, value in request.headers:
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return Call(request.method, unquote(path), dict(parse_qsl(query, True)), headers, request.body)


def _is_telling(name: str, value: str) -> bool:
    return name not in USUAL_HEADERS and not (name == "content-type" and value.startswith("application/json"))


def _shown(answer: Answer) -> str:
    return f"{answer.status} {_short(answer.content, MAX_RESPONSE_SHOWN)}".rstrip()


def _short(body: bytes, width: int) -> str:
    text = " ".join(body[: 4 * width].decode(errors="replace").split())
    return text if len(text) <= width else f"{text[:width]}…"
