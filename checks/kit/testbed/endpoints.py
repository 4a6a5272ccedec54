"""The app's endpoints as lesson.toml lists them, with ids of rows that are there: for rules about "every request"."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from checks.kit.lessons.lesson import PLACEHOLDER

if TYPE_CHECKING:
    from checks.kit.lessons.lesson import EndpointEntry
    from checks.kit.testbed.rows import Seeded

FIRST_NUMBER = 100_001
"""`{n}` of the first call; it keeps its six digits, so that an ISBN has always the same length."""

DEFAULTS = {
    "email": "nobody@example.com",
    "password": "nobody's password",
    "refresh_token": "nobody's refresh token",
}
"""Values of placeholders that a check may set: without them nobody can log in."""


class NoSuchRow(Exception):
    """An endpoint needs a row of a kind that was not seeded."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A request to one of the app's endpoints: `await app.request(e.method, e.path, **e.options)`.

    `writes`: it changes rows. `login`: it needs the header of a customer who is logged in. `name` is a short one.
    """

    method: str
    path: str
    options: dict[str, Any] = field(default_factory=dict)
    writes: bool = False
    login: bool = False
    name: str = ""

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


class Endpoints:
    """`endpoints(ids)` makes a request for each endpoint that lesson.toml lists, with rows of `ids`."""

    def __init__(self, entries: Sequence[EndpointEntry]) -> None:
        self._entries = entries
        self._numbers = itertools.count(FIRST_NUMBER)

    def __call__(
        self,
        ids: Seeded,
        *,
        writes: bool | None = None,
        login: bool | None = None,
        headers: Mapping[str, str] | None = None,
        **values: str,
    ) -> list[Endpoint]:
        """One request for each endpoint, in the order of lesson.toml.

        `writes` and `login` choose those that write or only read, and those that need a login or none. `headers` go
        with the ones that need a login. `values` are for placeholders that name no row, such as `email`. Each
        call has another `{n}`, so that a body may be sent again. Raises NoSuchRow, which says what to seed.
        """
        known = DEFAULTS | values | {"n": str(next(self._numbers))} | _first(ids)
        return [
            _concrete(entry, known, headers)
            for entry in self._entries
            if writes in (None, entry.writes) and login in (None, entry.login)
        ]


def _first(ids: Seeded) -> dict[str, str]:
    """The first id of each kind, the customer of others, or else the last one, as somebody else, and the last book."""
    kinds = {"author": ids.authors, "book": ids.books, "customer": ids.customers} | {
        "review": ids.reviews,
        "order": ids.orders,
        "other_customer": ids.others.customers or ids.customers[-1:],
        "last_book": ids.books[-1:],
    }
    return {kind: str(rows[0]) for kind, rows in kinds.items() if rows}


def _concrete(entry: EndpointEntry, known: Mapping[str, str], headers: Mapping[str, str] | None) -> Endpoint:
    missing = [name for name in PLACEHOLDER.findall(entry.request + entry.body) if name not in known]
    if missing:
        plural = f"{missing[0]}s".removeprefix("other_").removeprefix("last_")
        raise NoSuchRow(f"{entry.request} needs {{{missing[0]}}}: seed one, as in shop.seed({plural}=1).")
    method, path = _filled(entry.request, known).split(" ", 1)
    quoted = {name: json.dumps(value)[1:-1] for name, value in known.items()}
    options: dict[str, Any] = {"json": json.loads(_filled(entry.body, quoted))} if entry.body else {}
    sent = dict([entry.header.split(": ", 1)]) if entry.header else {}
    if entry.login and headers is not None:
        sent |= headers
    if sent:
        options["headers"] = sent
    return Endpoint(method, path, options, entry.writes, entry.login, entry.name or entry.request)


def _filled(text: str, known: Mapping[str, str]) -> str:
    return re.sub(PLACEHOLDER, lambda found: known[found[1]], text)
