"""The proxy between an app and PostgreSQL."""

from checks.kit.wire.connection import Connection
from checks.kit.wire.faults import OUTAGES, Hold, Loss, NeverArrived
from checks.kit.wire.proxy import Entrance, NotIdle, Wire, open_proxy
from checks.kit.wire.recording import ClosedConnection, Recording, Transaction
from checks.kit.wire.statements import ServerError, Statement, committing

__all__ = [
    "OUTAGES",
    "ClosedConnection",
    "Connection",
    "Entrance",
    "Hold",
    "Loss",
    "NeverArrived",
    "NotIdle",
    "Recording",
    "ServerError",
    "Statement",
    "Transaction",
    "Wire",
    "committing",
    "open_proxy",
]
