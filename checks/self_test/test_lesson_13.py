"""The release that is in production in lesson 13, and its database: both are what lesson 12's solution is."""

from __future__ import annotations

from checks.kit.lessons.lesson import find_lesson
from checks.kit.lessons.original import handed_out
from checks.kit.testbed.releases import release_folder
from checks.kit.testbed.runtime import Runtime
from checks.kit.testbed.testbed import Testbed, open_testbed
from checks.lesson_05.catalog import catalog, differences
from checks.lesson_13 import old_release

PRODUCTION = find_lesson(13).checks_folder / "production.sql"


def test_the_old_release_is_solution_12() -> None:
    assert old_release.tree() == old_release.wanted(), "type: uv run python -m checks.lesson_13.old_release"


async def test_production_has_the_tables_of_solution_12(runtime: Runtime) -> None:
    before, lesson = find_lesson(12), find_lesson(13)
    async with open_testbed(runtime, before, before.solution) as testbed:
        made = await catalog_of(testbed)
    async with open_testbed(runtime, lesson, lesson.solution) as testbed:
        await testbed.fill(PRODUCTION)
        assert differences(made, await catalog_of(testbed), ("solution 12", "production.sql")) == []
        assert await testbed.database.admin.fetchval("SELECT version_num FROM alembic_version") == "0013"


async def test_a_database_that_was_replaced_is_free_at_once(runtime: Runtime) -> None:
    lesson = find_lesson(13)
    async with open_testbed(runtime, lesson, lesson.solution) as testbed:
        replaced = testbed.database
        await testbed.fill(PRODUCTION)
        async with open_testbed(runtime, lesson, lesson.solution) as another:
            assert another.database is replaced is not testbed.database
            await another.fill(PRODUCTION)
    assert await (await runtime.databases(lesson, lesson.solution)).fresh() is replaced


async def test_a_release_serves_beside_the_app(runtime: Runtime) -> None:
    lesson = find_lesson(13)
    async with open_testbed(runtime, lesson, lesson.solution) as testbed:
        await testbed.fill(PRODUCTION)
        old = await testbed.launch(folder=old_release.folder(), called="the old release")
        assert (await old.get("/books?limit=1")).ok
        assert old.process.name == "the old release"
        assert {statement.process for statement in testbed.seen.data_statements} == {"the old release"}


async def test_a_database_for_a_person_has_the_rows_that_its_tables_take(runtime: Runtime) -> None:
    """As handed out, the migrations end with orders that need a public id, which nothing gives them."""
    lesson = find_lesson(13)
    async with open_testbed(runtime, lesson, lesson.solution, filled=True) as testbed:
        assert await counts_of(testbed) == (12, 6)
    as_handed_out = handed_out(lesson)
    async with open_testbed(runtime, lesson, release_folder("test", as_handed_out), filled=True) as testbed:
        assert await counts_of(testbed) == (12, 0)


async def counts_of(testbed: Testbed) -> tuple[int, int]:
    books, orders = await testbed.database.admin.fetchrow(
        "SELECT (SELECT count(*) FROM books), (SELECT count(*) FROM orders)"
    ) or (0, 0)
    return books, orders


def test_a_release_is_written_once() -> None:
    tree = {"app/__init__.py": b"", "app/main.py": b"# nothing\n"}
    folder = release_folder("test", tree)
    assert release_folder("test", tree) == folder != release_folder("test", {"app/__init__.py": b""})
    assert (folder / "app/main.py").read_bytes() == b"# nothing\n"
    assert not list(folder.parent.glob("draft_*"))


async def catalog_of(testbed: Testbed) -> object:
    from checks.kit.testbed.shop import Shop

    return await catalog(Shop(testbed.database))
