"""The PgBouncer of a lesson: both of its sides, its console, restarts, and what is said where it cannot run."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from dataclasses import replace

import asyncpg
import psutil
import pytest

from checks.kit.lessons.errors import WorkbookError
from checks.kit.lessons.lesson import find_lesson
from checks.kit.postgres import PostgresUnavailable
from checks.kit.testbed import pgbouncer as module
from checks.kit.testbed.runtime import Runtime
from checks.kit.testbed.testbed import Testbed

LESSON = replace(find_lesson(15), pgbouncer={"pool_mode": "transaction", "default_pool_size": "2"})


@pytest.fixture
async def testbed(runtime: Runtime) -> AsyncIterator[Testbed]:
    async with Testbed(runtime, LESSON, LESSON.solution) as testbed:
        yield testbed


async def connect(testbed: Testbed) -> asyncpg.Connection:
    return await asyncpg.connect(testbed.url.replace("+asyncpg", ""), statement_cache_size=0)


async def test_four_clients_share_two_connections_to_postgres(testbed: Testbed) -> None:
    clients = [await connect(testbed) for _ in range(4)]
    with testbed.server_side.watching() as behind:
        for _ in range(2):
            await asyncio.gather(*(client.fetchval("SELECT 1") for client in clients))
        pids = {await client.fetchval("SELECT pg_backend_pid()") for client in clients}
    assert len(pids) <= 2
    assert len(testbed.seen.data_statements) == len(behind.data_statements) == 12
    assert len({one.connection for one in testbed.seen.data_statements}) == 4
    assert len({one.connection for one in behind.data_statements}) <= 2
    assert {one.process for one in behind.data_statements} == {"PgBouncer"}
    pools = {row["user"]: row for row in await testbed.pgbouncer.command("SHOW POOLS")}
    assert pools[testbed.database.role]["cl_active"] == 4
    for client in clients:
        await client.close()


async def test_a_verdict_shows_what_it_wrote_after_its_start(testbed: Testbed) -> None:
    title = "What PgBouncer wrote"
    assert [section.lines for section in testbed.evidence() if section.title == title] == [[]]
    await (await connect(testbed)).close()
    [section] = [section for section in testbed.evidence() if section.title == title]
    assert any("login attempt" in line.text for line in section.lines)


LOOK = """
import asyncio, asyncpg, os, sys

async def main():
    connection = await asyncpg.connect(os.environ[sys.argv[1]].replace("+asyncpg", ""), statement_cache_size=0)
    print(await connection.fetchval("SELECT count(*) FROM alembic_version"))
    await connection.close()

asyncio.run(main())
"""


async def test_a_process_reaches_it_and_what_is_behind_it(testbed: Testbed) -> None:
    with testbed.server_side.watching() as behind:
        past = await testbed.command("-c", LOOK, "DIRECT_DATABASE_URL")
        assert past.output.strip() == "1"
        assert not testbed.seen.statements
        look = LOOK.replace("count(*) FROM alembic_version", "1")
        as_app = await testbed.command("-c", look, "DIRECT_APP_DATABASE_URL")
        assert as_app.output.strip() == "1"
        assert testbed.database.app is not None
        assert testbed.database.app.role in {one.parameters["user"] for one in testbed.server_side.closed}
        assert behind.data_statements
        assert "PgBouncer" not in {one.process for one in behind.data_statements}
        through = await testbed.command("-c", LOOK, "DATABASE_URL")
        assert through.output.strip() == "1"
        assert testbed.seen.data_statements
        assert "PgBouncer" in {one.process for one in behind.data_statements}


@pytest.mark.parametrize("kill", [False, True])
async def test_a_restart_ends_the_connections_and_keeps_the_address(testbed: Testbed, kill: bool) -> None:
    before = await connect(testbed)
    await before.fetchval("SELECT 1")
    await testbed.pgbouncer.restart(kill=kill)
    with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, OSError)):
        await before.fetchval("SELECT 1")
    after = await connect(testbed)
    assert await after.fetchval("SELECT 1") == 1
    await after.close()


async def test_its_process_and_its_folder_go_with_the_testbed(runtime: Runtime) -> None:
    async with Testbed(runtime, LESSON, LESSON.solution) as testbed:
        [process] = [one for one in psutil.process_iter(["name"]) if one.info["name"] == "pgbouncer"
                     and testbed.pgbouncer.address.host == one.cwd()]  # fmt: skip
        assert testbed.pgbouncer.version >= (1, 18)
    assert not process.is_running()
    assert not list(runtime.scratch.glob("pgbouncer-*"))


async def test_a_wrong_setting_is_said_with_its_words(runtime: Runtime) -> None:
    lesson = replace(LESSON, pgbouncer={"pool_mode": "never"})
    with pytest.raises(WorkbookError, match=r"PgBouncer did not start. It said: (.|\n)*pool_mode"):
        async with Testbed(runtime, lesson, lesson.solution):
            pass


async def test_without_pgbouncer_the_next_step_is_named(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PLACES", ())
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    with pytest.raises(PostgresUnavailable, match="apt-get install pgbouncer"):
        async with Testbed(runtime, LESSON, LESSON.solution):
            pass


def test_one_that_keeps_track_of_prepared_statements_does_not() -> None:
    assert "max_prepared_statements" not in module.defaults((1, 18))
    assert module.defaults((1, 24))["max_prepared_statements"] == "0"
