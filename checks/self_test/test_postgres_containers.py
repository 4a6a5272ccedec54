"""The servers of compose.yaml and of a container of one's own."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from checks.kit.postgres import PostgresUnavailable, Server, find


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
async def listening(server: Server) -> AsyncIterator[int]:
    """A TCP port that leads to the live server, as a published port leads into a container."""
    from checks.kit.wire import open_proxy

    admin = await server.connect()
    if not await admin.fetchval("SELECT rolsuper FROM pg_roles WHERE rolname = current_user"):
        await admin.close()
        pytest.skip("making the role of compose.yaml needs a superuser")
    if await admin.fetchval("SELECT 1 FROM pg_roles WHERE rolname = 'bookshop'"):
        await admin.close()
        pytest.skip("this server has a role bookshop of its own")
    await admin.execute("CREATE ROLE bookshop LOGIN SUPERUSER PASSWORD 'bookshop'")
    await admin.execute("CREATE DATABASE bookshop OWNER bookshop")
    try:
        async with open_proxy(server.address) as wire:
            yield wire.port
    finally:
        await admin.execute("DROP DATABASE bookshop WITH (FORCE)")
        await admin.execute("DROP ROLE bookshop")
        await admin.close()


async def compose(root: Path, **environ: str) -> Server:
    return await asyncio.to_thread(find, root, {"WORKBOOK_POSTGRES": "compose", **environ})


async def test_compose_is_found_where_compose_itself_would_put_it(listening: int, tmp_path: Path) -> None:
    server = await compose(tmp_path, WORKBOOK_POSTGRES_PORT=str(listening))
    assert "compose.yaml" in server.summary
    (tmp_path / ".env").write_text(f"# ours\nWORKBOOK_POSTGRES_PORT='{listening}'\n")
    assert (await compose(tmp_path)).address.port == listening
    (tmp_path / ".env").write_text(f"WORKBOOK_POSTGRES_PORT={free_port()}\n")
    assert (await compose(tmp_path, WORKBOOK_POSTGRES_PORT=str(listening))).address.port == listening


async def test_compose_that_is_not_up(tmp_path: Path) -> None:
    with pytest.raises(PostgresUnavailable, match="docker compose up -d --wait"):
        await compose(tmp_path, WORKBOOK_POSTGRES_PORT=str(free_port()))


def test_no_docker_engine(tmp_path: Path) -> None:
    code = (
        "from pathlib import Path; from checks.kit.postgres import PostgresUnavailable, find\n"
        "try: find(Path('.'), {'WORKBOOK_POSTGRES': 'docker'})\n"
        "except PostgresUnavailable as error: print(error)"
    )
    environ = {**os.environ, "DOCKER_HOST": f"unix://{tmp_path}/nowhere.sock"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environ, cwd=tmp_path, check=True
    )
    assert "no Docker engine responds" in done.stdout
    assert "unset WORKBOOK_POSTGRES" in done.stdout


def engine() -> bool:
    from docker import DockerClient
    from docker.errors import DockerException

    try:
        client = DockerClient.from_env()
        client.ping()
        client.close()
    except DockerException:
        return False
    return True


@pytest.mark.docker
async def test_a_container_of_our_own() -> None:
    if not await asyncio.to_thread(engine):
        pytest.skip("no Docker engine responds")
    server = await asyncio.to_thread(find, Path(), {"WORKBOOK_POSTGRES": "docker"})
    try:
        assert "container" in server.summary
        async with server.database("CREATE TABLE t (id int)", "test") as database:
            assert await database.admin.fetchval("SHOW fsync") == "off"
            url = urlsplit(database.url(server.address.host, server.address.port))
            assert url.username == database.role
    finally:
        await asyncio.to_thread(server.close)
    with pytest.raises((OSError, EOFError)):
        await server.connect()
