"""The parameters of one execution, as the client bound them: types, formats and bytes, exactly as they were sent."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from checks.kit.wire.protocol import MAX_KEPT


@dataclass(frozen=True, slots=True)
class Values:
    """One entry for each parameter; None is NULL.

    `types` are the OIDs of the Parse message, 0 where the server chooses the type. `formats` are 0 for text and 1 for
    binary.
    """

    types: tuple[int, ...]
    formats: tuple[int, ...]
    values: tuple[bytes | None, ...]


@dataclass(slots=True, eq=False)  # not frozen: one is made for each Bind, and that would take twice as long
class Bound:
    """What a Parse and a Bind message say about parameters, not read yet: few statements are ever asked for it.

    `types` is the end of the Parse message, `bind` the Bind message, in which the formats begin at `at`.
    """

    types: bytes
    bind: bytes
    at: int

    def read(self) -> Values | None:
        """The parameters; None if the message was too long to be kept in full, or is none."""
        if len(self.bind) >= MAX_KEPT:
            return None
        try:
            return self._read()
        except (struct.error, ValueError):
            return None

    def _read(self) -> Values:
        types = _numbers(self.types, 0, "I")[0]
        formats, at = _numbers(self.bind, self.at, "h")
        count = struct.unpack_from("!H", self.bind, at)[0]
        at += 2
        values: list[bytes | None] = []
        for _ in range(count):
            length = struct.unpack_from("!i", self.bind, at)[0]
            at += 4
            values.append(None if length < 0 else self.bind[at : at + length])
            at += max(length, 0)
        if at > len(self.bind):
            raise ValueError("the message ends inside a value")
        if len(formats) < count:  # none means text for all of them, and one is that of all
            formats = (formats or (0,)) * count
        return Values((*types, *[0] * (count - len(types))), formats[:count], tuple(values))


def _numbers(body: bytes, at: int, kind: str) -> tuple[tuple[int, ...], int]:
    """Numbers after their count, and the offset after them."""
    if not body:  # a client may leave the types out
        return (), at
    count = struct.unpack_from("!H", body, at)[0]
    numbers = struct.unpack_from(f"!{count}{kind}", body, at + 2)
    return numbers, at + 2 + count * struct.calcsize(f"!{kind}")
