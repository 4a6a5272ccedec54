"""What a check may ask for: the names of its parameters, and what each of them is."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from checks.kit.service import App, Done
    from checks.kit.shop import Shop
    from checks.kit.stage import Stage
    from checks.kit.wire import Wire

Check = Callable[..., Awaitable[None]]


class UnknownPart(Exception):
    """A check has a parameter that stands for nothing."""


async def app(stage: Stage) -> App:
    """The learner's app, freshly started, ready for requests."""
    return await stage.launch()


async def launch(stage: Stage) -> Callable[..., Awaitable[App]]:
    """Starts the app with settings of the check's own: `app = await launch(env={...}, workers=2)`.

    A None in `env` leaves that variable out. Raises AppDidNotStart with the app's log.
    """
    return stage.launch


async def wire(stage: Stage) -> Wire:
    """The tap between app and PostgreSQL: watches, holds, delays and cuts."""
    return stage.wire


async def shop(stage: Stage) -> Shop:
    """The Bookshop's database, empty: puts rows in and looks at what is there."""
    from checks.kit.shop import Shop

    return Shop(stage.database, stage.note)


async def alembic(stage: Stage) -> Callable[..., Awaitable[Done]]:
    """Runs Alembic as the learner would, in the lesson's folder: `done = await alembic("upgrade", "head")`.

    `done.ok`, `done.output`; with `password=` it logs in with that one. See Stage.command.
    """

    async def run(*arguments: str, password: str | None = None) -> Done:
        return await stage.command("alembic", *arguments, password=password)

    return run


PARTS: dict[str, Callable[[Stage], Awaitable[Any]]] = {
    part.__name__: part for part in (app, launch, wire, shop, alembic)
}


def names(check: Check) -> list[str]:
    """The parts that a check asks for. Raises UnknownPart."""
    wanted = list(inspect.signature(check).parameters)
    for name in wanted:
        if name not in PARTS:
            raise UnknownPart(f"{check.__name__} asks for {name!r}. A check may ask for: {', '.join(PARTS)}.")
    return wanted


async def cast(check: Check, stage: Stage) -> dict[str, Any]:
    """The parts that a check asks for, on this stage. Raises AppDidNotStart."""
    return {name: await PARTS[name](stage) for name in names(check)}
