"""The learner's app as a check sees it: a process that responds to HTTP requests, writes a log and can be stopped."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shlex
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable, Generator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlencode

from checks.kit.service.inside.endpoint_header import HEADER
from checks.kit.service.inside.spec import AppSpec, split
from checks.kit.service.launcher import RESPONSE_TIMEOUT
from checks.kit.service.process import Exit, Note, RunningProcess, Sent, Workspace, ignore
from checks.kit.service.start_failure import dumped_frames, how_it_ended, likely_cause, without_dump

if TYPE_CHECKING:
    import httpx

HOST = "bookshop"
"""The Host header of a request that has none of its own."""

MAX_BODY_BYTES = 64 << 20
"""Bytes of a response's body that a client reads before it gives up."""

MAX_CURL_WORD = 500
"""Characters of a body in the command that repeats a request."""

START_TIMEOUT = 30.0
"""Seconds within which an app must accept requests: a loaded machine needs many for several cold interpreters.

A bound for failures, not a measurement.
"""


class AppDidNotStart(Exception):
    """The app ended, or did not accept a request within START_TIMEOUT seconds; or another process did not connect.

    `code` is its exit code, None if it was still running; `log` is what it printed; `name` is that of its process.
    `frames` says where a running one was at the end, the newest call first: path, line, function.
    """

    def __init__(self, code: int | None, log: str, name: str = "app", *, is_app: bool = True) -> None:
        self.is_app = is_app
        act, acted = ("accept", "accepted") if self.is_app else ("connect", "connected")
        what = "a request" if self.is_app else "to the database"
        how = f"did not {act} {what} within {START_TIMEOUT:.0f} s"
        if code is not None:
            how = f"{how_it_ended(code)} before it {acted} {what}"
        super().__init__(f"{'The app' if self.is_app else name} {how}. {likely_cause(code, log)}".rstrip())
        self.code = code
        self.log = without_dump(log)
        self.frames = dumped_frames(log)
        self.name = name


class NoResponse(Exception):
    """A request got no response: nothing came within the time limit, or the connection broke."""


class UnexpectedResponse(Exception):
    """A response without the field that the ticket promises, or whose body is not JSON."""


@dataclass(frozen=True, slots=True)
class Response:
    """What came back. `response["id"]` reads a field of the JSON body and raises UnexpectedResponse without it.

    `request` names it in messages: `GET /books/1`. As text it is request, status and the beginning of the body.
    """

    request: str
    status: int
    headers: Mapping[str, str]
    text: str

    @property
    def json(self) -> Any:
        """The decoded body. Raises UnexpectedResponse."""
        try:
            return json.loads(self.text)
        except (ValueError, RecursionError):
            raise UnexpectedResponse(f"{self} is not JSON.") from None

    def __getitem__(self, key: str) -> Any:
        body = self.json
        try:
            return body[key]
        except (KeyError, TypeError, IndexError):
            raise UnexpectedResponse(f"{self} has no field {key!r}.") from None

    @property
    def ok(self) -> bool:
        return 200 <= self.status < 300

    def repeats(self, first: Response) -> bool:
        """Whether it says what `first` did, as when a request comes again with its Idempotency-Key: status and body."""
        if self.status != first.status:
            return False
        try:
            return bool(self.json == first.json)
        except UnexpectedResponse:
            return self.text == first.text

    def __str__(self) -> str:
        text = self.text if len(self.text) <= 160 else self.text[:160] + "…"
        return f"{self.request} → {self.status} {text}"


class PendingRequest:
    """A request that was sent. Await it for the response; `task` is for waiting for several things at once."""

    def __init__(self, task: asyncio.Task[Response]) -> None:
        self.task = task

    def __await__(self) -> Generator[Any, None, Response]:
        return self.task.__await__()

    @property
    def responded(self) -> bool:
        """Whether a response has been read."""
        return self.task.done() and not self.task.cancelled() and self.task.exception() is None

    @property
    def status(self) -> int | None:
        """The status that came back, or None while there is no response."""
        return self.task.result().status if self.responded else None

    async def disconnect(self) -> None:
        """Closes the connection without waiting for the response, as an impatient client does."""
        self.task.cancel()
        with contextlib.suppress(asyncio.CancelledError, NoResponse):
            await self.task


class StreamingResponse:
    """A response whose body has not been read: once the buffers are full, the app waits with the rest of it."""

    def __init__(self, response: httpx.Response) -> None:
        self.status = response.status_code
        self._response = response

    async def rest(self) -> str:
        """Reads the whole body."""
        return (await self._response.aread()).decode()


class App:
    """A running app. `process` is its main process, which a check may signal or kill."""

    def __init__(
        self,
        process: RunningProcess,
        client: httpx.AsyncClient,
        listen: str,
        note: Note = ignore,
        requests: list[Sent] | None = None,
    ) -> None:
        self.process = process
        self._listen = listen
        self._client = client
        self._note = note
        self._requests = [] if requests is None else requests

    @property
    def log(self) -> str:
        """Everything that the app printed so far."""
        return self.process.log

    async def request(self, method: str, path: str, **options: Any) -> Response:
        """Sends a request and reads the response. The options are those of httpx: `json=`, `headers=`, `timeout=`.

        Raises NoResponse, never an exception of httpx. Without `timeout` it waits RESPONSE_TIMEOUT seconds.
        """
        import httpx

        what = f"{method} {path}"
        detail = _curl(method, path, options)
        limit = options.get("timeout", RESPONSE_TIMEOUT)
        if self._client.is_closed:
            raise NoResponse(f"{what} was not sent: this app has been ended. Start another one.")
        note = self._sent(what)
        try:
            async with self._client.stream(method, path, **options) as response:
                body = await _body(response)
        except httpx.TimeoutException:
            note(f"no response within {limit:g} s", detail=detail)
            raise NoResponse(f"{what} got no response within {limit:g} s.") from None
        except (httpx.TransportError, httpx.DecodingError) as error:
            note("connection broke", detail=detail)
            raise NoResponse(f"{what} got no response: the app closed the connection ({error}).") from None
        except _TooLong:
            note(f"{response.status_code}, and a body without end", detail=detail)
            raise NoResponse(
                f"{what} got a response of more than {MAX_BODY_BYTES >> 20} MB; the client gave up."
            ) from None
        except asyncio.CancelledError:
            note("the client hung up", detail=detail)
            raise
        note(str(response.status_code), detail=detail, endpoint=unquote(response.headers.pop(HEADER, "")))
        if response.status_code >= 500:  # the traceback is logged after the response; have it before anyone looks
            with contextlib.suppress(OSError, TimeoutError):
                await self.flush()
        return Response(what, response.status_code, response.headers, _text(body, response.encoding))

    def _sent(self, what: str) -> Callable[..., None]:
        """Notes that a request begins now; what it returns is to be called with the outcome."""
        sent = Sent(what, time.perf_counter())
        self._requests.append(sent)

        def note(outcome: str, **more: str) -> None:
            sent.outcome, sent.ended = outcome, time.perf_counter()
            self._note(f"{what} → {outcome}", is_response=True, **more)

        return note

    async def get(self, path: str, **options: Any) -> Response:
        return await self.request("GET", path, **options)

    async def post(self, path: str, **options: Any) -> Response:
        return await self.request("POST", path, **options)

    async def put(self, path: str, **options: Any) -> Response:
        return await self.request("PUT", path, **options)

    async def patch(self, path: str, **options: Any) -> Response:
        return await self.request("PATCH", path, **options)

    async def delete(self, path: str, **options: Any) -> Response:
        return await self.request("DELETE", path, **options)

    def start_request(self, method: str, path: str, **options: Any) -> PendingRequest:
        """Sends a request and returns without waiting for the response."""
        return PendingRequest(asyncio.create_task(self.request(method, path, **options)))

    @asynccontextmanager
    async def stream(self, path: str, **options: Any) -> AsyncIterator[StreamingResponse]:
        """Sends GET `path` and reads the head of the response; the body is read when told to. Raises NoResponse.

        The options are those of httpx: `headers=`.
        """
        import httpx

        note = self._sent(f"GET {path}")
        try:
            async with self._client.stream("GET", path, **options) as response:
                note(f"{response.status_code}, its body not read yet")
                yield StreamingResponse(response)
        except httpx.TransportError as error:
            raise NoResponse(f"GET {path} got no whole response: {type(error).__name__}.") from None

    async def flush(self) -> None:
        """Returns when every response that the app had written before this call has been read.

        Makes a few round trips to which uvicorn responds by itself (400, the request line is invalid), so that the
        app's event loop turns and what was ready to leave has left; the app's own code sees nothing of them. Then
        this loop turns until the clients here have read what arrived. Checks use `wait_quiescent`, which calls this.
        """
        for _ in range(3):
            reader, writer = await _open(self._listen)
            try:
                writer.write(b"caught up?\r\n\r\n")
                await asyncio.wait_for(reader.read(), RESPONSE_TIMEOUT)
            finally:
                writer.close()
        for _ in range(100):  # far more turns than a response takes from the socket to the task that awaits it
            await asyncio.sleep(0)

    async def stop(self, signum: int = signal.SIGTERM, within: float = RESPONSE_TIMEOUT) -> Exit | None:
        """Sends a signal and waits for the end; None: the app was still running after `within` seconds."""
        return await self.process.stop(signum, within)


@asynccontextmanager
async def running(
    workspace: Workspace,
    env: Mapping[str, str],
    *,
    module: str = "app.main:app",
    workers: int = 1,
    listen: str = "",
    events: str = "",
    terminal: str = "",
    debugger: str = "",
    name: str = "",
) -> AsyncIterator[App]:
    """Starts an app with `env` as its settings; in the block it accepts requests, at its end it is killed.

    `module` is uvicorn's `module:attribute`, `workers` the number of processes that serve. `listen` is the address
    (`host:port`, or the path of a Unix socket; by default one of its own); `events` is an address that gets a line of
    JSON for each request and each response. `terminal` and `debugger` are those of AppSpec; with a debugger it
    waits for any time. `name` is one of `Workspace.name_for`. Raises AppDidNotStart.
    """
    import httpx

    called = name or workspace.name_for("app")
    shared = workspace.spec(env)
    unix = sys.platform != "win32"
    if not listen:
        listen = str(Path(shared.log).with_suffix(".sock")) if unix else f"127.0.0.1:{_free_port()}"
    by_path = "/" in listen
    # no TLS here: verify=False spares reading the machine's certificates for every app
    # and a connection for each request: an app that fails after its response takes the connection along,
    # which is no reason for the next request to fail
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
    transport = httpx.AsyncHTTPTransport(uds=listen if by_path else None, verify=False, limits=limits)
    base = f"http://{HOST}" if by_path else f"http://{listen}"
    ready = _Ready(workers)
    by_hand = bool(debugger)  # who attaches it when they like
    async with AsyncExitStack() as stack:
        stack.callback(ready.close)
        address = await ready.open(Path(shared.log).with_suffix(".ready") if unix else None)
        spec = AppSpec(
            folder=shared.folder,
            log=shared.log,
            env=shared.env,
            pycache=shared.pycache,
            app=module,
            listen=listen,
            ready=address,
            events=events,
            workers=workers,
            dump_after=0 if by_hand else START_TIMEOUT * 0.9,
            terminal=terminal,
            debugger=debugger,
        )
        starting = asyncio.ensure_future(stack.enter_async_context(workspace.process(called, spec)))
        stack.callback(starting.cancel)
        await asyncio.sleep(0)
        _import_late_ones()  # while the other process is busy
        process = await starting
        either: set[asyncio.Future[Any]] = {ready.all, process.exit}
        await asyncio.wait(either, timeout=None if by_hand else START_TIMEOUT, return_when=asyncio.FIRST_COMPLETED)
        if not ready.all.done():
            code = process.exit.result() if process.exit.done() else None
            raise AppDidNotStart(code, process.log, process.name)
        client = httpx.AsyncClient(
            transport=transport,
            base_url=base,
            headers={"Host": HOST},
            timeout=RESPONSE_TIMEOUT,
            trust_env=False,
            verify=False,
        )
        yield App(process, await stack.enter_async_context(client), listen, workspace.note, workspace.requests)


def _curl(method: str, path: str, options: Mapping[str, Any]) -> str:
    """The command that repeats a request by hand while `workbook serve` runs; empty if the path says it all."""
    words = []
    for name, value in dict(options.get("headers") or {}).items():
        words += ["-H", f"{name}: {value}"]
    if "json" in options:
        words += ["-H", "content-type: application/json", "-d", json.dumps(options["json"], ensure_ascii=False)]
    elif isinstance(body := options.get("content"), str):
        words += ["-d", body]
    for name, value in dict(options.get("data") or {}).items():
        words += ["--data-urlencode", f"{name}={value}"]
    query = f"?{urlencode(options['params'])}" if options.get("params") else ""
    if not words and not query:
        return ""
    command = ["curl", *(["-X", method] if method != "GET" else []), f"localhost:8000{path}{query}", *words]
    return shlex.join(word if len(word) <= MAX_CURL_WORD else f"{word[:MAX_CURL_WORD]}…" for word in command)


class _TooLong(Exception):
    """A body goes on after its limit."""


async def _body(response: httpx.Response) -> bytes:
    body = bytearray()
    async for part in response.aiter_bytes():
        body += part
        if len(body) > MAX_BODY_BYTES:
            raise _TooLong
    return bytes(body)


def _text(body: bytes, encoding: str | None) -> str:
    known = (encoding or "").lower() in ("latin-1", "iso-8859-1", "us-ascii", "ascii", "utf-16")
    return body.decode(encoding if known and encoding else "utf-8", errors="replace")  # an app may name anything


def _import_late_ones() -> None:
    """What httpx imports at its first request."""
    import anyio._backends._asyncio  # noqa: F401
    import h11  # noqa: F401
    import httpcore  # noqa: F401


async def _open(address: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    if "/" in address:
        return await asyncio.open_unix_connection(address)
    return await asyncio.open_connection(*split(address))


class _Ready:
    """A socket on which each worker writes a line when it accepts requests; `all` is done when all have."""

    def __init__(self, workers: int) -> None:
        self.all: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._missing = workers
        self._server: asyncio.Server | None = None

    async def open(self, path: Path | None) -> str:
        if path is not None:
            self._server = await asyncio.start_unix_server(self._arrived, path)
            return str(path)
        self._server = await asyncio.start_server(self._arrived, "127.0.0.1", 0)
        return f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def _arrived(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.CancelledError):  # Python 3.11 would print a traceback for it
            async for _ in reader:  # a line from each worker, which may have a connection of its own or share one
                self._missing -= 1
                if self._missing <= 0:
                    break
        writer.close()
        if self._missing <= 0 and not self.all.done():
            self.all.set_result(None)

    def close(self) -> None:
        if self._server is not None:
            self._server.close()
        self.all.cancel()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
