"""The fixture of lesson 05: a DATABASE_URL with a password that the server really asks for."""

from __future__ import annotations

import asyncio
import contextlib

import asyncpg

from checks.kit.postgres.connect import Login
from checks.kit.testbed.fixtures import fixture
from checks.kit.wire import protocol
from checks.kit.wire.startup import StartUp

AUTHENTICATION_OK = b"R\x00\x00\x00\x08\x00\x00\x00\x00"
ASK_FOR_PASSWORD = b"R\x00\x00\x00\x08\x00\x00\x00\x03"
"""PostgreSQL's message AuthenticationCleartextPassword."""


@fixture
async def use_password(testbed):
    """Puts a password into DATABASE_URL that the server asks for: `sent = await use_password("a:b")`.

    `sent` grows by each password that the server was sent, as far as that can be seen.
    """
    async with contextlib.AsyncExitStack() as stack:

        async def use(password):
            sent = []
            login = await stack.enter_async_context(testbed.database.another_role(password))
            host, port = testbed.wire.host, testbed.wire.port
            if await _lets_everybody_in(testbed):
                listener = await testbed.listen()
                doorkeeper = _Doorkeeper(host, port, password, sent)
                server = await asyncio.start_server(doorkeeper.serve, sock=listener)
                stack.callback(server.close)
                host, port = listener.getsockname()
            testbed.env["DATABASE_URL"] = testbed.database.url(host, port, login=login)
            return sent

        yield use


async def _lets_everybody_in(testbed):
    """Whether the server accepts any password, as the embedded one of `pytest` does; that of `workbook grade` asks."""
    stranger = Login(testbed.database.role, "not the password")
    try:
        connection = await asyncpg.connect(
            testbed.database.url(testbed.wire.host, testbed.wire.port, "postgresql", login=stranger), ssl=False
        )
    except (OSError, asyncpg.PostgresError):  # OSError: in a sandbox, from which only its own processes reach the proxy
        return False
    await connection.close()
    return True


class _Doorkeeper:
    """Stands before a server that lets everybody in, and asks for the password."""

    def __init__(self, host, port, password, sent):
        self._host, self._port, self._password, self._sent = host, port, password, sent

    async def serve(self, client, to_client):
        """Serves one connection of a client to its end."""
        with contextlib.suppress(OSError, EOFError, ValueError):  # the client or the server has left
            await self._serve(client, to_client)
        to_client.close()

    async def _serve(self, client, to_client):
        start_up, start = StartUp(lambda: to_client.write(b"N")), None
        while start is None:
            if not (data := await client.read(65536)):
                return
            start = start_up.read(data)
        server, to_server = await asyncio.open_connection(self._host, self._port)
        try:
            to_server.write(start.raw + start.rest)
            if not start.is_cancel and not await self._let_in(client, to_client, server):
                return
            # when one side ends, the other one has nothing to wait for
            ways = [asyncio.ensure_future(_pass_on(*way)) for way in ((client, to_server), (server, to_client))]
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            for way in ways:
                way.cancel()
        finally:
            to_server.close()

    async def _let_in(self, client, to_client, server):
        first = await server.readexactly(len(AUTHENTICATION_OK))
        if first == AUTHENTICATION_OK:
            to_client.write(ASK_FOR_PASSWORD)
            kind, length = await client.readexactly(1), int.from_bytes(await client.readexactly(4))
            sent = (await client.readexactly(length - 4)).rstrip(b"\0").decode(errors="replace")
            self._sent.append(sent)
            if kind != b"p" or sent != self._password:
                to_client.write(protocol.error_message("FATAL", "28P01", "password authentication failed"))
                await to_client.drain()
                return False
        to_client.write(first)
        return True


async def _pass_on(reader, writer):
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
