"""A small HTTP/1.1 server on h11: reads requests, and writes responses whole, in part, or not at all."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Literal

import h11

MAX_BODY = 8 << 20
"""Bytes of a request's body; a client that sends more gets status 413."""

MAX_HEAD = 64 << 10
"""Bytes of a request's line and headers, before their end has been read; a client that sends more gets status 431."""

MAX_PIPELINED = 1 << 16
"""Bytes that are read of further requests while one has no response."""

BODILESS = (204, 304)
"""Statuses of responses that have no body."""

Headers = Sequence[tuple[str, str]]

Break = Literal["", "request", "headers", "half"]
"""Where a response ends too early: after the request was read, after the response's headers, after half of its body."""


@dataclass(frozen=True, slots=True)
class Request:
    """What a client has sent. Names of headers are in lower case; `target` is path and query."""

    method: str
    target: str
    headers: Headers
    body: bytes


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A response, and where its connection breaks."""

    status: int
    headers: Headers
    body: bytes
    breaks: Break = ""


class ClientLeft:
    """Becomes true when the client of a request has closed its connection."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def __bool__(self) -> bool:
        return self._event.is_set()

    def set(self) -> None:
        self._event.set()

    async def wait(self) -> None:
        await self._event.wait()


Handler = Callable[[Request, ClientLeft], Awaitable[Outgoing]]


class HttpServer:
    """Serves every connection of a listening socket with one handler; `close` ends them all."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    async def listen(self, listener: socket.socket) -> None:
        """Accepts clients of `listener`, a listening socket, from now on."""
        self._server = await asyncio.start_server(self._accept, sock=listener)

    async def close(self) -> None:
        """Accepts nobody any more and closes all connections."""
        if self._server is not None:
            self._server.close()
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(_Connection(reader, writer, self._handler).serve())
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)


class _Connection:
    """One connection of a client, with one request after the other."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, handler: Handler) -> None:
        self._reader, self._writer, self._handler = reader, writer, handler
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD)
        self._left = ClientLeft()
        self._method = b""

    async def serve(self) -> None:
        try:
            while (request := await self._next_request()) is not None:
                if not await self._respond(await self._handled(request)):
                    return
                if self._http.our_state is not h11.DONE or self._http.their_state is not h11.DONE:
                    return  # one side wants the connection closed after this response
                self._http.start_next_cycle()
        except h11.RemoteProtocolError as error:
            with contextlib.suppress(h11.LocalProtocolError, OSError):
                await self._respond(Outgoing(error.error_status_hint, (), str(error).encode()))
        except OSError:
            pass  # the client has left
        finally:
            self._left.set()
            self._writer.close()

    async def _next_request(self) -> Request | None:
        """The next request with its body; None if the client has no more."""
        head: h11.Request | None = None
        body = bytearray()
        while True:
            event = self._http.next_event()
            if event is h11.NEED_DATA:
                if self._http.they_are_waiting_for_100_continue:
                    self._send(h11.InformationalResponse(status_code=100, headers=[]))
                self._http.receive_data(await self._reader.read(65536))
            elif isinstance(event, h11.Request):
                head, self._method = event, event.method
            elif isinstance(event, h11.Data):
                body += event.data
                if len(body) > MAX_BODY:
                    raise h11.RemoteProtocolError("The body is too long.", error_status_hint=413)
            elif isinstance(event, h11.EndOfMessage):
                assert head is not None
                headers = tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in head.headers)
                return Request(head.method.decode(), head.target.decode("latin-1"), headers, bytes(body))
            else:  # the connection was closed
                return None

    async def _handled(self, request: Request) -> Outgoing:
        """What the handler returns; meanwhile it is told if the client leaves."""
        watching = asyncio.ensure_future(self._watch())
        try:
            return await self._handler(request, self._left)
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)

    async def _watch(self) -> None:
        """Reads on, for the end of a connection is read as well."""
        while len(self._http.trailing_data[0]) < MAX_PIPELINED:
            try:
                data = await self._reader.read(65536)
            except OSError:
                data = b""
            if not data:
                self._left.set()
                return
            self._http.receive_data(data)

    async def _respond(self, response: Outgoing) -> bool:
        """Writes a response; False if nothing can follow on this connection."""
        if response.breaks == "request":
            return False
        status, body = response.status, response.body
        if response.breaks:  # half of a body must be less than all of it
            status, body = 200 if status in BODILESS else status, body if len(body) > 1 else b"{}"
        length = [] if status in BODILESS else [("Content-Length", str(len(body)))]
        reason = HTTPStatus(status).phrase if status in set(HTTPStatus) else ""
        self._send(h11.Response(status_code=status, headers=[*response.headers, *length], reason=reason.encode()))
        if response.breaks:
            self._send(h11.Data(data=body[: len(body) // 2 if response.breaks == "half" else 0]))
            await self._writer.drain()
            return False
        if self._method != b"HEAD" and status not in BODILESS:
            self._send(h11.Data(data=body))
        self._send(h11.EndOfMessage())
        await self._writer.drain()
        return not self._left

    def _send(self, event: h11.Event) -> None:
        self._writer.write(self._http.send(event) or b"")
