"""Fixtures: what a check asks for by the names of its parameters, and gets ready-made.

    @fixture
    async def provider(testbed):
        async with outside_service(testbed, env="PAYMENT_URL") as provider:
            yield provider

The function takes the testbed, and other fixtures by name. What comes after `yield` runs when the check has ended,
however it ended. The kit's own fixtures are below; a lesson's are in checks/lesson_NN/fixtures.py.
"""

from __future__ import annotations

import asyncio
import importlib
import inspect
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, overload

from checks.kit.lessons.paths import ROOT, display_path

if TYPE_CHECKING:
    from checks.kit.service.app import App
    from checks.kit.service.command import CompletedCommand
    from checks.kit.testbed.apps import Apps
    from checks.kit.testbed.endpoints import Endpoints
    from checks.kit.testbed.explain import Explain
    from checks.kit.testbed.pgbouncer import PgBouncer
    from checks.kit.testbed.shop import Shop
    from checks.kit.testbed.testbed import Testbed
    from checks.kit.wire import Wire

Check = Callable[..., Awaitable[None]]
Function = Callable[..., AsyncIterator[Any]]

SETUP_TIMEOUT, TEARDOWN_TIMEOUT = 180.0, 15.0
"""Seconds for one fixture; bounds for failures, not measurements. A trigger of a learner may run for each large row."""


class FixtureError(Exception):
    """A check asks for what there is not, or a fixture is not one, or takes too long."""


@dataclass(frozen=True, slots=True)
class Fixture:
    """A fixture by its name, with the names of its parameters. `last`: it is made after all that are not."""

    name: str
    parameters: tuple[str, ...]
    open: Callable[..., AbstractAsyncContextManager[Any]]
    last: bool = False


Fixtures = Mapping[str, Fixture]


@overload
def fixture(function: Function) -> Fixture: ...
@overload
def fixture(*, last: bool) -> Callable[[Function], Fixture]: ...
def fixture(function: Function | None = None, *, last: bool = False) -> Fixture | Callable[[Function], Fixture]:
    """Makes a fixture of an async generator function that yields once.

    With `last=True` it is made after all others, as one must be that starts a process of the learner's: by then the
    others have put into `testbed.env` what the process needs. A fixture that asks for such a one comes last by itself.
    """
    if function is None:
        return lambda function: _fixture(function, last)
    return _fixture(function, last)


def _fixture(function: Function, last: bool) -> Fixture:
    if not inspect.isasyncgenfunction(function):
        raise FixtureError(f"{function.__name__} is not a fixture: write async def {function.__name__}(testbed), "
                           "with one yield in it.")  # fmt: skip
    return Fixture(
        function.__name__, tuple(inspect.signature(function).parameters), asynccontextmanager(function), last
    )


@fixture(last=True)
async def app(testbed: Testbed) -> AsyncIterator[App]:
    """The learner's app, just started, ready for requests."""
    yield await testbed.launch()


@fixture(last=True)
async def apps(testbed: Testbed) -> AsyncIterator[Apps]:
    """Two processes of the app on one database, `apps[0]` and `apps[1]`: `await apps.at_once(requests)`."""
    from checks.kit.testbed.apps import launch_apps

    yield await launch_apps(testbed)


@fixture
async def large(testbed: Testbed) -> AsyncIterator[Shop]:
    """The Bookshop's database with the many rows of checks/lesson_NN/large.sql, in place of the empty one."""
    from checks.kit.testbed.shop import Shop

    await testbed.fill(testbed.lesson.large)
    testbed.note(f"the shop holds the rows of {display_path(testbed.lesson.large)}")
    yield Shop(testbed.database, testbed.note)


@fixture
async def launch(testbed: Testbed) -> AsyncIterator[Callable[..., Awaitable[App]]]:
    """Starts an app with settings of the check's own: `app = await launch(env={...}, workers=2)`.

    A None in `env` leaves that variable out. With PYTHONHASHSEED in it the app is a fresh interpreter, as after a
    deploy, and hash() of a text differs from that in the other processes. Raises AppDidNotStart with the app's log.
    """
    yield testbed.launch


@fixture
async def wire(testbed: Testbed) -> AsyncIterator[Wire]:
    """The proxy between app and PostgreSQL: records, holds, delays and cuts."""
    yield testbed.wire


@fixture
async def pgbouncer(testbed: Testbed) -> AsyncIterator[PgBouncer]:
    """The PgBouncer of the lesson: `await pgbouncer.restart()`, `await pgbouncer.command("SHOW POOLS")`."""
    _needs_pgbouncer(testbed)
    yield testbed.pgbouncer


@fixture
async def server_side(testbed: Testbed) -> AsyncIterator[Wire]:
    """The proxy between PgBouncer and PostgreSQL; the fixture `wire` is the one between the app and PgBouncer."""
    _needs_pgbouncer(testbed)
    yield testbed.server_side


def _needs_pgbouncer(testbed: Testbed) -> None:
    if not testbed.lesson.pgbouncer:
        raise FixtureError("There is no PgBouncer here: lesson.toml has no table [pgbouncer].")


@fixture
async def shop(testbed: Testbed) -> AsyncIterator[Shop]:
    """The Bookshop's database, empty: `ids = await shop.seed(books=3)` fills it, `shop.count("books")` looks."""
    from checks.kit.testbed.shop import Shop

    yield Shop(testbed.database, testbed.note)


@fixture
async def explain(testbed: Testbed) -> AsyncIterator[Explain]:
    """Explains what the app sent: `plan = await explain(statement)`; `plan.buffers` is how many blocks it touched."""
    explain = testbed.explain()
    testbed.add_evidence("The statement that was explained", explain.statements)
    testbed.add_evidence("Its plan, and the blocks that each step touched", explain.plans)
    yield explain


@fixture
async def alembic(testbed: Testbed) -> AsyncIterator[Callable[..., Awaitable[CompletedCommand]]]:
    """Runs Alembic as the learner would, in the lesson's folder: `done = await alembic("upgrade", "head")`.

    `done.ok`, `done.output`; with `password=` it logs in with that one. See Testbed.command.
    """

    async def run(*arguments: str, password: str | None = None) -> CompletedCommand:
        return await testbed.command("alembic", *arguments, password=password)

    yield run


@fixture
async def endpoints(testbed: Testbed) -> AsyncIterator[Endpoints]:
    """The endpoints that lesson.toml lists: `endpoints(ids)` makes a request for each, with ids of `shop.seed`."""
    from checks.kit.testbed.endpoints import Endpoints

    yield Endpoints(testbed.lesson.endpoints)


FIXTURES: Fixtures = {
    made.name: made
    for made in (large, launch, wire, pgbouncer, server_side, shop, explain, alembic, endpoints, app, apps)
}
"""The kit's own. A check, like a fixture, may also ask for `testbed` itself."""


def of_lesson(name: str) -> Fixtures:
    """The kit's fixtures, and those of checks/<name>/fixtures.py, if there is one. Raises FixtureError."""
    path = ROOT / "checks" / name / "fixtures.py"
    if not path.is_file():
        return FIXTURES
    try:
        module = importlib.import_module(f"checks.{name}.fixtures")
    except Exception as error:
        raise FixtureError(f"{path.relative_to(ROOT)} cannot be imported: {type(error).__name__}: {error}") from error
    local = {value.name: value for value in vars(module).values() if isinstance(value, Fixture)}
    for known in (*FIXTURES, "testbed"):
        if known in local and local[known] is not FIXTURES.get(known):
            raise FixtureError(f"{path.relative_to(ROOT)} defines {known!r}, which is a fixture of the kit.")
    return {**FIXTURES, **local}


def order(check: Check, fixtures: Fixtures) -> list[Fixture]:
    """What a check needs, in the order in which it is made, whatever the order of its parameters.

    First those that are not `last`, as they are listed in `fixtures`, each after what it asks for. Raises FixtureError
    for an unknown name and for a cycle.
    """
    wanted: dict[str, Fixture] = {}
    for name in inspect.signature(check).parameters:
        _add(name, (check.__name__,), fixtures, wanted)
    listed: dict[str, Fixture] = {}
    for name in fixtures:
        if name in wanted:
            _add(name, (), fixtures, listed)
    last: set[str] = set()
    for needed in listed.values():
        if needed.last or last.intersection(needed.parameters):
            last.add(needed.name)
    return sorted(listed.values(), key=lambda needed: needed.name in last)


def _add(name: str, path: tuple[str, ...], fixtures: Fixtures, to: dict[str, Fixture]) -> None:
    """Adds a fixture after those that it asks for; `path` is what asks for it, the check first."""
    if name == "testbed" or name in to:
        return
    if name in path:
        raise FixtureError(
            f"Fixtures ask for one another in a circle: {' → '.join([*path[path.index(name) :], name])}."
        )
    if name not in fixtures:
        raise FixtureError(f"{path[-1]} asks for {name!r}. {_offer(fixtures)}")
    for needed in fixtures[name].parameters:
        _add(needed, (*path, name), fixtures, to)
    to[name] = fixtures[name]


def _offer(fixtures: Fixtures) -> str:
    local = [name for name in fixtures if name not in FIXTURES]
    text = f"A check may ask for: {', '.join(FIXTURES)}, testbed."
    return f"{text} This lesson's own: {', '.join(local)}." if local else text


class FixtureStack:
    """The fixtures of one check while it runs."""

    def __init__(self, testbed: Testbed, fixtures: Fixtures) -> None:
        self._fixtures = fixtures
        self._made: dict[str, Any] = {"testbed": testbed}
        self._open: list[tuple[str, AbstractAsyncContextManager[Any]]] = []

    async def set_up(self, check: Check) -> dict[str, Any]:
        """Makes what the check needs and returns its arguments. Raises FixtureError and what a fixture raises.

        Whatever happens, `tear_down` must follow.
        """
        for needed in order(check, self._fixtures):
            context = needed.open(**{name: self._made[name] for name in needed.parameters})
            too_long = f"The fixture {needed.name} was not ready within {SETUP_TIMEOUT:.0f} s."
            self._made[needed.name] = await _within(SETUP_TIMEOUT, context.__aenter__(), too_long)
            self._open.append((needed.name, context))
        return {name: self._made[name] for name in inspect.signature(check).parameters}

    async def tear_down(self) -> Exception | None:
        """Ends the fixtures, the last one first, and returns the first error; one's error does not stop the others'.

        Nor does a cancellation, which is raised at the end.
        """
        first: Exception | None = None
        canceled: BaseException | None = None
        while self._open:
            name, context = self._open.pop()
            too_long = f"The fixture {name} did not end within {TEARDOWN_TIMEOUT:.0f} s."
            try:
                # as if the check had passed: what comes after `yield` runs without a `finally`
                await _within(TEARDOWN_TIMEOUT, context.__aexit__(None, None, None), too_long)
            except Exception as error:
                first = first or error
            except BaseException as error:
                canceled = error
        if canceled is not None:
            raise canceled
        return first


async def _within(seconds: float, awaitable: Awaitable[Any], too_long: str) -> Any:
    try:
        async with asyncio.timeout(seconds) as limit:
            return await awaitable
    except TimeoutError:
        if limit.expired():
            raise FixtureError(too_long) from None
        raise
