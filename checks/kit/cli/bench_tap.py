"""What the tap costs a statement, beside a direct connection and beside a proxy that only passes bytes on."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from checks.kit.run import Run

if TYPE_CHECKING:
    from checks.kit.postgres import Database
    from checks.kit.postgres.address import Address

ROUNDS, BATCH = 40, 50

SCHEMA = """
CREATE TABLE books (id bigint PRIMARY KEY, isbn text, title text, price_cents int, stock int);
INSERT INTO books SELECT n, n::text, 'Book ' || n, n, n FROM generate_series(1, 1000) n;
"""

Call = Callable[[], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class Cost:
    """Median seconds of one call; client, proxy and tap share an event loop."""

    what: str
    direct: float
    proxied: float
    tapped: float


async def tap_costs(run: Run) -> list[Cost]:
    """Of a statement on the bare driver, and of a unit of work: BEGIN, SELECT, COMMIT."""
    from checks.kit.wire import open_tap

    server = run.server()
    async with (
        server.database(SCHEMA, "bench") as database,
        open_tap(server.address) as wire,
        _empty_proxy(server.address) as port,
        AsyncExitStack() as stack,
    ):
        urls = [
            _direct(database, server.address),
            database.url(wire.host, port),
            database.url(wire.host, wire.port),
        ]
        drivers = [await stack.enter_async_context(_statement(url)) for url in urls]
        units = [await stack.enter_async_context(_unit_of_work(url)) for url in urls]
        return [
            Cost("SELECT by key, asyncpg", *await _alternate(drivers)),
            Cost("unit of work, SQLAlchemy", *await _alternate(units)),
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
async def _empty_proxy(address: Address) -> AsyncIterator[int]:
    """The port of a proxy that looks at nothing: what asyncio asks for the way there and back."""
    loop = asyncio.get_running_loop()

    class Side(asyncio.Protocol):
        def __init__(self, other: Side | None = None) -> None:
            self.other = other
            self.early = b""

        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            assert isinstance(transport, asyncio.Transport)
            self.transport = transport
            if self.other is None:
                self.connecting = loop.create_task(self.connect())

        async def connect(self) -> None:
            if address.socket_path is not None:
                transport, other = await loop.create_unix_connection(lambda: Side(self), address.socket_path)
            else:
                transport, other = await loop.create_connection(lambda: Side(self), address.host, address.port)
            transport.write(self.early)
            self.other = other

        def data_received(self, data: bytes) -> None:
            if self.other is None:
                self.early += data
            else:
                self.other.transport.write(data)

        def connection_lost(self, error: Exception | None) -> None:
            if self.other is not None:
                self.other.transport.close()

    listener = await loop.create_server(Side, "127.0.0.1", 0)
    try:
        yield listener.sockets[0].getsockname()[1]
    finally:
        listener.close()


async def _alternate(calls: list[Call]) -> list[float]:
    """Median seconds of each call, measured in alternating batches."""
    spent: list[list[float]] = [[] for _ in calls]
    for _ in range(ROUNDS + 1):
        for call, times in zip(calls, spent, strict=True):
            began = time.perf_counter()
            for _ in range(BATCH):
                await call()
            times.append((time.perf_counter() - began) / BATCH)
    return [statistics.median(times[1:]) for times in spent]  # without the first batch, which prepares
