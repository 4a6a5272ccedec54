"""Requests that must be refused, for each endpoint and for each reason that the ticket names."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from checks.lesson_11.members import UNKNOWN

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from checks.kit.testbed.endpoints import Endpoint
    from checks.kit.testbed.rows import Seeded

MAX_BODY = 2**20

BROKEN = (b"{", b'{"a": \xff}', b"NaN", b"", b"[1,]")
"""Bodies that are not JSON."""

Asked = tuple[str, str, str, dict[str, Any], tuple[int, ...]]
"""What it is, method, path, options, and the statuses that are right."""


def refused_everywhere(endpoints: list[Endpoint]) -> Iterator[Asked]:
    """For each endpoint what can be wrong with any request: method, login, id, and body."""
    for turn, one in enumerate(endpoints):
        path = one.path.partition("?")[0]
        yield f"A method that {path} does not have", "PROPFIND", path, {}, (405,)
        if one.login:
            options = one.options | {"headers": {}}
            yield f"{one.name} without a login", one.method, one.path, options, (401,)
            forged = one.options | {"headers": {"Authorization": "Bearer forged"}}
            yield f"{one.name} with a forged token", one.method, one.path, forged, (401,)
        for number, part in enumerate(parts := path.split("/")):
            if part.isdigit():
                for wrong in ("first", "0"):
                    other = "/".join([*parts[:number], wrong, *parts[number + 1 :]])
                    yield f"{one.name} with the id {wrong}", one.method, other, one.options, (404, 422)
                other = "/".join([*parts[:number], str(UNKNOWN), *parts[number + 1 :]])
                yield f"{one.name} of nothing", one.method, other, one.options, (404,)
        if "json" in one.options:
            rest = {name: value for name, value in one.options.items() if name != "json"}
            yield f"{one.name} without a body", one.method, one.path, rest, (400, 422)
            # what is wrong with a body takes turns, so that each endpoint gets a part of it
            broken, (size, long) = BROKEN[turn % len(BROKEN)], (("long", _long), ("in pieces", _pieces))[turn % 2]
            yield f"{one.name} with a body that is not JSON", one.method, one.path, _json(broken, rest), (400, 422)
            yield f"{one.name} with a text for a body", one.method, one.path, rest | {"json": "text"}, (422,)
            yield f"{one.name} with a body over 1 MiB, {size}", one.method, one.path, _json(long(), rest), (413,)


def refused_here(ids: Seeded, login: dict[str, str]) -> Iterator[Asked]:
    """Reasons of single endpoints."""
    book, last = ids.books[0], ids.books[-1]
    new = {"isbn": "978-0-00-000", "title": "New", "author_id": ids.authors[0], "price_cents": 900}
    match = {"headers": {"If-Match": '"999"'}}
    line = {"book_id": last, "quantity": 1}
    nowhere = {"book_id": UNKNOWN, "quantity": 1}
    for method in ("GET", "POST", "DELETE"):
        for path in ("/nowhere", "/", "/books/1/2/3", "/boo%00ks"):
            yield "An unknown path", method, path, {}, (404,)
    yield "A method that a path does not have", "DELETE", "/orders", {}, (405,)
    yield "A book of no author", "POST", "/books", {"json": new | {"author_id": UNKNOWN}}, (409, 422)
    yield "A book for the first time", "POST", "/books", {"json": new}, (201,)
    yield "A book for the second time", "POST", "/books", {"json": new}, (409,)
    yield "A change without If-Match", "PATCH", f"/books/{book}", {"json": {"title": "x"}}, (428,)
    yield "A change of another version", "PATCH", f"/books/{book}", {"json": {"title": "x"}, **match}, (412,)
    yield "A stock that is far off", "PUT", f"/books/{book}/stock", {"json": {"stock": 5000}}, (409,)
    yield "A page that does not exist", "GET", "/catalogue?page=0", {}, (422,)
    account = {"email": "reader0@example.com", "password": "a wrong password"}
    yield "A wrong password", "POST", "/auth/login", {"json": account}, (401,)
    yield "A token that is not ours", "POST", "/auth/refresh", {"json": {"refresh_token": "x"}}, (401,)
    owned = {"headers": login}
    yield "The order of somebody else", "GET", f"/orders/{ids.others.orders[0]}", owned, (404,)
    yield (
        "Credit for oneself",
        "POST",
        "/transfers",
        owned | {"json": {"recipient_id": ids.customers[0], "cents": 1}},
        (422,),
    )
    yield "Credit for nobody", "POST", "/transfers", owned | {"json": {"recipient_id": UNKNOWN, "cents": 1}}, (404,)
    much = {"recipient_id": ids.customers[1], "cents": 2**31 - 1}
    yield "More credit than there is", "POST", "/transfers", owned | {"json": much}, (409,)
    for path, more in SALES.items():
        yield f"{path} of no book", "POST", path, owned | {"json": {"lines": [line, nowhere], **more}}, (404,)
        many = {"lines": [line, line | {"quantity": 1000}], **more}
        yield f"{path} of more than there is", "POST", path, owned | {"json": many}, (409,)
    keyed = {"headers": login | {"Idempotency-Key": "k"}}
    yield "An order with a key", "POST", "/orders", keyed | {"json": {"lines": [line]}}, (201,)
    other = {"lines": [line | {"quantity": 2}]}
    yield "Another order with its key", "POST", "/orders", keyed | {"json": other}, (422,)
    yield "A quote for no book", "POST", "/quotes", {"json": {"lines": [nowhere]}}, (404,)
    # whether it is deleted is the subject of another check
    yield "The deletion of a book in an order", "DELETE", f"/books/{ids.books[1]}", {}, (204, 409)


SALES: dict[str, dict[str, Any]] = {
    "/orders": {},
    "/gifts": {"recipient": {"email": "friend@example.com", "name": "A Friend"}, "message": "For you"},
    "/checkout": {"card_token": "tok_visa"},
}
"""The endpoints that sell, with what they want besides lines."""


NUMBER = -8_675_309
"""Out of the range of every number in a body."""


Place = tuple[Any, ...]
"""The names and numbers on the way to a value inside of a body."""


def with_wrong_leaves(body: Any, secret: str) -> Iterator[tuple[list[Place], Any]]:
    """Copies of a body with wrong values, and the places of these.

    Each value alone is an object with the secret, or a number out of range if it was one; then the first two of them
    are wrong, and then a value in one of two lines.
    """
    places = list(_leaves(body))
    choices = [[place] for place in places] + ([places[:2]] if len(places) > 1 else [])
    for chosen in choices:
        yield _spoiled(body, chosen, {secret: [secret]})
    for place in places:
        if _at(body, place).__class__ is int:
            yield _spoiled(body, [place], NUMBER)
    lines = body.get("lines") if isinstance(body, dict) else None
    if lines:
        two = body | {"lines": [dict(lines[0]), dict(lines[0])]}
        for line in (0, 1):
            yield _spoiled(two, [("lines", line, "quantity")], {secret: [secret]})


def _spoiled(body: Any, places: list[Place], value: Any) -> tuple[list[Place], Any]:
    changed = copy.deepcopy(body)
    for place in places:
        _at(changed, place[:-1])[place[-1]] = value
    return places, changed


def _at(body: Any, place: Place) -> Any:
    for step in place:
        body = body[step]
    return body


def _leaves(body: Any, place: Place = ()) -> Iterator[Place]:
    if isinstance(body, dict | list):
        for step, value in body.items() if isinstance(body, dict) else enumerate(body):
            yield from _leaves(value, (*place, step))
    else:
        yield place


def _json(content: Any, rest: dict[str, Any]) -> dict[str, Any]:
    headers = rest.get("headers", {}) | {"Content-Type": "application/json"}
    return rest | {"content": content, "headers": headers}


def _long() -> bytes:
    return b'"' + b"x" * MAX_BODY + b'"'


async def _pieces() -> AsyncIterator[bytes]:
    """A body whose length is not known beforehand."""
    yield b'"'
    for _ in range(20):
        yield b"x" * (MAX_BODY // 16)
    yield b'"'
