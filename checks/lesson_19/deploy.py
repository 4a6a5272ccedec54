"""A deploy of the release, in a database with many rows, while the old release serves."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import groupby
from typing import TYPE_CHECKING, Any

import jwt

from checks.kit.report import expect
from checks.kit.testbed.shop import Shop
from checks.lesson_13.replay import Step, replay
from checks.lesson_19 import old_release
from checks.lesson_19.timeline import Sent, Timeline
from checks.lesson_19.traffic import TRIES, sent

if TYPE_CHECKING:
    from checks.kit.postgres import Database
    from checks.kit.service.app import App
    from checks.kit.service.command import CompletedCommand
    from checks.kit.testbed.testbed import Testbed
    from checks.kit.wire import Statement

BEFORE = "0019"
"""The revision of the old release."""

HOST = {"Host": "bookshop.example"}


def harms(steps: Iterable[Step]) -> Iterator[str]:
    """Sentences about statements that stop the shop. Batches in one transaction stop it as a single statement does."""
    for _, transaction in groupby(steps, key=lambda step: step.transaction):
        rows: Counter[str] = Counter()
        for step in transaction:
            if step.stopped():
                rows.update(step.rows)
            so_far = replace(step, rows=dict(rows))
            if harm := step.harm() or so_far.harm("and the statements before it made PostgreSQL read"):
                yield harm


class Deploy:
    """`await deploy.open()` fills the database and takes it back to the old release's revision."""

    def __init__(self, testbed: Testbed) -> None:
        self.testbed = testbed
        self.timeline = Timeline()
        self._numbers = iter(range(1, 1 << 30))

    async def open(self) -> None:
        await self.testbed.fill(self.testbed.lesson.large)
        self.shop = Shop(self.testbed.database)
        self.copy = await self.testbed.filled(self.testbed.lesson.large)
        for database in (self.testbed.database, self.copy):
            await self.alembic("downgrade", BEFORE, database=database)
        self.timeline.note(f"the database is at the revision of the old release, {BEFORE}")
        customer = await self.shop.value("SELECT min(id) FROM customers")
        claims = {"iss": "bookshop", "aud": "bookshop-api", "shop": 1, "sub": str(customer)}
        secret = self.testbed.lesson.env["JWT_SECRET"]
        token = jwt.encode({**claims, "exp": int(time.time()) + 3600}, secret, "HS256")
        self.headers = HOST | {"Authorization": f"Bearer {token}"}
        self.book = await self.shop.value("SELECT min(id) FROM books")

    async def old(self) -> App:
        """A process of the old release."""
        folder = await asyncio.to_thread(old_release.folder)
        self.timeline.note("the old release serves")
        return await self.testbed.launch(folder=folder, called="the old release")

    async def new(self) -> App:
        """A process of the learner's release."""
        self.timeline.note("the new release serves")
        return await self.testbed.launch(called="the new release")

    async def alembic(self, *arguments: str, database: Database | None = None) -> CompletedCommand:
        """Runs Alembic until it succeeds: on a slow machine it meets its limit for locks."""
        for _ in range(3):
            done = await self.testbed.command("alembic", *arguments, env=self._direct(database))
            if done.ok:
                return done
        expect(
            False,
            f"A step of the deploy failed: {done}.",
            because="The deploy stops half way, and cannot be taken back.",
            section="Migrations",
        )
        return done

    def _direct(self, database: Database | None) -> dict[str, str | None]:
        wire = self.testbed.server_side
        return {} if database is None else {"DIRECT_DATABASE_URL": database.url(wire.host, wire.port)}

    async def harm(self, statements: list[Statement]) -> list[str]:
        """What each statement of Alembic does to the shop, in a database in which nobody else works."""
        statements = [one for one in statements if one.process != "PgBouncer"]  # what goes past it is Alembic's
        steps = await asyncio.to_thread(replay, self.testbed.login(self.copy), statements)
        expect(
            steps,
            "Alembic has sent nothing past PgBouncer.",
            because="What is sent through it may be dropped, or wait for traffic to end.",
            section="Migrations",
        )
        return list(harms(steps))

    async def traffic(self, app: App, rounds: int = 3) -> list[Sent]:
        """What people do with either release."""
        basket = {"lines": [{"book_id": self.book, "quantity": 1}]}
        friend = {"recipient": {"email": "friend@example.com", "name": "Friend"}, "message": "For you"}
        requests: list[tuple[str, str, dict[str, Any]]] = [
            ("GET", f"/books/{self.book}", {}),
            ("GET", "/catalogue?size=5", {}),
            ("PATCH", f"/books/{self.book}", {"json": {"price_cents": 999}, "headers": HOST | {"If-Match": "*"}}),
            ("POST", "/orders", {"json": basket}),
            ("POST", "/checkout", {"json": basket | {"card_token": "tok"}}),
            ("POST", "/gifts", {"json": basket | friend}),
            ("GET", "/mails/failed", {}),
        ]
        return [
            await self._patiently(app, method, path, {"headers": self.headers} | options)
            for _ in range(rounds)
            for method, path, options in requests
        ]

    async def _patiently(self, app: App, method: str, path: str, options: dict[str, Any]) -> Sent:
        for _ in range(TRIES):
            one = await sent(app, method, path, **options)
            if one.mark != "○":
                break
        return one
