"""Framing of the PostgreSQL wire protocol (version 3): where messages begin and end, nothing more.

Source: PostgreSQL documentation, "Frontend/Backend Protocol", message formats.
"""

from __future__ import annotations

import struct
import sys

CANCEL, TLS, GSS = 80877102, 80877103, 80877104
"""Codes in the place of a protocol version in the first message of a connection."""

MAX_KEPT = 64 * 1024
"""Bytes of a message's body that are kept for reading; the rest of a longer one only passes by."""

_int32 = struct.Struct("!i")
_kind_and_length = struct.Struct("!Bi")


class Splitter:
    """Finds message boundaries in a byte stream that arrives in arbitrary pieces.

    `next(data, position)` looks at one piece from `position` on. It returns `(kind, body, end)` when a
    message is complete at `end`, or None when the piece ends inside a message. Bodies are kept only for
    the kinds in `wanted` (a set of message-type bytes as integers) and only up to MAX_KEPT bytes.
    `broken` turns true at a length that no message can have; from then on nothing is reported.
    """

    __slots__ = ("_body", "_head", "_kind", "_missing", "_wanted", "broken")

    def __init__(self, wanted: bytes) -> None:
        self._wanted = frozenset(wanted)
        self._head = b""  # type byte and length of a message, as far as they have arrived
        self._kind = 0
        self._missing = -1  # bytes of the current body that are still to come; -1: between messages
        self._body: bytearray | None = None
        self.broken = False

    def next(self, data: bytes, position: int) -> tuple[int, bytes, int] | None:
        size = len(data)
        if self._missing < 0:
            if not self._head and size - position >= 5:  # the common case, without copies
                kind, length = _kind_and_length.unpack_from(data, position)
                length -= 4
                body_at = position + 5
            else:
                lacking = 5 - len(self._head)
                self._head += data[position : position + lacking]
                if len(self._head) < 5:
                    return None
                kind = self._head[0]
                length = _int32.unpack_from(self._head, 1)[0] - 4
                body_at = position + lacking
                self._head = b""
            if length < 0:
                # From here on nobody knows where a message begins. The bytes still pass; the server will complain.
                self.broken = True
                self._missing = sys.maxsize
                return None
            end = body_at + length
            if end <= size:
                # slicing copies, so only what somebody reads: a result of 100 MB is nothing but rows
                if kind not in self._wanted:
                    return kind, b"", end
                return kind, data[body_at : end if length <= MAX_KEPT else body_at + MAX_KEPT], end
            self._kind = kind
            self._missing = length
            self._body = bytearray() if kind in self._wanted else None
            position = body_at
        taken = min(self._missing, size - position)
        if self._body is not None and len(self._body) < MAX_KEPT:
            self._body += data[position : position + min(taken, MAX_KEPT - len(self._body))]
        self._missing -= taken
        if self._missing:
            return None
        self._missing = -1
        body, self._body = self._body, None
        return self._kind, bytes(body or b""), position + taken


def skip_run(data: bytes, position: int, kind: int) -> tuple[int, int]:
    """How many messages of one kind follow each other from `position` on, complete in this piece, and where they end.

    For rows and COPY, which may be a million small messages: `Splitter.next` would take three times as long for each.
    """
    count, start, unpack = 0, position, _kind_and_length.unpack_from
    try:
        while True:
            found, length = unpack(data, position)
            if found != kind or length < 4:
                break
            start = position
            position += length + 1
            count += 1
    except struct.error:  # the piece ends; a comparison for each message would take longer
        pass
    if position > len(data):  # in the middle of the last one
        return count - 1, start
    return count, position


def first_message(data: bytes) -> tuple[int, bytes] | None:
    """(code, body) of the untyped message that opens a connection; None while it is incomplete.

    Raises ValueError for a length that PostgreSQL would refuse as well.
    """
    if len(data) < 8:
        return None
    length = _int32.unpack_from(data)[0]
    if not 8 <= length <= 10000:
        raise ValueError("not a start-up packet")
    if len(data) < length:
        return None
    return _int32.unpack_from(data, 4)[0], data[8:length]


def start_parameters(body: bytes) -> dict[str, str]:
    """The names and values of a start-up message."""
    parts = body.split(b"\0")
    pairs = zip(parts[::2], parts[1::2], strict=False)
    return {text(name): text(value) for name, value in pairs if name}


def cstring(body: bytes, at: int = 0) -> tuple[bytes, int]:
    """The zero-terminated string at an offset, and the offset after it. Without a zero, all the rest."""
    end = body.find(b"\0", at)
    return (body[at:], len(body)) if end < 0 else (body[at:end], end + 1)


def text(raw: bytes) -> str:
    """Bytes as text. Clients may use any encoding; what is not UTF-8 becomes U+FFFD and is never an error."""
    return raw.decode("utf-8", "replace")


def error_fields(body: bytes) -> dict[str, str]:
    """Fields of an ErrorResponse by their letter: C is the SQLSTATE, M the message."""
    return {text(field[:1]): text(field[1:]) for field in body.split(b"\0") if field}


def error_message(severity: str, sqlstate: str, message: str) -> bytes:
    """An ErrorResponse as a server would send it, such as `error_message("FATAL", "57P03", "...")`."""
    # V is S without translation; PostgreSQL sends both since 9.6
    fields = {"S": severity, "V": severity, "C": sqlstate, "M": message}
    body = b"".join(f"{letter}{value}".encode() + b"\0" for letter, value in fields.items()) + b"\0"
    return b"E" + _int32.pack(len(body) + 4) + body
