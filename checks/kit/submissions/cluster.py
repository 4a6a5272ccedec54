"""Grades units on a Dask cluster: each worker has desks of its own, one for each of its threads.

Workers run from a checkout of the same workbook: `uv run --extra cluster dask worker tcp://...`. What crosses the
network are our own dataclasses, with files as bytes; nothing of a hand-in is unpickled anywhere.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Any

from distributed import Client, Worker, as_completed, get_worker
from distributed.diagnostics.plugin import WorkerPlugin

from checks.kit.catalogue import CatalogueError
from checks.kit.postgres import PostgresUnavailable
from checks.kit.submissions.desk import Desk, GraderFailed, UnfitMachine, open_desk
from checks.kit.submissions.local import Tell, at
from checks.kit.submissions.model import Mark
from checks.kit.submissions.units import Rules, Unit, from_dict, to_dict

NAME = "bookshop-desks"
PATIENCE = 30
"""Seconds to wait for the scheduler, and for its first worker."""


class Desks(WorkerPlugin):  # type: ignore[misc]  # an extra has no types here
    """The desks of one worker."""

    name = NAME

    def __init__(self, rules: Rules) -> None:
        self._rules = rules

    async def setup(self, worker: Worker) -> None:
        self._stack = AsyncExitStack()
        self.free: asyncio.Queue[Desk] = asyncio.Queue()
        for _ in range(worker.state.nthreads):
            desk = await self._stack.enter_async_context(open_desk(self._rules, worker.state.nthreads))
            self.free.put_nowait(desk)

    async def teardown(self, worker: Worker) -> None:
        await self._stack.aclose()


async def grade_on_cluster(units: Sequence[Unit], rules: Rules, tell: Tell, *, address: str) -> None:
    """`tell` is called as each unit ends. Raises CatalogueError where the cluster cannot be used."""
    try:
        client = await Client(address, asynchronous=True, timeout=PATIENCE)
    except (OSError, TimeoutError, ValueError) as error:
        raise CatalogueError(
            f"No Dask scheduler answers at {address} ({error}). Start one with: dask scheduler --port 8786"
        ) from None
    async with client:
        await _wait_for_worker(client, address)
        try:
            await client.register_plugin(Desks(rules))
        except (UnfitMachine, PostgresUnavailable) as error:
            raise CatalogueError(f"A worker of {address} cannot grade. {error}") from None
        try:
            await _grade_all(client, units, tell)
        finally:
            await client.unregister_worker_plugin(NAME)


async def _wait_for_worker(client: Client, address: str) -> None:
    try:
        await client.wait_for_workers(1, timeout=PATIENCE)
    except TimeoutError:
        raise CatalogueError(
            f"The scheduler at {address} has no workers. Start some, each from a checkout: "
            f"uv run --extra cluster dask worker {address} --nthreads 1"
        ) from None


async def _grade_all(client: Client, units: Sequence[Unit], tell: Tell) -> None:
    waiting = {unit.key: unit for unit in units}
    futures = client.map(_grade, units, key=[f"bookshop-{unit.key}" for unit in units], pure=False)
    async for future in as_completed(futures):
        unit = waiting[future.key.removeprefix("bookshop-")]
        if future.status == "finished":
            raw = await future
            tell(unit, from_dict(raw["mark"]) if "mark" in raw else GraderFailed(raw["failed"]))
        else:
            tell(unit, GraderFailed(str(await future.exception())))
        future.release()


async def _grade(unit: Unit) -> dict[str, Any]:
    """On the worker."""
    desks = get_worker().plugins[NAME]
    desk = await desks.free.get()
    try:
        mark = await at(desk, unit)
    finally:
        desks.free.put_nowait(desk)
    return {"mark": to_dict(mark)} if isinstance(mark, Mark) else {"failed": str(mark)}
