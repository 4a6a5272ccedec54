"""The tap between an app and PostgreSQL."""

from checks.kit.wire.connection import Connection
from checks.kit.wire.events import Closed, Crossed, Event, Fault, Opened
from checks.kit.wire.faults import Hold, NeverArrived
from checks.kit.wire.recording import Recording, Transaction
from checks.kit.wire.statements import ServerError, Statement, committing
from checks.kit.wire.tap import NotSettled, Wire, open_tap

__all__ = [
    "Closed",
    "Connection",
    "Crossed",
    "Event",
    "Fault",
    "Hold",
    "NeverArrived",
    "NotSettled",
    "Opened",
    "Recording",
    "ServerError",
    "Statement",
    "Transaction",
    "Wire",
    "committing",
    "open_tap",
]
