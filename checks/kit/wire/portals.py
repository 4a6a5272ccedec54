"""The prepared statements and portals of one connection: which text a message executes that gives only a name."""

from __future__ import annotations

import struct

from checks.kit.wire import protocol
from checks.kit.wire.bound import Bound

MAX_PREPARED = 5000
"""Prepared statements whose texts are known. DEALLOCATE is not read, so there may be more, and the oldest go."""

MAX_BOUND = 100
"""Portals whose parameters are kept at a time: those of an app that opens any number of them do not fill the memory."""

NOTHING: tuple[str, bytes] = ("", b"")
NO_PORTAL: tuple[str, int, Bound | None] = ("", 0, None)


class Portals:
    """Each method reads the body of the message that it is named for, and returns the text of its statement.

    A portal is a prepared statement with its parameters; each Execute names one.
    """

    def __init__(self) -> None:
        self._prepared: dict[bytes, tuple[str, bytes]] = {}  # text, and the types of its parameters as they were sent
        self._portals: dict[bytes, tuple[str, int, Bound | None]] = {}  # text, number of parameters, parameters
        self._executed: set[bytes] = set()  # names of portals that were executed since they were bound

    def parse(self, body: bytes) -> str:
        name, at = protocol.cstring(body)
        raw, at = protocol.cstring(body, at)
        text = protocol.text(raw)
        self._prepared[name] = text, body[at:]
        if len(self._prepared) > MAX_PREPARED:
            del self._prepared[next(iter(self._prepared))]
        return text

    def bind(self, body: bytes) -> str:
        portal, at = protocol.cstring(body)
        name, at = protocol.cstring(body, at)
        text, types = self._prepared.get(name, NOTHING)
        count = _parameters(body, at)
        bound = Bound(types, body, at) if count and len(self._portals) < MAX_BOUND else None
        self._portals[portal] = (text, count, bound)
        self._executed.discard(portal)
        return text

    def execute(self, body: bytes) -> tuple[str, int, Bound | None, bool]:
        """Text, number of parameters, parameters, and whether a cursor executes its portal again for the next rows."""
        portal = protocol.cstring(body)[0]
        text, parameters, bound = self._portals.get(portal, NO_PORTAL)
        again = portal in self._executed
        self._executed.add(portal)
        return text, parameters, bound, again

    def describe(self, body: bytes) -> str:
        name = protocol.cstring(body, 1)[0]
        return self._prepared.get(name, NOTHING)[0] if body[:1] == b"S" else self._portals.get(name, NO_PORTAL)[0]

    def close(self, body: bytes) -> str:
        text = self.describe(body)
        name = protocol.cstring(body, 1)[0]
        if body[:1] == b"S":
            self._prepared.pop(name, None)
        else:
            self._portals.pop(name, None)
            self._executed.discard(name)
        return text

    def end_transaction(self) -> None:
        """Portals end with their transaction."""
        self._portals.clear()
        self._executed.clear()


def _parameters(body: bytes, at: int) -> int:
    """How many parameters a Bind message carries; `at` is the offset after its two names."""
    try:
        formats = struct.unpack_from("!h", body, at)[0]
        return int(struct.unpack_from("!h", body, at + 2 + 2 * formats)[0])
    except struct.error:
        return 0
