"""What the kit asks of a process that runs an app. Plain data: it crosses process boundaries as JSON."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

FD = "fd:"

INHERITED = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "SYSTEMROOT", "VIRTUAL_ENV")
"""What an app gets of the grader's own environment."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessSpec:
    """A command to run in `folder`, as `python -m command[0] command[1] ...` would, or `python -c command[1] ...`.

    `env` is its whole environment. What it prints goes to `log`: a path, or `fd:N`, a descriptor that it has already.
    `out`, where set, is another one for standard output.
    `pycache` is a folder for compiled files; empty: none are written.
    `memory` and `file_size` are bytes, `cpu` is seconds of processor time, `processes` counts those of the user,
    threads too, `files` are descriptors; 0 means no limit.
    """

    folder: str
    log: str
    out: str = ""
    env: dict[str, str] = field(default_factory=dict)
    command: tuple[str, ...] = ()
    pycache: str = ""
    memory: int = 2 << 30
    file_size: int = 256 << 20
    cpu: int = 120
    processes: int = 0
    files: int = 0

    def to_json(self) -> str:
        return json.dumps(asdict(self))


@dataclass(frozen=True, slots=True, kw_only=True)
class AppSpec(ProcessSpec):
    """An app to serve with uvicorn, in place of a command.

    `app` is `module:attribute`. `listen` and `ready` are addresses: one with a slash is the path of a Unix socket,
    `fd:N` is a socket that the process has already, any other is host:port. Every worker says `ready` once when it
    accepts requests. `events`, where set, is an address that gets a line of JSON for every request and response.
    `terminal` is the device of a terminal in which breakpoint() stops; `debugger` is a host:port where debugpy waits
    for an editor before the app is imported, of which `events` is told. After `dump_after` seconds, unless it is 0, an
    app that does not accept requests yet prints where its threads are.
    """

    app: str
    listen: str
    ready: str
    events: str = ""
    workers: int = 1
    dump_after: float = 0
    terminal: str = ""
    debugger: str = ""


def spec_from(fields: Mapping[str, Any]) -> ProcessSpec:
    """The spec that `asdict` or `to_json` took apart."""
    return AppSpec(**fields) if "app" in fields else ProcessSpec(**fields)


def connect(address: str) -> socket.socket:
    """A stream socket connected to an address of an AppSpec."""
    if address.startswith(FD):
        return socket.socket(fileno=os.dup(number_of(address)))
    if "/" not in address:
        return socket.create_connection(split(address))
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(address)
    return connection


def bind(address: str) -> socket.socket:
    """A stream socket bound to an address of an AppSpec, not yet listening."""
    if address.startswith(FD):
        return socket.socket(fileno=os.dup(number_of(address)))
    unix = "/" in address
    listener = socket.socket(socket.AF_UNIX if unix else socket.AF_INET)
    listener.bind(address if unix else split(address))
    return listener


def bind_port(port: int = 0) -> socket.socket:
    """A socket bound to a port of 127.0.0.1, a free one by default, not yet listening.

    Its port can be shared with other sockets of this function. It is bound by its number: Linux then lets it stop
    listening and listen again, and keeps the port for it meanwhile.
    """
    with _sharing() as first:
        first.bind(("127.0.0.1", port))
        bound = _sharing()
        bound.bind(first.getsockname())
    return bound


def _sharing() -> socket.socket:
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, getattr(socket, "SO_REUSEPORT", socket.SO_REUSEADDR), 1)
    return made


def number_of(address: str) -> int:
    """The descriptor that `fd:N` names."""
    return int(address.removeprefix(FD))


def split(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host, int(port)


def environment(env: Mapping[str, str]) -> dict[str, str]:
    """What an app gets to see: enough to run, nothing of the grader's own settings."""
    return {name: os.environ[name] for name in INHERITED if name in os.environ} | {"PYTHONUNBUFFERED": "1"} | dict(env)
