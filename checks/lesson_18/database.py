"""Reads what compose.yaml says of the database: its health check and its volumes."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any
from urllib.parse import urlsplit

from checks.lesson_18.shelltext import commands_of

SHELLS = ("sh", "bash")
ASKING = ("pg_isready", "psql")
OPENED = re.compile(r"/dev/tcp/([^/\s]+)/")
"""How bash opens a connection."""


def asks_by_tcp(health: list[str], env: Mapping[str, str]) -> bool:
    """Whether a health check asks PostgreSQL at a host, and not in the folder of a Unix socket, and fails if that does.

    Each command that asks has to: the exit code of `A || B` is 0 if one of them is content.
    """
    is_shell = len(health) == 3 and health[0].rpartition("/")[2] in SHELLS and health[1] in ("-c", "-ec", "-ce")
    found = commands_of(health[2] if is_shell else shlex.join(health))
    asking = [one for one in found if any(_asks(word) for word in one.words)]
    by_tcp = [one for one in asking if any(not host.startswith("/") for host in _hosts(one.words, env))]
    return bool(asking) and by_tcp == asking and not any(one.ignored for one in asking)


def in_memory(data: Mapping[str, Any]) -> set[str]:
    """The volumes of a compose file that keep nothing when the machine is started again."""
    volumes = data.get("volumes") or {}
    return {name for name, one in volumes.items() if ((one or {}).get("driver_opts") or {}).get("type") == "tmpfs"}


def _asks(word: str) -> bool:
    return word.rpartition("/")[2] in ASKING or bool(OPENED.search(word))


def _hosts(words: Sequence[str], env: Mapping[str, str]) -> Iterator[str]:
    """The hosts that a command names, or folders of sockets."""
    if host := env.get("PGHOST"):
        yield host
    for word, after in pairwise([*words, ""]):
        if word in ("-h", "--host"):
            yield after
        elif word.startswith("--host="):
            yield word.removeprefix("--host=")
        elif word.startswith("-h") and len(word) > 2:
            yield word[2:]
        elif word.startswith(("postgres://", "postgresql://")):
            yield urlsplit(word).hostname or "/"
        elif opened := OPENED.search(word):
            yield opened[1]
        for part in word.split():
            if part.startswith(("host=", "PGHOST=")):
                yield part.partition("=")[2]
