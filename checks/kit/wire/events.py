"""What a tap tells its listeners, as it happens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from checks.kit.wire.connection import Connection
    from checks.kit.wire.statements import Statement


@dataclass(frozen=True, slots=True)
class Opened:
    """A client sent its start-up message."""

    connection: Connection


@dataclass(frozen=True, slots=True)
class Closed:
    """A connection ended; its `farewell` says how."""

    connection: Connection


@dataclass(frozen=True, slots=True)
class Crossed:
    """A statement was answered."""

    statement: Statement


@dataclass(frozen=True, slots=True)
class Fault:
    """Something was done to the traffic; `sentence` is for a reader."""

    sentence: str


Event = Opened | Closed | Crossed | Fault
