"""Customers of the shop, and what they do: register, log in, stay logged in."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

from checks.kit.report import expect
from checks.kit.testbed.shop import Shop

if TYPE_CHECKING:
    from checks.kit.service.app import App, Response

PASSWORD = "correct horse battery staple"
WRONG = "wrong password, wrong"
ANNA = {"email": "anna@example.com", "name": "Anna", "password": PASSWORD}
BEN = {"email": "ben@example.com", "name": "Ben", "password": "another password of Ben's"}

IN = "A customer who cannot register and log in buys nothing."


def bearer(token: str) -> dict[str, str]:
    """The header with which a client shows an access token; none for an empty one."""
    return {"Authorization": f"Bearer {token}"} if token else {}


def sha256(password: str) -> str:
    """How the first version of the shop stored a password."""
    return hashlib.sha256(password.encode()).hexdigest()


async def registered(app: App, who: dict[str, str]) -> Response:
    response = await app.post("/auth/register", json=who)
    expect(response.status == 201, f"{response}. Expected: 201.", because=IN, section="See it break")
    return response


async def log_in(app: App, who: dict[str, str], password: str = "") -> Response:
    """Asks for tokens, with the customer's own password or another one."""
    return await app.post("/auth/login", json={"email": who["email"], "password": password or who["password"]})


async def logged_in(app: App, who: dict[str, str], *, register: bool = True) -> Response:
    """The tokens of a login, after a registration."""
    if register:
        await registered(app, who)
    response = await log_in(app, who)
    expect(response.status == 200, f"{response}. Expected: 200.", because=IN, section="See it break")
    return response


async def refresh(app: App, token: str) -> Response:
    return await app.post("/auth/refresh", json={"refresh_token": token})


async def id_of(shop: Shop, who: dict[str, str]) -> int:
    return int(await shop.value("SELECT id FROM customers WHERE lower(email) = $1", who["email"]))


def parts_of(response: Response) -> str:
    """All that a response says: its headers and its body."""
    return json.dumps(dict(response.headers)) + response.text
