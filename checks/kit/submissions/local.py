"""Grades units on this machine, at several desks at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack

from checks.kit.submissions.desk import Desk, GraderFailed, open_desk
from checks.kit.submissions.model import Mark
from checks.kit.submissions.units import Rules, Unit

TRIES = 2
"""How often a unit is begun whose grader, not its app, seems to have failed."""

Tell = Callable[[Unit, Mark | GraderFailed], None]


async def grade_here(units: Sequence[Unit], rules: Rules, tell: Tell, *, jobs: int) -> None:
    """`tell` is called as each unit ends. Raises PostgresUnavailable."""
    waiting = iter(units)
    jobs = min(jobs, len(units))

    async def work(desk: Desk) -> None:
        for unit in waiting:  # each desk takes the next one
            tell(unit, await at(desk, unit))

    async with AsyncExitStack() as stack:
        desks = [await stack.enter_async_context(open_desk(rules, jobs)) for _ in range(jobs)]
        async with asyncio.TaskGroup() as tasks:
            for desk in desks:
                tasks.create_task(work(desk))


async def at(desk: Desk, unit: Unit) -> Mark | GraderFailed:
    """Grades a unit, once more if the grader failed or a check stumbled, which may be the machine's fault."""
    came: Mark | GraderFailed = GraderFailed("")
    for _ in range(TRIES):
        try:
            came = await desk.grade(unit)
        except GraderFailed as error:
            came = error
        except Exception as error:  # one unit, whatever it brings about, does not end the run of all
            came = GraderFailed(f"{type(error).__name__}: {error}")
        if isinstance(came, Mark) and not came.stumbled:
            break
    return came
