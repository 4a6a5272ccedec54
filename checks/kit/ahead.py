"""Plays checks ahead of whoever asks for their results in order, a few at the same time.

Most of a check is waiting: for a process to start, for a statement on the wire, for an app to leave.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

from checks.kit.play import Played

AT_ONCE = 3
"""Checks under way; each has a database, a tap and apps of its own."""


@dataclass(eq=False, slots=True)
class Turn:
    """A check in the order of play; its task is there once it has begun.

    `alone`: it measures time, so nothing else may take the processor meanwhile. `slow`: it waits more than it
    works, so it begins early. `wanted` says whether its result will be asked for, and may wait for turns before it.
    """

    play: Callable[[], Coroutine[Any, Any, Played]]
    wanted: Callable[[], Awaitable[bool]]
    alone: bool = False
    slow: bool = False
    task: asyncio.Task[Played] | None = None

    def begin(self) -> asyncio.Task[Played]:
        if self.task is None:
            self.task = asyncio.create_task(self.play())
        return self.task

    @property
    def under_way(self) -> bool:
        return self.task is not None and not self.task.done()


class Ahead:
    """Begins the first turn, then slow ones, then the others; to be made, asked and closed in the same event loop."""

    def __init__(self, turns: Sequence[Turn]) -> None:
        self._turns = turns
        self._going = asyncio.create_task(self._go())

    async def _go(self) -> None:
        for turn in sorted(self._turns, key=lambda turn: (turn is not self._turns[0], not turn.slow)):
            await self._room(turn)
            if turn.task is None and await turn.wanted():
                turn.begin()

    async def _room(self, turn: Turn) -> None:
        while self._busy(turn):
            await asyncio.wait(self._tasks(), return_when=asyncio.FIRST_COMPLETED)

    def _busy(self, turn: Turn) -> bool:
        others = [other for other in self._turns if other.under_way and other is not turn]
        return len(others) >= AT_ONCE or any(turn.alone or other.alone for other in others)

    def _tasks(self) -> set[asyncio.Task[Played]]:
        return {turn.task for turn in self._turns if turn.task is not None and not turn.task.done()}

    async def result(self, turn: Turn) -> Played:
        """What this turn brought. Nobody will ask for an earlier one any more."""
        await _abandon(self._turns[: self._turns.index(turn)])
        if turn.task is None:  # slow ones from behind it may have taken its place
            await self._room(turn)
        return await turn.begin()

    async def close(self) -> None:
        """Ends whatever is under way, and with it the apps that were started for it."""
        self._going.cancel()
        await asyncio.wait({self._going})
        await _abandon(self._turns)


async def _abandon(turns: Sequence[Turn]) -> None:
    tasks = [turn.task for turn in turns if turn.task is not None]
    for task in tasks:
        task.cancel()  # one that is done does not mind
    await asyncio.gather(*tasks, return_exceptions=True)
