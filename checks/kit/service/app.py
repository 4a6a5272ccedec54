"""The learner's app as a check sees it: something that answers HTTP, writes a log and can be stopped."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Generator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from checks.kit.service.launcher import Launcher, Process
from checks.kit.service.order import Order, split

if TYPE_CHECKING:
    import httpx

PATIENCE = 15.0
"""Seconds after which an answer or a start counts as never coming; a bound for failures, not a measurement."""

LONGEST_BODY = 64 << 20
"""Bytes of an answer's body that a client takes in before it gives up."""

PROBE_LOGGED = "WARNING:  Invalid HTTP request received.\n"

INHERITED = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "SYSTEMROOT", "VIRTUAL_ENV")
"""What an app gets of the grader's own environment."""

_numbers = itertools.count(1)


class AppDidNotStart(Exception):
    """The app ended, or stayed silent, before it accepted a request."""

    def __init__(self, code: int | None, log: str) -> None:
        how = "said nothing for 15 s" if code is None else f"ended with exit code {code}"
        super().__init__(f"The app {how} before it accepted a request.")
        self.code = code
        self.log = log


class NoAnswer(Exception):
    """A request was not answered: nothing came within the time limit, or the connection broke."""


class UnexpectedAnswer(Exception):
    """An answer without the field that the ticket promises, or whose body is no JSON."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back. `answer["id"]` reads a field of its JSON body; `request` is for messages: `GET /books/1`."""

    request: str
    status: int
    headers: Mapping[str, str]
    text: str

    @property
    def json(self) -> Any:
        try:
            return json.loads(self.text)
        except (ValueError, RecursionError):
            raise UnexpectedAnswer(f"{self} is not JSON.") from None

    def __getitem__(self, key: str) -> Any:
        body = self.json
        try:
            return body[key]
        except (KeyError, TypeError, IndexError):
            raise UnexpectedAnswer(f"{self} has no field {key!r}.") from None

    @property
    def ok(self) -> bool:
        return 200 <= self.status < 300

    def __str__(self) -> str:
        text = self.text if len(self.text) <= 160 else self.text[:160] + "…"
        return f"{self.request} → {self.status} {text}"


@dataclass(frozen=True, slots=True)
class Exit:
    """How a process left: its exit code (negative: ended by that signal) and the seconds it took."""

    code: int
    seconds: float


class Pending:
    """A request under way. Await it for the answer."""

    def __init__(self, task: asyncio.Task[Answer]) -> None:
        self.task = task

    def __await__(self) -> Generator[Any, None, Answer]:
        return self.task.__await__()

    @property
    def answered(self) -> bool:
        return self.task.done() and not self.task.cancelled() and self.task.exception() is None

    @property
    def status(self) -> int | None:
        """The status that came back, or None while there is no answer."""
        return self.task.result().status if self.answered else None

    async def hang_up(self) -> None:
        """Closes the connection without waiting for the answer, as an impatient client does."""
        self.task.cancel()
        with contextlib.suppress(asyncio.CancelledError, NoAnswer):
            await self.task


class Reader:
    """A client in the middle of an answer; what it does not read waits in the app, once the buffers are full."""

    def __init__(self, response: httpx.Response) -> None:
        self.status = response.status_code
        self._response = response

    async def rest(self) -> str:
        """The whole body."""
        return (await self._response.aread()).decode()


class App:
    """A running app. `note` receives a sentence for everything a check does with it."""

    def __init__(
        self,
        process: Process,
        client: httpx.AsyncClient,
        listen: str,
        log: Path,
        note: Callable[[str], None],
    ) -> None:
        self.process = process
        self._listen = listen
        self._client = client
        self._log = log
        self._note = note

    @property
    def log(self) -> str:
        """Everything the app printed so far, without what `caught_up` made uvicorn say."""
        return text_of(self._log).replace(PROBE_LOGGED, "")

    async def request(self, method: str, path: str, **options: Any) -> Answer:
        """One request; the options are those of httpx. Raises NoAnswer, never an exception of httpx."""
        import httpx

        what = f"{method} {path}"
        limit = options.get("timeout", PATIENCE)
        if self._client.is_closed:
            raise NoAnswer(f"{what} was not sent: this app has been ended. Start another one.")
        try:
            async with self._client.stream(method, path, **options) as response:
                body = await _body(response)
        except httpx.TimeoutException:
            self._note(f"{what} → no answer within {limit:g} s")
            raise NoAnswer(f"{what} was not answered within {limit:g} s.") from None
        except (httpx.TransportError, httpx.DecodingError) as error:
            self._note(f"{what} → connection broke")
            raise NoAnswer(f"{what} was not answered: the app closed the connection ({error}).") from None
        except _TooLong:
            self._note(f"{what} → {response.status_code}, and a body without end")
            raise NoAnswer(f"{what} was answered with more than {LONGEST_BODY >> 20} MB; the client gave up.") from None
        except asyncio.CancelledError:
            self._note(f"{what} → the client hung up")
            raise
        self._note(f"{what} → {response.status_code}")
        if response.status_code >= 500:  # the traceback is logged behind the answer; have it before anyone looks
            with contextlib.suppress(OSError, TimeoutError):
                await self.caught_up()
        return Answer(what, response.status_code, response.headers, _text(body, response.encoding))

    async def get(self, path: str, **options: Any) -> Answer:
        return await self.request("GET", path, **options)

    async def post(self, path: str, **options: Any) -> Answer:
        return await self.request("POST", path, **options)

    async def put(self, path: str, **options: Any) -> Answer:
        return await self.request("PUT", path, **options)

    async def patch(self, path: str, **options: Any) -> Answer:
        return await self.request("PATCH", path, **options)

    async def delete(self, path: str, **options: Any) -> Answer:
        return await self.request("DELETE", path, **options)

    def sending(self, method: str, path: str, **options: Any) -> Pending:
        """Starts a request and goes on without waiting for its answer."""
        return Pending(asyncio.create_task(self.request(method, path, **options)))

    @asynccontextmanager
    async def reading(self, path: str) -> AsyncIterator[Reader]:
        """A client that has the head of the answer to GET `path` and takes in its body only when told to."""
        import httpx

        try:
            async with self._client.stream("GET", path) as response:
                self._note(f"GET {path} → {response.status_code}, and the client reads no further for now")
                yield Reader(response)
        except httpx.TransportError as error:
            raise NoAnswer(f"GET {path} was not answered to its end: {type(error).__name__}.") from None

    async def caught_up(self) -> None:
        """Returns when every answer that the app had written before this call has been read.

        A few round trips that uvicorn answers by itself (400, the request line is none), so that the app's
        loop turns and what was ready to leave has left; the app's own code sees nothing of them. Then this loop
        turns until the clients here have taken in what arrived.
        """
        for _ in range(3):
            reader, writer = await _open(self._listen)
            try:
                writer.write(b"caught up?\r\n\r\n")
                await asyncio.wait_for(reader.read(), PATIENCE)
            finally:
                writer.close()
        for _ in range(100):  # far more turns than an answer takes from the socket to whoever awaits it
            await asyncio.sleep(0)

    async def stop(self, signum: int = signal.SIGTERM, within: float = PATIENCE) -> Exit | None:
        """Sends a signal and waits; None: the process was still there after `within` seconds."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        self._note(f"{signal.Signals(signum).name} sent to the app")
        self.process.signal(signum)
        try:
            code = await asyncio.wait_for(asyncio.shield(self.process.exit), within)
        except TimeoutError:
            self._note(f"the app was still running after {within:.0f} s")
            return None
        seconds = loop.time() - began
        how = f"with exit code {code}" if code >= 0 else f"by {signal.Signals(-code).name}, as uvicorn does"
        self._note(f"the app left after {seconds:.1f} s {how}")
        return Exit(code, seconds)


@asynccontextmanager
async def running(
    launcher: Launcher,
    folder: Path,
    scratch: Path,
    *,
    module: str = "app.main:app",
    env: Mapping[str, str],
    workers: int = 1,
    pycache: Path | None = None,
    listen: str = "",
    events: str = "",
    note: Callable[[str], None] = lambda _: None,
) -> AsyncIterator[App]:
    """The app of `folder`, accepting requests; killed with its whole process group at the end.

    Raises AppDidNotStart, with the log, if it ends or stays silent instead.
    """
    import httpx

    number = next(_numbers)
    log = scratch / f"{number}.log"
    unix = sys.platform != "win32"
    if not listen:
        listen = str(scratch / f"{number}.sock") if unix else f"127.0.0.1:{_free_port()}"
    ready = _Ready(workers)
    address = await ready.open(scratch / f"{number}.ready" if unix else None)
    order = Order(
        app=module,
        folder=str(folder),
        log=str(log),
        listen=listen,
        ready=address,
        env=environment(env),
        events=events,
        workers=workers,
        pycache=str(pycache) if pycache else "",
    )
    by_path = "/" in listen
    # no TLS here: verify=False spares reading the machine's certificates for every app
    # and a connection for each request: an app that fails behind its answer takes the connection along,
    # which is no reason for the next request to fail
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
    transport = httpx.AsyncHTTPTransport(uds=listen if by_path else None, verify=False, limits=limits)
    base = "http://bookshop" if by_path else f"http://{listen}"
    process: Process | None = None
    try:
        starting = asyncio.ensure_future(launcher.launch(order))
        await asyncio.sleep(0)
        _import_late_ones()  # while the other process is busy
        process = await starting
        either: set[asyncio.Future[Any]] = {ready.all, process.exit}
        await asyncio.wait(either, timeout=PATIENCE, return_when=asyncio.FIRST_COMPLETED)
        if not ready.all.done():
            code = process.exit.result() if process.exit.done() else None
            raise AppDidNotStart(code, text_of(log))
        async with httpx.AsyncClient(
            transport=transport, base_url=base, timeout=PATIENCE, trust_env=False, verify=False
        ) as client:
            yield App(process, client, listen, log, note)
    finally:
        if process is not None:
            process.kill()
            await process.exit
        ready.close()


class _TooLong(Exception):
    """A body goes on behind its limit."""


async def _body(response: httpx.Response) -> bytes:
    body = bytearray()
    async for part in response.aiter_bytes():
        body += part
        if len(body) > LONGEST_BODY:
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
    """Counts the workers that report for duty."""

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


def environment(env: Mapping[str, str]) -> dict[str, str]:
    """What an app gets to see: enough to run, nothing of the grader's own settings."""
    return {name: os.environ[name] for name in INHERITED if name in os.environ} | {"PYTHONUNBUFFERED": "1"} | dict(env)


def text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return ""


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
