"""One client's connection and its counterpart to the server."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from checks.kit.wire import protocol
from checks.kit.wire.events import Closed, Crossed, Fault, Opened
from checks.kit.wire.recording import Transaction
from checks.kit.wire.statements import ServerError, Statement

if TYPE_CHECKING:
    from checks.kit.postgres.address import Address
    from checks.kit.wire.faults import Faults, Hold
    from checks.kit.wire.recording import Book

QUERY, PARSE, BIND, EXECUTE, CLOSE, SYNC, FLUSH, TERMINATE, CALL, COPY_DONE, COPY_FAIL = b"QPBECSHXFcf"
DATA_ROW, COMPLETE, EMPTY, SUSPENDED, ERROR, READY = b"DCIsEZ"
WAITS = frozenset(b"QSHFcf")
"""Messages after which a client waits for the server: each is a round trip."""

BACKLOG = 1 << 20
"""Bytes from a client that are kept while it is held up, before we stop reading from it."""

_RESET = struct.pack("ii", 1, 0)


class Connection:
    """Passes bytes between a client and the server, unchanged and in order, and keeps the book.

    `status` is what the server said last: I idle, T in a transaction, E in a failed one; "" before that.
    `farewell` says how it ended: `terminate` (the client said goodbye), `dropped` (it did not),
    `server` (the server closed it), `cut` (we did), `refused`; empty while it lives.
    """

    def __init__(self, number: int, address: Address, book: Book, faults: Faults, changed: Callable[[], None]) -> None:
        self.id = number
        self.parameters: dict[str, str] = {}
        self.opened = time.perf_counter()
        self.status = ""
        self.farewell = ""
        self.last: Statement | None = None
        self._address = address
        self._book = book
        self._faults = faults
        self._changed = changed
        self._client: asyncio.Transport | None = None
        self._server: asyncio.Transport | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._start = b""
        self._started = False
        self._said_goodbye = False
        self._from_client = protocol.Splitter(bytes((QUERY, PARSE, BIND, EXECUTE, CLOSE)))
        self._from_server = protocol.Splitter(bytes((COMPLETE, ERROR, READY)))
        self._prepared: dict[bytes, str] = {}
        self._portals: dict[bytes, tuple[str, int]] = {}
        self._parsed = ""
        self._answers: deque[Statement | None] = deque()  # what the server owes; None stands for a Sync
        self._transaction: Transaction | None = None
        self._in_transaction = False
        self._changed_data = False  # by the transaction that is open
        self._waiting: deque[bytes] = deque()  # from the client, not yet looked at
        self._waiting_size = 0
        self._stopped_at: tuple[bytes, bytes] | None = None  # a message that must wait, and what follows it
        self._hold: Hold | None = None
        self._timer: asyncio.TimerHandle | None = None

    # -- what checks look at

    @property
    def application_name(self) -> str:
        return self.parameters.get("application_name", "")

    @property
    def user(self) -> str:
        return self.parameters.get("user", "")

    @property
    def database(self) -> str:
        return self.parameters.get("database", "")

    @property
    def busy(self) -> bool:
        """Whether the server owes an answer."""
        return bool(self._answers)

    @property
    def settled(self) -> bool:
        """Outside a transaction, with nothing under way."""
        return self.status == "I" and not self._answers and self._stopped_at is None

    # -- the client's side

    def client_connected(self, transport: asyncio.Transport) -> None:
        self._client = transport
        if self._faults.refusing == "reset":
            self.abort("refused")
        elif self._faults.silent:
            transport.pause_reading()

    def from_client(self, data: bytes) -> None:
        if self._stopped_at is not None or self._waiting or (self._started and self._server is None):
            self._waiting.append(data)
            self._waiting_size += len(data)
            if self._waiting_size > BACKLOG and self._client is not None:
                self._client.pause_reading()
        elif not self._started:
            self._starting(data)
        else:
            self._pass_on(data)

    def client_lost(self) -> None:
        self._client = None
        self._end("terminate" if self._said_goodbye else "dropped")

    def _starting(self, data: bytes) -> None:
        self._start += data
        try:
            while message := protocol.first_message(self._start):
                code, body = message
                raw, rest = self._start[: len(body) + 8], self._start[len(body) + 8 :]
                if code in (protocol.TLS, protocol.GSS):
                    self._start = rest
                    self._to_client(b"N")
                    continue
                self._started = True
                self._start = b""
                if code != protocol.CANCEL:
                    self.parameters = protocol.start_parameters(body)
                    if self._faults.refusing:
                        text = "the database system is starting up"
                        self._to_client(protocol.error_message("FATAL", "57P03", text))
                        self.close("refused")
                        return
                    self._book.tell(Opened(self))
                else:
                    self._said_goodbye = True
                self._connecting = asyncio.get_running_loop().create_task(self._connect(raw, rest))
                return
        except ValueError:
            self.close("dropped")

    async def _connect(self, first: bytes, rest: bytes) -> None:
        try:
            await self._open_server()
        except OSError as error:
            text = f"the server cannot be reached: {error}"
            self._to_client(protocol.error_message("FATAL", "08006", text))
            self.close("server")
            return
        if self._client is None or self._server is None:  # the client left meanwhile
            self._shut(self._server)
            return
        self._server.write(first)
        self._book.totals.bytes_to_server += len(first)
        if rest:
            self._pass_on(rest)
        self._drain()

    async def _open_server(self) -> None:
        loop = asyncio.get_running_loop()
        address = self._address
        if address.socket_path is not None:
            await loop.create_unix_connection(lambda: ServerSide(self), address.socket_path)
            return
        if address.tls is None:
            await loop.create_connection(lambda: ServerSide(self), address.host, address.port)
            return
        raw = await _tls_offered(address)
        name = address.server_name or address.host
        await loop.create_connection(lambda: ServerSide(self), sock=raw, ssl=address.tls, server_hostname=name)

    def _pass_on(self, data: bytes) -> None:
        """Forwards a piece from the client up to the first message that a fault wants to stop."""
        position = 0
        splitter = self._from_client
        while message := splitter.next(data, position):
            kind, body, end = message
            stop = self._note(kind, body) or (self._faults.latency > 0 and kind in WAITS)
            if stop:
                # The server runs a message only when its last byte is there, so stopping this piece of it is enough.
                self._to_server(data[:position])
                self._stopped_at = (data[position:end], data[end:])
                if self._hold is None:
                    self._timer = asyncio.get_running_loop().call_later(self._faults.latency, self.resume)
                return
            position = end
        self._to_server(data)

    def resume(self) -> None:
        """What was stopped goes on."""
        if self._stopped_at is None or self.farewell:
            return
        delayed_too = self._hold is not None and self._faults.latency > 0
        self._hold = None
        if delayed_too:
            self._timer = asyncio.get_running_loop().call_later(self._faults.latency, self.resume)
            return
        message, rest = self._stopped_at
        self._stopped_at = None
        self._to_server(message)
        if rest:
            self._waiting.appendleft(rest)
            self._waiting_size += len(rest)
        self._drain()

    def _drain(self) -> None:
        while self._waiting and self._stopped_at is None and self._server is not None:
            data = self._waiting.popleft()
            self._waiting_size -= len(data)
            self._pass_on(data)
        if not self._waiting and self._client is not None and not self._faults.silent:
            self._client.resume_reading()

    def _note(self, kind: int, body: bytes) -> bool:
        """Keeps the book for one message of the client; True if a hold stops it."""
        if kind == EXECUTE:
            text, parameters = self._portals.get(protocol.cstring(body)[0], ("", 0))
            return self._send(text, parameters, simple=False)
        if kind == QUERY:
            stopped = self._send(protocol.text(protocol.cstring(body)[0]), 0, simple=True)
            self._answers.append(None)
            self._book.totals.round_trips += 1
            return stopped
        if kind == PARSE:
            name, at = protocol.cstring(body)
            self._parsed = self._prepared[name] = protocol.text(protocol.cstring(body, at)[0])
        elif kind == BIND:
            portal, at = protocol.cstring(body)
            name, at = protocol.cstring(body, at)
            self._portals[portal] = (self._prepared.get(name, ""), _parameters(body, at))
        elif kind == SYNC:
            self._answers.append(None)
            self._book.totals.round_trips += 1
        elif kind == CLOSE:
            names = self._prepared if body[:1] == b"S" else self._portals
            names.pop(protocol.cstring(body, 1)[0], None)
        elif kind in WAITS:
            self._book.totals.round_trips += 1
            if kind == CALL:
                self._answers.append(None)
        elif kind == TERMINATE:
            self._said_goodbye = True
        return False

    def _send(self, text: str, parameters: int, *, simple: bool) -> bool:
        statement = Statement(self.id, text, time.perf_counter(), parameters, self._in_transaction, simple)
        verb = statement.verb
        if verb in ("BEGIN", "START"):
            self._in_transaction = True
            self._changed_data = False
        elif verb in ("COMMIT", "END", "ABORT") or (verb == "ROLLBACK" and " TO " not in text.upper()):
            statement.commits = self._changed_data and verb in ("COMMIT", "END")
            self._in_transaction = self._changed_data = False
        elif statement.changes:
            statement.commits = not self._in_transaction
            self._changed_data = self._in_transaction
        self.last = statement
        self._answers.append(statement)
        self._book.add(statement)
        hold = self._faults.hold_for(statement)
        if hold is None:
            return False
        self._hold = hold
        hold.take(statement, self)
        self._book.tell(Fault(f"held on the wire: {' '.join(text.split())[:60]}"))
        return True

    # -- the server's side

    def server_connected(self, transport: asyncio.Transport) -> None:
        self._server = transport

    def from_server(self, data: bytes) -> None:
        if self._client is not None:
            self._client.write(data)
        self._book.totals.bytes_from_server += len(data)
        position = 0
        splitter = self._from_server
        answers = self._answers
        while message := splitter.next(data, position):
            kind, body, end = message
            if kind == DATA_ROW:
                if answers and (head := answers[0]):
                    head.rows += 1
                    head.size += end - position
            elif kind == COMPLETE:
                self._completed(protocol.text(protocol.cstring(body)[0]))
            elif kind == READY:
                self._ready(body)
            elif kind == ERROR:
                self._failed(protocol.error_fields(body))
            elif kind in (EMPTY, SUSPENDED):
                self._completed("")
            position = end

    def _completed(self, tag: str) -> None:
        if not self._answers or (statement := self._answers[0]) is None:
            return
        statement.tag = f"{statement.tag}; {tag}" if statement.tag else tag
        if not statement.simple:  # a simple query may hold several commands; it ends with ReadyForQuery
            self._finish(statement)
            self._answers.popleft()

    def _failed(self, fields: dict[str, str]) -> None:
        error = ServerError(fields.get("C", ""), fields.get("M", ""))
        now = time.perf_counter()
        if self._answers and (statement := self._answers[0]) is not None:
            statement.error = error
            self._finish(statement)
            self._answers.popleft()
            while self._answers and (skipped := self._answers[0]) is not None:
                skipped.skipped = True
                skipped.finished = now
                self._answers.popleft()
        elif self._parsed:  # refused when it was prepared, so it was never executed
            statement = Statement(self.id, self._parsed, now, 0, self._in_transaction, False, now, error=error)
            self._parsed = ""
            self._book.add(statement)
            self._book.tell(Crossed(statement))

    def _ready(self, body: bytes) -> None:
        self._parsed = ""
        while self._answers:
            statement = self._answers.popleft()
            if statement is None:
                break
            self._finish(statement)
        status = protocol.text(body[:1])
        if not self._answers and self._stopped_at is None:
            self._in_transaction = status != "I"
        self._change_status(status)
        self._changed()

    def _change_status(self, status: str) -> None:
        before, self.status = self.status, status
        if status in ("T", "E") and before not in ("T", "E"):
            self._transaction = Transaction(self.id, time.perf_counter())
            self._book.transactions.append(self._transaction)
        elif status == "I" and self._transaction is not None:
            last = self.last.tag if self.last else ""
            self._close_transaction("commit" if last.startswith("COMMIT") else "rollback")

    def _close_transaction(self, outcome: str) -> None:
        if self._transaction is not None:
            self._transaction.ended = time.perf_counter()
            self._transaction.outcome = outcome
            self._transaction = None

    def _finish(self, statement: Statement) -> None:
        if statement.finished is None:
            statement.finished = time.perf_counter()
            self._book.tell(Crossed(statement))

    def server_lost(self) -> None:
        self._server = None
        self._end("terminate" if self._said_goodbye else "server")  # it hangs up first after a Terminate

    # -- both

    def _to_server(self, data: bytes) -> None:
        if data and self._server is not None:
            self._server.write(data)
            self._book.totals.bytes_to_server += len(data)

    def _to_client(self, data: bytes) -> None:
        if self._client is not None:
            self._client.write(data)

    def silence(self, silent: bool) -> None:
        """Stops reading on both sides, or goes on."""
        for transport in (self._client, self._server):
            if transport is not None and not transport.is_closing():
                (transport.pause_reading if silent else transport.resume_reading)()

    def abort(self, farewell: str) -> None:
        """Ends both sides at once, the client's with a reset."""
        self._end(farewell, abort=True)

    def close(self, farewell: str) -> None:
        self._end(farewell)

    def _end(self, farewell: str, *, abort: bool = False) -> None:
        if self.farewell:
            return
        self.farewell = farewell
        if self._timer is not None:
            self._timer.cancel()
        if self._hold is not None:
            self._hold.forget(self)
        if self._connecting is not None and self._server is None:
            self._connecting.cancel()
        self._close_transaction("lost")
        for transport in (self._client, self._server):
            if abort:
                _reset(transport)
            else:
                self._shut(transport)
        self._book.tell(Closed(self))
        self._changed()

    def _shut(self, transport: asyncio.Transport | None) -> None:
        if transport is not None and not transport.is_closing():
            with contextlib.suppress(RuntimeError):
                transport.close()

    def pause(self, *, reading_from: str, paused: bool) -> None:
        """Back pressure: the other side cannot take more for now."""
        transport = self._client if reading_from == "client" else self._server
        if transport is None or transport.is_closing() or self._faults.silent:
            return
        if paused:
            transport.pause_reading()
        elif reading_from == "server" or self._waiting_size <= BACKLOG:
            transport.resume_reading()


def _reset(transport: asyncio.Transport | None) -> None:
    if transport is None or transport.is_closing():
        return
    raw = transport.get_extra_info("socket")
    if raw is not None and raw.family != getattr(socket, "AF_UNIX", None):
        with contextlib.suppress(OSError):
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    transport.abort()


def _parameters(body: bytes, at: int) -> int:
    """How many parameters a Bind message carries."""
    try:
        formats = struct.unpack_from("!h", body, at)[0]
        return int(struct.unpack_from("!h", body, at + 2 + 2 * formats)[0])
    except struct.error:
        return 0


async def _tls_offered(address: Address) -> socket.socket:
    """A TCP socket on which the server has agreed to speak TLS next."""
    loop = asyncio.get_running_loop()
    family, kind, number, _, place = (await loop.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM))[0]
    raw = socket.socket(family, kind, number)
    try:
        raw.setblocking(False)
        await loop.sock_connect(raw, place)
        await loop.sock_sendall(raw, struct.pack("!ii", 8, protocol.TLS))
        if await loop.sock_recv(raw, 1) != b"S":
            raise ConnectionError("it does not offer TLS, which the URL asks for")
    except BaseException:
        raw.close()
        raise
    return raw


class ClientSide(asyncio.Protocol):
    """asyncio's view of the client's socket."""

    def __init__(self, connection: Connection, lost: Callable[[Connection], Any]) -> None:
        self._connection = connection
        self._lost = lost

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        _no_delay(transport)
        self._connection.client_connected(transport)

    def data_received(self, data: bytes) -> None:
        self._connection.from_client(data)

    def connection_lost(self, error: Exception | None) -> None:
        self._connection.client_lost()
        self._lost(self._connection)

    def pause_writing(self) -> None:
        self._connection.pause(reading_from="server", paused=True)

    def resume_writing(self) -> None:
        self._connection.pause(reading_from="server", paused=False)


class ServerSide(asyncio.Protocol):
    """asyncio's view of the server's socket."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        _no_delay(transport)
        self._connection.server_connected(transport)

    def data_received(self, data: bytes) -> None:
        self._connection.from_server(data)

    def connection_lost(self, error: Exception | None) -> None:
        self._connection.server_lost()

    def pause_writing(self) -> None:
        self._connection.pause(reading_from="client", paused=True)

    def resume_writing(self) -> None:
        self._connection.pause(reading_from="client", paused=False)


def _no_delay(transport: asyncio.Transport) -> None:
    raw = transport.get_extra_info("socket")
    if raw is not None and raw.family in (socket.AF_INET, socket.AF_INET6):
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
