"""Relays one client's connection to the server, and stops it where a fault says so.

                        refusing: turned away
                           |
    client ==> from_client +--> waiting --> tracker --+=====> server
                                  ^                   |
                                  +---- the rest <-- stopped (a hold, latency)

    client <================== tracker <== from_server <================ server

A double line is a socket; black_hole stops reading from both. A message is stopped *before* it reaches the server,
and whatever the client sends after it waits in line. The way back is never delayed: a response goes to the client
first and is read afterwards, unless it is one to be lost.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from checks.kit.wire import protocol, transports
from checks.kit.wire.faults import REFUSALS
from checks.kit.wire.recording import ClosedConnection
from checks.kit.wire.startup import AskedTwice, StartMessage, StartUp
from checks.kit.wire.tracker import StatementTracker

if TYPE_CHECKING:
    from checks.kit.postgres.address import Address
    from checks.kit.wire.faults import Faults, Hold, Loss
    from checks.kit.wire.recording import TrafficLog
    from checks.kit.wire.statements import Statement

MAX_WAITING = 1 << 20
"""Bytes from a client that are kept while it is stopped, before the proxy stops reading from it."""

START_TIMEOUT = 60.0
"""Seconds in which a client must have sent its start-up message; PostgreSQL's authentication_timeout is the same."""


class Connection:
    """Passes bytes between a client and the server, unchanged and in order.

    `id` counts the connections of a proxy from 1. `parameters` are those of the start-up message, such as `user`,
    `database` and `application_name`; empty before it has arrived, and for a request to cancel.
    `process` is the name of the process that opened it, as in the verdict: `app`, `app (2)`, `app.worker`.
    `close_reason` says how it ended: "terminate" (the client said so first), "dropped" (the client just left),
    "server" (the server closed it, or could not be reached), "cut" or "refused" (by the proxy); "" while it lives.

    A client that sends no more (FIN) counts as gone, because nearly all such clients have left. What it has sent still
    reaches the server, and the response still goes back: a client may have closed only its own direction.
    """

    def __init__(
        self,
        number: int,
        address: Address,
        log: TrafficLog,
        faults: Faults,
        *,
        process: str = "",
        changed: Callable[[], None],
        ended: Callable[[Connection], None],
        gone: Callable[[Connection], None],
    ) -> None:
        """`ended` is called when the client has left, and `gone` when the socket to the server is closed as well."""
        self.id = number
        self.process = process
        self.parameters: dict[str, str] = {}
        self.close_reason = ""
        self._address = address
        self._log = log
        self._faults = faults
        self._changed = changed
        self._ended = ended
        self._gone = gone
        self.left = False  # the client sends no more; there may still be something on its way
        self._tracker = StatementTracker(number, log, process)
        self._link = transports.Link(log.totals, faults)
        self._connecting: asyncio.Task[None] | None = None
        self._start_up = StartUp(lambda: self._link.to_client(b"N"))
        self._start: StartMessage | None = None  # until it has arrived in full
        self._waiting: deque[bytes] = deque()  # from the client, not yet read by the tracker
        self._waiting_size = 0
        self._over = False  # both sockets are closed, or about to
        self._stopped: tuple[bytes, bytes] | None = None  # a message that must wait, and what follows it
        self._hold: Hold | None = None
        self._loss: tuple[Loss, Statement] | None = None  # nothing more goes to the client
        self._timer: asyncio.TimerHandle | None = None

    # -- what a check may look at

    @property
    def status(self) -> str:
        """The server's last word: "I" idle, "T" in a transaction, "E" in a failed one; "" before the first."""
        return self._tracker.status

    @property
    def last(self) -> Statement | None:
        """The statement that the client sent last."""
        return self._tracker.last

    @property
    def idle(self) -> bool:
        """Outside a transaction, with nothing under way."""
        return self.status == "I" and not self._tracker.busy and self._stopped is None

    def record(self) -> ClosedConnection:
        """What is kept of a connection that has ended."""
        return ClosedConnection(self.id, self.parameters, self.close_reason, self.status, self.process)

    # -- start-up

    def client_side(self) -> asyncio.Protocol:
        """For the listener: the protocol of the client's socket."""
        return transports.Side(
            connected=self._client_connected,
            received=self.from_client,
            lost=self._client_lost,
            full=lambda full: self._link.set_full("client", full),
            ended=self._client_ended,
        )

    def _server_side(self) -> asyncio.Protocol:
        return transports.Side(
            connected=self._server_connected,
            received=self.from_server,
            lost=self._server_lost,
            full=lambda full: self._link.set_full("server", full),
        )

    def _client_connected(self, transport: asyncio.Transport) -> None:
        self._link.client = transport
        self._await_start()
        if self._faults.refusing and self._faults.refusing not in REFUSALS:
            self.abort("refused")
        else:
            self._link.read_what_fits()

    def _await_start(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(START_TIMEOUT, self._start_late)

    def _start_late(self) -> None:
        if self._faults.silent:  # it may have sent everything
            self._await_start()
        else:
            self.close("dropped")

    def _server_connected(self, transport: asyncio.Transport) -> None:
        self._link.server = transport

    def _read_start(self, data: bytes) -> None:
        # the server is connected to only after this: whether a client is turned away depends on what it asks for
        try:
            start = self._start_up.read(data)
        except AskedTwice as refusal:
            self._refuse("0A000", str(refusal), "dropped")
            return
        except ValueError:
            self.close("dropped")
            return
        if start is None:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._start = start
        self.parameters = start.parameters
        if self.parameters:  # not for a request to cancel
            self._log.connection_event(self.id, "opened")
        if self._faults.refusing and not start.is_cancel:
            if self._faults.refusing in REFUSALS:
                self._refuse(*REFUSALS[self._faults.refusing], "refused")
            else:
                self.abort("refused")
            return
        self._connecting = asyncio.get_running_loop().create_task(self._connect(start))

    async def _connect(self, start: StartMessage) -> None:
        try:
            await transports.connect_server(self._address, self._server_side)
        except OSError as error:
            self._refuse("08006", f"the server cannot be reached: {error}", "server")
            self._let_go()
            return
        if self._over:  # the client left meanwhile
            transports.close(self._link.server)
            return
        self._link.to_server(start.raw)
        if self._link.client is None:  # it asked for a cancellation and did not wait
            self.close(self.close_reason)
            return
        if start.rest:
            self._pass_on(start.rest)
        self._drain()

    def _refuse(self, sqlstate: str, message: str, close_reason: str) -> None:
        self._link.to_client(protocol.error_message("FATAL", sqlstate, message))
        self.close(close_reason)

    # -- from the client to the server

    def from_client(self, data: bytes) -> None:
        if self._stopped is not None or self._waiting or (self._start is not None and self._link.server is None):
            self._waiting.append(data)
            self._waiting_size += len(data)
            if self._waiting_size > MAX_WAITING:
                self._link.set_full("queue", True)
        elif self._start is None:
            self._read_start(data)
        else:
            self._pass_on(data)

    def _pass_on(self, data: bytes) -> None:
        """Forwards a piece from the client up to the first message that a fault wants to stop."""
        faults = self._faults
        for start, end, statement, waits in self._tracker.read_client(data):
            hold = faults.hold_for(statement) if statement is not None and faults.holds else None
            if statement is not None and faults.losses and self._loss is None:
                loss = faults.loss_for(statement)
                self._loss = (loss, statement) if loss is not None else None
            if hold is not None or (waits and faults.latency > 0):
                # The server runs a message only when its last byte is there, so it is enough to stop this piece of it.
                self._link.to_server(data[:start])
                self._stopped = (data[start:end], data[end:])
                self._hold = hold
                if hold is not None and statement is not None:
                    hold.take(statement, self)
                    self._log.fault(f"held on the wire: {' '.join(statement.text.split())[:60]}")
                else:
                    self._resume_later()
                return
        self._link.to_server(data)

    def _resume_later(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(self._faults.latency, self.resume)

    def resume(self) -> None:
        """Lets the stopped message go on, and what waits after it; a hold calls this when it releases the statement."""
        if self._stopped is None or self._over:
            return
        was_held, self._hold = self._hold is not None, None
        if was_held and self._faults.latency > 0:
            self._resume_later()
            return
        message, rest = self._stopped
        self._stopped = None
        self._link.to_server(message)
        if rest:
            self._waiting.appendleft(rest)
            self._waiting_size += len(rest)
        self._drain()

    def _drain(self) -> None:
        # any of the pieces may be stopped again
        while self._waiting and self._stopped is None and self._link.server is not None:
            data = self._waiting.popleft()
            self._waiting_size -= len(data)
            self._pass_on(data)
        if not self._waiting:
            self._link.set_full("queue", False)
            self._pass_on_end()

    # -- from the server to the client

    def from_server(self, data: bytes) -> None:
        if self._loss is None:
            self._link.to_client(data)
        self._log.totals.bytes_from_server += len(data)
        if self._tracker.read_server(data):
            self._changed()
            self._lose()
            if self.left:
                self._pass_on_end()

    def _lose(self) -> None:
        """Cuts the connection if the statement whose response is to be lost has had its effect."""
        # only now, when the server is ready for the next one: before, it might not have committed yet
        if self._loss is not None and self._loss[1].finished is not None:
            loss, statement = self._loss
            if not statement.skipped:
                loss.statements.append(statement)
            self._log.fault(f"the response to {' '.join(statement.text.split())[:60]} was lost, and its connection cut")
            self.abort("cut")

    def silence(self) -> None:
        """Nothing more passes on this connection, as if a firewall had forgotten it; others go on."""
        self._link.silent = True
        self._link.read_what_fits()

    def silence_changed(self) -> None:
        """A black hole has begun or ended: reads from neither side, or goes on."""
        self._link.read_what_fits()

    # -- the end

    def _client_ended(self) -> bool:
        """The client sends no more; whether it may still be owed something, and its socket stays open for that."""
        awaits = self._start is not None and (not self.status or self._tracker.busy or self._stopped is not None)
        if not awaits or self._hold is not None:  # what a hold has stopped never runs: its client is gone
            return False
        self._leave("dropped")
        self._pass_on_end()
        return True

    def _pass_on_end(self) -> None:
        """Tells the server that the client sends no more, after all that the client has sent."""
        if not self.left or self._over or self._waiting or self._stopped is not None or self._link.server is None:
            return
        if not self._link.end_client() and not self._tracker.busy:
            self.close(self.close_reason)

    def _client_lost(self) -> None:
        self._link.client = None
        if self._is_cancel and self._connecting is not None and not self._connecting.done() and not self._over:
            self._leave("terminate")  # the server has yet to be told, and nobody waits for it
            return
        self._lost("dropped")
        self._leave(self.close_reason)
        self._let_go()

    def _server_lost(self) -> None:
        self._link.server = None
        self._lost("server")
        self._let_go()

    @property
    def _is_cancel(self) -> bool:
        return self._start is not None and self._start.is_cancel

    def _lost(self, close_reason: str) -> None:
        self.close(self._reason(close_reason))

    def _reason(self, close_reason: str) -> str:
        # After a Terminate the server hangs up first, but the client ended it. After a CancelRequest no word is due.
        return self.close_reason or ("terminate" if self._tracker.terminated or self._is_cancel else close_reason)

    def _leave(self, close_reason: str) -> None:
        if not self.left:
            self.left = True
            self.close_reason = self._reason(close_reason)
            self._ended(self)

    def _let_go(self) -> None:
        if self._link.client is None and self._link.server is None:
            self._gone(self)

    def abort(self, close_reason: str) -> None:
        """Ends both sides at once, over TCP with a reset; unsent bytes are lost."""
        self._end(close_reason, self._link.reset)

    def close(self, close_reason: str) -> None:
        """Ends both sides after what was written to them has been sent."""
        self._end(close_reason, self._link.close)

    def _end(self, close_reason: str, end: Callable[[], None]) -> None:
        if self._over:  # closing one side makes the other report its own end
            return
        self._over = True
        self.close_reason = close_reason
        if self._timer is not None:
            self._timer.cancel()
        if self._hold is not None:
            self._hold.forget(self)
        if self._connecting is not None and self._link.server is None:
            self._connecting.cancel()
        self._tracker.connection_lost()
        end()
        self._changed()
