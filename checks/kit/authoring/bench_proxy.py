"""What the proxy costs, beside a direct connection and PgBouncer in session mode, which is the yardstick of a proxy."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING

from checks.kit.service.inside.spec import bind_port
from checks.kit.testbed.pgbouncer import pgbouncer
from checks.kit.testbed.runtime import Runtime

if TYPE_CHECKING:
    from checks.kit.postgres import Database
    from checks.kit.postgres.address import Address

SCHEMA = """
CREATE TABLE books (id bigint PRIMARY KEY, isbn text, title text, price_cents int, stock int);
INSERT INTO books SELECT n, n::text, 'Book ' || n, n, n FROM generate_series(1, 1000) n;
CREATE UNLOGGED TABLE copied AS SELECT n, repeat('x', 75) AS line FROM generate_series(1, 1200000) n;
"""

Call = Callable[[], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class Cost:
    """Seconds of one call: directly, through the proxy, and through PgBouncer if there is one.

    They are the least of many rounds: what else the machine does only adds to it. Proxy and PgBouncer are processes of
    their own, as they are to an app. `limit_direct` and `limit_pgbouncer` say how many times as long as the other the
    proxy may take; None where that is not the yardstick.
    """

    what: str
    limit_direct: float
    limit_pgbouncer: float | None
    direct: float
    proxy: float
    pgbouncer: float | None = None


async def proxy_costs(run: Runtime, *, beside_pgbouncer: bool) -> list[Cost]:
    """Of a statement, of a unit of work (BEGIN, SELECT, COMMIT), and of a COPY."""
    server = run.server()
    async with server.database(SCHEMA, "bench") as database, AsyncExitStack() as stack:
        enter = stack.enter_async_context
        urls = [
            _direct(database, server.address),
            database.url("127.0.0.1", await enter(_proxy(server.address))),
        ]
        if beside_pgbouncer:
            urls.append(database.url("127.0.0.1", await enter(_pgbouncer(run, database, server.address))))

        async def cost(
            what: str,
            call: Callable[[str], AbstractAsyncContextManager[Call]],
            rounds: int,
            batch: int,
            limits: tuple[float, float | None],
        ) -> Cost:
            calls = [await enter(call(url)) for url in urls]
            return Cost(what, *limits, *await _alternate(calls, rounds, batch))

        return [
            await cost("SELECT by key, asyncpg", _statement, 200, 25, (2.2, 1.3)),
            await cost("unit of work, SQLAlchemy", _unit_of_work, 200, 10, (1.65, 1.3)),
            await cost("COPY of 100 MB out", _copy_out, 9, 1, (1.0, None)),
        ]


def _direct(database: Database, address: Address) -> str:
    if address.socket_path is None:
        return database.url(address.host, address.port)
    nowhere = database.url("", address.port).replace(f"@:{address.port}/", "@/")
    return f"{nowhere}?host={address.host}&port={address.port}"


@asynccontextmanager
async def _statement(url: str) -> AsyncIterator[Call]:
    import asyncpg

    connection = await asyncpg.connect(url.replace("postgresql+asyncpg:", "postgresql:"))
    yield lambda: connection.fetchrow("SELECT * FROM books WHERE id = $1", 7)
    await connection.close()


@asynccontextmanager
async def _unit_of_work(url: str) -> AsyncIterator[Call]:
    from sqlalchemy import text
    from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

    engine = create_async_engine(url)
    sessions = async_sessionmaker(engine)
    query = text("SELECT * FROM books WHERE id = :id")

    async def unit() -> None:
        async with sessions() as session:
            (await session.execute(query, {"id": 7})).one()
            await session.commit()

    yield unit
    await engine.dispose()


@asynccontextmanager
async def _copy_out(url: str) -> AsyncIterator[Call]:
    import asyncpg

    async def throw_away(data: bytes) -> None:
        pass

    connection = await asyncpg.connect(url.replace("postgresql+asyncpg:", "postgresql:"))
    yield lambda: connection.copy_from_table("copied", output=throw_away)
    await connection.close()


@asynccontextmanager
async def _pgbouncer(run: Runtime, database: Database, address: Address) -> AsyncIterator[int]:
    """The port of a PgBouncer in session mode."""
    with bind_port() as free:
        port = free.getsockname()[1]
    options = {"listen_addr": "127.0.0.1", "listen_port": str(port), "unix_socket_dir": "", "pool_mode": "session"}
    where = {database.name: f"host={address.host} port={address.port} dbname={database.name}"}
    made = pgbouncer(run.scratch, where, [database.login], options, run.note_process, owner=_owner(address))
    async with made:
        yield port


def _owner(address: Address) -> str:
    """As whom PgBouncer runs, who must be able to reach the server's socket."""
    return "nobody" if address.socket_path is None else Path(address.socket_path).owner()


@asynccontextmanager
async def _proxy(address: Address) -> AsyncIterator[int]:
    """The port of the proxy."""
    ours, theirs = get_context("spawn").Pipe()
    process = get_context("spawn").Process(target=_run_proxy, args=(address, theirs), daemon=True)
    process.start()
    try:
        yield await asyncio.to_thread(ours.recv)
    finally:
        ours.send(None)
        await asyncio.to_thread(process.join)


def _run_proxy(address: Address, pipe: Connection) -> None:
    from checks.kit.wire import open_proxy

    async def run() -> None:
        async with open_proxy(address) as wire:
            pipe.send(wire.port)
            await asyncio.to_thread(pipe.recv)

    asyncio.run(run())


async def _alternate(calls: list[Call], rounds: int, batch: int) -> list[float]:
    """The least seconds of each call, measured in alternating batches."""
    least = [float("inf")] * len(calls)
    for _ in range(rounds):
        for place, call in enumerate(calls):
            began = time.perf_counter()
            for _ in range(batch):
                await call()
            least[place] = min(least[place], (time.perf_counter() - began) / batch)
    return least
