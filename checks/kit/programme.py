"""The checks that pytest has collected, played in its order or ahead of it."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from checks.kit.ahead import Ahead, Turn
from checks.kit.catalogue import ROOT, lesson
from checks.kit.parts import Check
from checks.kit.play import Played, play
from checks.kit.service import AppDidNotStart
from checks.kit.targets import lesson_folder

if TYPE_CHECKING:
    from checks.kit.run import Run


class Programme:
    """`played` is to be asked in the order of the items, and need not be asked for all of them."""

    def __init__(self, items: list[pytest.Item], run: Run, target: Path) -> None:
        self._run = run
        self._target = target
        self._turns = {item: self._turn(item) for item in items if lesson_name(item.path)}
        self._ahead = Ahead(list(self._turns.values()))

    async def played(self, item: pytest.Item) -> Played:
        """Raises PostgresUnavailable."""
        return await self._ahead.result(self._turns[item])

    async def close(self) -> None:
        await self._ahead.close()

    def _turn(self, item: pytest.Item) -> Turn:
        its = lesson(item.path.parent.name)
        folder = lesson_folder(self._target, its)
        return Turn(
            partial(play, check_of(item), self._run, its, folder),
            partial(self._wanted, item),
            alone=item.get_closest_marker("alone") is not None,
            slow=item.get_closest_marker("slow") is not None,
        )

    async def _wanted(self, item: pytest.Item) -> bool:
        """As pytest will see it: not behind an app that does not start, nor behind a check that it needs."""
        for before, turn in self._turns.items():
            if before is item:
                return True
            if before.path.parent != item.path.parent:
                continue
            needed = before.name in needs(item)
            if needed and turn.task is not None:
                await asyncio.wait({turn.task})
            error = _error(turn)
            if isinstance(error, AppDidNotStart) or (needed and (turn.task is None or error)):
                return False
        return True


def _error(turn: Turn) -> BaseException | None:
    """What ended this turn, as far as it is known."""
    if turn.task is None or not turn.task.done() or turn.task.cancelled():
        return None
    return turn.task.exception() or turn.task.result().error


def lesson_name(path: Path) -> str | None:
    """`lesson_04` for a file below checks/lesson_04, else None."""
    inside = path.relative_to(ROOT).parts if path.is_relative_to(ROOT) else ()
    return inside[1] if len(inside) > 2 and inside[0] == "checks" and inside[1].startswith("lesson_") else None


def needs(item: pytest.Item) -> list[str]:
    """The names of the checks without which this one says nothing."""
    return [name for mark in item.iter_markers("needs") for name in mark.args]


def check_of(item: pytest.Item) -> Check:
    """The check as it is written; pytest calls something that asks this programme."""
    check: Check = item.function.check  # type: ignore[attr-defined]
    return check
