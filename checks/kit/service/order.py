"""What the kit asks of a process that runs an app. Plain data: it crosses process boundaries as JSON."""

from __future__ import annotations

import json
import socket
from dataclasses import asdict, dataclass, field


@dataclass(frozen=True, slots=True)
class Order:
    """One app to run.

    `listen` and `ready` are addresses: one with a slash is the path of a Unix socket, any other is host:port.
    Every worker says `ready` once, on a connection of its own, when it accepts requests.
    `events`, where set, is an address that gets a line of JSON for every request and every answer.
    `command`, where set, is run instead of an app, as `python -m command[0] ...` would, and nothing listens.
    `memory` and `file_size` are bytes, `cpu` is seconds of processor time; 0 means no limit.
    """

    app: str
    folder: str
    log: str
    listen: str
    ready: str
    env: dict[str, str] = field(default_factory=dict)
    events: str = ""
    command: tuple[str, ...] = ()
    workers: int = 1
    pycache: str = ""
    memory: int = 2 << 30
    file_size: int = 256 << 20
    cpu: int = 120

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Order:
        return cls(**json.loads(text))


def connect(address: str) -> socket.socket:
    """A stream socket connected to an address of an Order."""
    if "/" not in address:
        return socket.create_connection(split(address))
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(address)
    return connection


def bind(address: str) -> socket.socket:
    """A stream socket bound to an address of an Order, not yet listening."""
    unix = "/" in address
    listener = socket.socket(socket.AF_UNIX if unix else socket.AF_INET)
    listener.bind(address if unix else split(address))
    return listener


def split(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host, int(port)
