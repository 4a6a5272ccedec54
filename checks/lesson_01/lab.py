"""What the notebook of lesson 01 needs beside its subject: a database, small apps on it, and a client for them."""

import asyncio
import contextlib
import logging
import socket
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import uvicorn
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from checks.kit.notebook import Moments, command_line
from checks.kit.testbed.rows import Ids
from checks.kit.testbed.shop import Shop
from checks.kit.wire import Recording, Wire


@dataclass(frozen=True, slots=True)
class Database:
    """An engine on a database of its own, the proxy on its wire, and the ids of the rows that it holds."""

    engine: AsyncEngine
    wire: Wire
    shop: Shop
    ids: Ids


@asynccontextmanager
async def database(*, engine_options: dict[str, Any] | None = None, **rows: int) -> AsyncIterator[Database]:
    """A database with so many rows: `async with database(books=3) as db:`."""
    async with command_line(1) as line:
        ids = await line.shop.seed(**rows, others=False)
        engine = create_async_engine(line.testbed.url, **(engine_options or {}))
        try:
            yield Database(engine, line.wire, line.shop, ids)
        finally:
            await engine.dispose()


@dataclass(frozen=True, slots=True)
class Reply:
    """What a client reads."""

    status: int
    text: str


class Client:
    """Sends requests to an app that `serving` runs."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client

    async def request(self, method: str, path: str, **options: Any) -> Reply:
        """Sends a request and reads the response."""
        response = await self._client.request(method, path, **options)
        return Reply(response.status_code, response.text)

    async def post(self, path: str, **options: Any) -> Reply:
        return await self.request("POST", path, **options)


SILENT = logging.CRITICAL + 1
"""The apps of the notebook fail on purpose; their tracebacks would hide the output."""


class Server(uvicorn.Server):
    """uvicorn, without its signal handlers: they would replace those of the notebook."""

    @contextlib.contextmanager
    def capture_signals(self):  # type: ignore[no-untyped-def]  # as uvicorn has it
        yield


@asynccontextmanager
async def serving(app: Any) -> AsyncIterator[Client]:
    """Runs an ASGI app with uvicorn in this event loop."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    server = Server(uvicorn.Config(app, log_config=None, log_level=SILENT, lifespan="off"))
    running = asyncio.create_task(server.serve([listener]))
    try:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        async with httpx.AsyncClient(base_url=url, trust_env=False) as client:
            yield Client(client)
    finally:
        server.should_exit = True
        await running
        listener.close()


async def order_of_events(db: Database, app: Any) -> tuple[Recording, Moments, str]:
    """Sends POST /books, holds its COMMIT or ROLLBACK for about 100 ms, and says when the response arrives."""
    moments = Moments()
    async with serving(app) as client:
        await _warm_up(db, client)
        with db.wire.watching() as seen:
            async with db.wire.hold(lambda statement: statement.verb in ("COMMIT", "ROLLBACK")) as ends:
                request = asyncio.create_task(moments.request(client, "POST", "/books"))  # type: ignore[arg-type]
                [end] = await ends.wait_for()
                await asyncio.wait({request}, timeout=0.1)
                when = "before" if request.done() else "after"
                await asyncio.sleep(0.02)  # so that the two moments are apart in the picture
                moments.note(f"{end.verb} released")
            response = await request
            await db.wire.wait_idle(strict=False)
    return seen, moments, f"the response ({response.status}) arrived {when} the {end.verb}"


async def hold_queries(db: Database, work: Coroutine[Any, Any, Any]) -> tuple[Recording, Moments, int]:
    """Runs `work`, holds what it asks for 300 ms, and says how many queries it has sent by then."""
    moments = Moments()
    with db.wire.watching() as seen:
        moments.note("start")
        async with db.wire.hold(lambda statement: statement.data) as queries:
            working = asyncio.create_task(work)
            together = await queries.count_within(100, 0.3)
            moments.note("released")
        await working
        moments.note("figures there")
    return seen, moments, together


async def _warm_up(db: Database, client: Client) -> None:
    """Opens the connection and makes the app ready, so that the pictures show the request alone."""
    async with db.engine.connect():
        await client.request("GET", "/")
    await db.wire.wait_idle(strict=False)
