"""Everything one check plays on: a fresh database, a tap, and usually a running app."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from checks.kit.service import App, Done

if TYPE_CHECKING:
    from checks.kit.catalogue import Lesson
    from checks.kit.postgres import Database
    from checks.kit.run import Run
    from checks.kit.wire import Recording, Wire

MANY = 6
"""Answers in a row from which on their order says nothing."""


class Stage:
    """To be used with `async with`; at the end the apps end, the tap closes and the database is given back.

    `did` is what happened on it so far, in sentences; `seen` what crossed its tap; `printed` the last command.
    """

    wire: Wire
    database: Database

    def __init__(self, run: Run, lesson: Lesson, folder: Path) -> None:
        self.did: list[str] = []
        self.app: App | None = None
        self.printed = ""
        self.seen: Recording | None = None
        self._run = run
        self._lesson = lesson
        self.folder = folder
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        async with self._stack:
            databases = await self._run.databases(self._lesson, self.folder)
            self.database = await databases.fresh()
            self._stack.callback(databases.give_back, self.database)
            self.wire = await self._stack.enter_async_context(self._run.tap())
            self.wire.subscribe(self._heard)
            self.seen = self._stack.enter_context(self.wire.watching())
            self._stack = self._stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def launch(self, env: Mapping[str, str | None] | None = None, workers: int | None = None) -> App:
        """Starts an app. Raises AppDidNotStart."""
        starting = self._run.app(
            self._lesson, self.folder, self.database, self.wire, env=env, workers=workers, note=self.note
        )
        self.app = await self._stack.enter_async_context(starting)
        return self.app

    async def command(self, *arguments: str, password: str | None = None) -> Done:
        """Runs a command in the lesson's folder, on this stage's database through its tap.

        With `password` it logs in as a role of its own that has this password and the rights of the usual one.
        """
        role = None
        if password is not None:
            role = await self._stack.enter_async_context(self.database.another_role(password))
        url = self.database.url(self.wire.host, self.wire.port, role=role, password=password)
        done = await self._run.command(self._lesson, self.folder, url, *arguments, note=self.note)
        self.printed = done.output
        return done

    def note(self, sentence: str) -> None:
        """Adds a step; the same one again is counted instead of repeated.

        Requests at once end in any order, so among many answers in a row the same ones are counted together.
        """
        answers = sum(1 for _ in itertools.takewhile(lambda step: " → " in step, reversed(self.did)))
        for number in range(1, min(answers if answers >= MANY else 1, len(self.did)) + 1):
            step, _, times = self.did[-number].partition("  ×")
            if step == sentence:
                self.did[-number] = f"{sentence}  ×{int(times or 1) + 1}"
                return
        self.did.append(sentence)

    def _heard(self, event: Any) -> None:
        """What was done to the traffic is a step of the check as well."""
        if (sentence := getattr(event, "sentence", None)) is not None:
            self.note(sentence)
