"""What a client sends before its first message: requests for encryption, then a start-up message or a CancelRequest."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from checks.kit.wire import protocol


class AskedTwice(ValueError):
    """A client that was refused one kind of encryption has requested it again."""


@dataclass(frozen=True, slots=True)
class StartMessage:
    """The packet that opens a connection.

    `raw` is the packet itself and `rest` what the client sent after it. `parameters` are its names and values, such as
    `user` and `database`. A CancelRequest has none; the client sends nothing after it and waits for the end.
    """

    is_cancel: bool
    parameters: dict[str, str]
    raw: bytes
    rest: bytes


class StartUp:
    """Reads the start of one connection; `refuse_encryption` is called for each request to encrypt it."""

    def __init__(self, refuse_encryption: Callable[[], None]) -> None:
        self._refuse_encryption = refuse_encryption
        self._unread = b""
        self._refused: set[int] = set()

    def read(self, data: bytes) -> StartMessage | None:
        """The StartMessage once it is there in full, else None.

        Raises ValueError for what PostgreSQL would refuse: AskedTwice with its words, else without one.
        """
        self._unread += data
        while packet := protocol.first_message(self._unread):
            code, body = packet
            size = len(body) + 8
            raw, self._unread = self._unread[:size], self._unread[size:]
            if code in (protocol.TLS, protocol.GSS):
                if code in self._refused:
                    raise AskedTwice(f"unsupported frontend protocol {code >> 16}.{code & 0xFFFF}")
                # statements must be readable here; the client goes on in clear, on the same socket
                self._refused.add(code)
                self._refuse_encryption()
                continue
            is_cancel = code == protocol.CANCEL
            return StartMessage(is_cancel, {} if is_cancel else protocol.start_parameters(body), raw, self._unread)
        return None
