"""What the kit asks of a process that runs an app. Plain data: it crosses process boundaries as JSON."""

from __future__ import annotations

import json
import os
import socket
from dataclasses import asdict, dataclass, field

FD = "fd:"


@dataclass(frozen=True, slots=True)
class Order:
    """One app to run.

    `listen` and `ready` are addresses: one with a slash is the path of a Unix socket, `fd:N` is a socket that
    the process has already, any other is host:port. Every worker says `ready` once when it accepts requests.
    `events`, where set, is an address that gets a line of JSON for every request and every answer.
    `log` is a path, or `fd:N` as well.
    `command`, where set, is run instead of an app, as `python -m command[0] ...` would, and nothing listens.
    `memory` and `file_size` are bytes, `cpu` is seconds of processor time, `processes` counts those of the user,
    threads too, `files` are descriptors; 0 means no limit.
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
    processes: int = 0
    files: int = 0

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Order:
        return cls(**json.loads(text))


def connect(address: str) -> socket.socket:
    """A stream socket connected to an address of an Order."""
    if address.startswith(FD):
        return socket.socket(fileno=os.dup(number_of(address)))
    if "/" not in address:
        return socket.create_connection(split(address))
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(address)
    return connection


def bind(address: str) -> socket.socket:
    """A stream socket bound to an address of an Order, not yet listening."""
    if address.startswith(FD):
        return socket.socket(fileno=os.dup(number_of(address)))
    unix = "/" in address
    listener = socket.socket(socket.AF_UNIX if unix else socket.AF_INET)
    listener.bind(address if unix else split(address))
    return listener


def number_of(address: str) -> int:
    """The descriptor that `fd:N` names."""
    return int(address.removeprefix(FD))


def split(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host, int(port)
