"""The fixtures of lesson 18: the release as it is shipped, a shop with rows, and the services outside."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from checks.kit.testbed.fixtures import fixture
from checks.lesson_15.fixtures import gateway, provider  # noqa: F401  (what is here is a fixture of this lesson)
from checks.lesson_17.fixtures import furnished  # noqa: F401
from checks.lesson_18.running import Release

if TYPE_CHECKING:
    from checks.kit.postgres import Database
    from checks.kit.testbed.testbed import Testbed


@fixture
async def empty_database(testbed: Testbed) -> AsyncIterator[Database]:
    """A database without tables in place of the usual one, for what migrates it."""
    async with without_tables(testbed) as database:
        yield database


@asynccontextmanager
async def without_tables(testbed: Testbed) -> AsyncIterator[Database]:
    """Replaces the database of a testbed by an empty one, until the block ends."""
    before = testbed.database
    nothing = replace(testbed.lesson, migrations=False, schema="none.sql")
    databases = await testbed.runtime.databases(nothing, testbed.folder)
    testbed.database = await databases.fresh()
    testbed.note("the database is empty")
    try:
        yield testbed.database
    finally:
        await databases.drop(testbed.database)
        testbed.database = before


@fixture
async def release(testbed: Testbed) -> AsyncIterator[Release]:
    """What is shipped: `web = await release.web()`, `await release.start("worker")`, as compose.yaml declares them."""
    release = Release(testbed)
    yield release
    await release.close()
