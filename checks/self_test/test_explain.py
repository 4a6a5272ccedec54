"""EXPLAIN of what crossed the wire: parameters of every driver and format, plans, and databases with many rows."""

from __future__ import annotations

import asyncio
import json
import struct
import xml.etree.ElementTree as ET
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import asyncpg
import psycopg
import pytest

from checks.kit.grading.run_check import run_check
from checks.kit.lessons.lesson import Lesson, find_lesson
from checks.kit.notebook import Verdicts
from checks.kit.postgres import Database, Server
from checks.kit.postgres.connect import if_free
from checks.kit.postgres.filled import MAX_FILLED, PREFIX
from checks.kit.postgres.templates import template_name
from checks.kit.report import expect
from checks.kit.report.model import Outcome, Report
from checks.kit.report.plan_picture import PlanPicture, svg
from checks.kit.service.app import App
from checks.kit.testbed.explain import Explain, Login, NotExplained
from checks.kit.testbed.plan import Node, Plan, draw, read, statement_lines
from checks.kit.testbed.runtime import Runtime
from checks.kit.testbed.shop import Shop
from checks.kit.wire import Statement, Wire, open_proxy
from checks.kit.wire.bound import Bound, Values

SCHEMA = """
CREATE TYPE color AS ENUM ('red', 'blue');
CREATE TABLE t (n int PRIMARY KEY, k text, color color, added timestamptz, key uuid, data jsonb);
"""
ROWS = """
INSERT INTO t SELECT n, 'k' || n % 1000, 'red', timestamptz '2026-01-01Z' + n * interval '1 min', md5(n || '')::uuid,
                     jsonb_build_object('n', n) FROM generate_series(1, 20000) n;
CREATE INDEX t_k ON t (k);
CREATE INDEX t_blue ON t (n) WHERE color = 'blue';
"""


@pytest.fixture
async def database(server: Server) -> AsyncIterator[Database]:
    async with server.databases(SCHEMA, "explain") as databases:
        yield await databases.filled(ROWS)


@pytest.fixture
async def wire(server: Server) -> AsyncIterator[Wire]:
    async with open_proxy(server.address) as wire:
        yield wire


@pytest.fixture
async def client(database: Database, wire: Wire) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(database.url(wire.host, wire.port, scheme="postgresql"))
    yield connection
    await connection.close(timeout=5)


@pytest.fixture
def explain(database: Database, server: Server, wire: Wire) -> Explain:
    return Explain(Login(database, server.address), wire)


def bind(formats: list[int], values: list[bytes | None], types: bytes = b"") -> Bound:
    """A Bind message without its names, as a client sends it."""
    body = struct.pack(f"!H{len(formats)}h", len(formats), *formats) + struct.pack("!H", len(values))
    for value in values:
        body += struct.pack("!i", -1 if value is None else len(value)) + (value or b"")
    return Bound(types, b"\0\0" + body + b"\0\0", 2)


@pytest.mark.parametrize(
    ("bound", "expected"),
    [
        (bind([], [b"a", None]), Values((0, 0), (0, 0), (b"a", None))),
        (bind([1], [b"a", b""]), Values((0, 0), (1, 1), (b"a", b""))),
        (bind([0, 1], [b"a", b"b"], struct.pack("!HI", 1, 25)), Values((25, 0), (0, 1), (b"a", b"b"))),
        (bind([], []), Values((), (), ())),
        (Bound(b"", bind([0], [b"abc"]).bind[:-4], 2), None),  # it ends inside a value
        (Bound(b"\0\7", bind([0], [b"abc"]).bind, 2), None),  # seven types that are not there
        (bind([0], [b"x" * 70_000]), None),  # longer than what is kept
    ],
)
def test_parameters_are_read_from_the_messages(bound: Bound, expected: Values | None) -> None:
    assert bound.read() == expected


async def test_asyncpg_binds_in_binary(client: asyncpg.Connection, wire: Wire, explain: Explain) -> None:
    with wire.watching() as seen:
        await client.fetch("SELECT * FROM t WHERE k = $1", "k7")
        await client.fetch(
            "SELECT * FROM t WHERE n = ANY($1) AND color = $2 AND added > $3 AND key <> $4 AND data @> $5 AND k > $6",
            [7, 8], "red", datetime(2026, 1, 1, tzinfo=UTC), UUID(int=0), json.dumps({"n": 7}), None,
        )  # fmt: skip
    one, many = await explain.all(seen)
    assert (one.rows, one.parameters, one.indexes) == (20, ("'k7'",), {"t_k"})
    assert 20 <= one.buffers < 30 < one.tables["t"]
    assert many.parameters[:3] == ("'{7,8}'", "'red'", "'2026-01-01 00:00:00+00'")
    assert many.parameters[4:] == ("'{\"n\": 7}'", "NULL")


async def test_psycopg_binds_in_text_or_binary_and_may_send_the_values_in_the_text(
    database: Database, wire: Wire, explain: Explain
) -> None:
    url = database.url(wire.host, wire.port, scheme="postgresql")
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        with wire.watching() as seen:
            await connection.execute("SELECT * FROM t WHERE k = %s AND n < %s", ("k'7", 5000))
            await connection.execute("SELECT * FROM t WHERE k = %b AND n < %b", ("k7", 5000))
            await psycopg.AsyncClientCursor(connection).execute("SELECT * FROM t WHERE k = %s AND n < %s", ("k7", 5000))
            async with connection.transaction(), connection.cursor("many") as cursor:
                await cursor.execute("SELECT * FROM t WHERE k = %s", ("k7",))
                await cursor.fetchmany(2)
    text, binary, in_text, declared = await explain.all(seen)
    assert text.parameters == ("'k''7'", "'5000'")
    assert binary.parameters == ("'k7'", "'5000'")
    assert in_text.parameters == ()
    assert [plan.rows for plan in (text, binary, in_text, declared)] == [0, 5, 5, 20]
    assert binary.buffers == in_text.buffers


async def test_a_prepared_statement_keeps_its_types(client: asyncpg.Connection, wire: Wire, explain: Explain) -> None:
    prepared = await client.prepare("SELECT * FROM t WHERE k = $1")
    with wire.watching() as seen:
        for value in ("k1", "k2"):
            await prepared.fetch(value)
    assert [plan.parameters for plan in await explain.all(seen)] == [("'k1'",), ("'k2'",)]


async def test_a_generic_plan_does_not_know_the_values(
    client: asyncpg.Connection, wire: Wire, explain: Explain
) -> None:
    with wire.watching() as seen:
        await client.fetch("SELECT n FROM t WHERE color = $1", "blue")
    [statement] = seen.data_statements
    plan = await explain(statement)
    assert plan.indexes == {"t_blue"}
    assert plan.buffers < 5
    generic = await explain(statement, generic=True)
    assert generic.indexes == set()  # what the index holds is known only for the value 'blue'
    assert generic.buffers >= generic.tables["t"]
    assert "without the values" in str(generic)


async def test_what_changes_rows_is_rolled_back(client: asyncpg.Connection, wire: Wire, explain: Explain) -> None:
    with wire.watching() as seen:
        await client.execute("INSERT INTO t (n, k) VALUES ($1, 'new')", 30_000)
        await client.execute("UPDATE t SET k = 'newer' WHERE n = $1", 30_000)
    await client.execute("DELETE FROM t WHERE n = 30000")
    insert, update = await explain.all(seen)
    assert (insert.root.kind, update.root.kind, update.indexes) == ("Insert", "Update", {"t_pkey"})
    assert await client.fetchval("SELECT count(*) FROM t") == 20_000


async def test_the_same_statement_touches_the_same_blocks(
    client: asyncpg.Connection, wire: Wire, explain: Explain
) -> None:
    with wire.watching() as seen:
        await client.fetch("SELECT k, count(*) FROM t WHERE data ->> 'n' > $1 GROUP BY k", "5")
    [statement] = seen.data_statements
    assert len({(await explain(statement)).buffers for _ in range(3)}) == 1


async def test_settings_of_the_apps_connection_hold(database: Database, wire: Wire, explain: Explain) -> None:
    settings = {"timezone": "Asia/Tokyo", "enable_indexscan": "off", "enable_bitmapscan": "off"}
    url = database.url(wire.host, wire.port, scheme="postgresql")
    client = await asyncpg.connect(url, server_settings=settings)
    with wire.watching() as seen:
        await client.fetch("SELECT * FROM t WHERE k = $1 AND added > $2", "k7", datetime(2026, 1, 1, tzinfo=UTC))
    await client.close()
    plan = await explain(seen.data_statements[0])
    assert (plan.indexes, plan.parameters[1]) == (set(), "'2026-01-01 09:00:00+09'")


async def test_a_statement_of_ones_own_has_values_too(explain: Explain) -> None:
    plan = await explain.sql("SELECT $3::text FROM t WHERE k = $1 AND data @> $2", "k7", {"n": 7}, None)
    assert plan.parameters == ("'k7'", "'{\"n\": 7}'", "NULL")
    assert await explain.blocks("t") == plan.tables["t"]


@pytest.mark.parametrize(
    ("sql", "why"),
    [
        ("SELECT 1; DELETE FROM t", "cannot insert multiple commands"),
        ("SELECT * FROM missing", "missing"),
        ("CALL missing()", "does not explain"),
    ],
)
async def test_what_cannot_be_explained_is_said(explain: Explain, sql: str, why: str) -> None:
    with pytest.raises(NotExplained, match=why):
        await explain.sql(sql)


async def test_a_hundred_statements_are_explained_and_no_more(
    client: asyncpg.Connection, wire: Wire, explain: Explain
) -> None:
    with wire.watching() as seen:
        for number in range(100):
            await client.fetch("SELECT * FROM t WHERE n = $1", number)
    assert len(await explain.all(seen)) == 100
    with wire.watching() as seen:
        for number in range(101):
            await client.fetch("SELECT * FROM t WHERE n = $1", number)
    with pytest.raises(NotExplained, match=r"sent 101 statements\. The kit explains 100 at most"):
        await explain.all(seen)


async def test_what_was_not_kept_is_said(explain: Explain) -> None:
    with pytest.raises(NotExplained, match="no statement of more than 64 kB"):
        await explain(Statement(1, "SELECT " + "1, " * 30_000 + "1", 0.0))
    with pytest.raises(NotExplained, match="parameters were too long"):
        await explain(Statement(1, "SELECT $1", 0.0, parameters=1))
    with pytest.raises(NotExplained, match="no table nothing"):
        await explain.blocks("nothing")


async def test_a_verdict_shows_the_heaviest_plan_of_the_last_call(
    client: asyncpg.Connection, wire: Wire, explain: Explain
) -> None:
    assert explain.statements() == explain.plans() == []
    with wire.watching() as seen:
        await client.fetch("SELECT * FROM t WHERE n = $1", 7)
        await client.fetch("SELECT * FROM t WHERE data ->> 'n' = $1", "7")
    await explain.all(seen)
    assert explain.statements() == ["SELECT * FROM t WHERE data ->> 'n' = $1", "$1 = '7'"]
    plan = [*map(str, explain.plans())]
    assert len(plan) == 6
    assert plan[1].startswith("Seq Scan of t")
    assert plan[3].strip() == "read and dropped: 19,999 rows"
    assert plan[5] == "1 other statement touched 3 blocks."


# -- as fixtures of a check


@pytest.fixture
def large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The large.sql of a lesson, with 2,000 books."""
    script = tmp_path / "large.sql"
    script.write_text(
        "INSERT INTO authors (name) VALUES ('Ann'); INSERT INTO books (isbn, title, author_id, price_cents) "
        "SELECT n, 'Title ' || n, (SELECT max(id) FROM authors), 900 FROM generate_series(1, 2000) n"
    )
    monkeypatch.setattr(Lesson, "large", script)
    return script


async def a_check(app: App, explain: Explain, wire: Wire, shop: Shop, large: Shop) -> None:
    """`GET /books/{id}` touches less than no block"""
    books = await large.count("books")
    assert books == await shop.count("books") == 2000
    with wire.watching() as seen:
        assert (await app.get(f"/books/{await shop.value('SELECT max(id) FROM books')}")).ok
    plans = await explain.all(seen)
    expect(not sum(plan.buffers for plan in plans), "It touches blocks.", because="x")


@pytest.mark.usefixtures("large")
async def test_a_verdict_has_the_statement_and_its_plan(runtime: Runtime) -> None:
    lesson = find_lesson(3)
    result = await run_check(a_check, runtime, lesson, lesson.solution)
    assert (result.outcome, result.finding and result.finding.happened) == (Outcome.FAILED, "It touches blocks.")
    assert "the shop holds the rows of " in result.steps[0]
    sections = {section.title: [line.text for line in section.lines] for section in result.evidence}
    assert "FROM books" in " ".join(sections["The statement that was explained"])
    plan = sections["Its plan, and the blocks that each step touched"]
    assert any("-> Index Scan of books by books_pkey" in line or "Index Scan of books by" in line for line in plan)
    assert plan[-1].startswith("In all ")
    text = repr(Verdicts(Report(3, "", "solutions", results=[result]), ""))
    assert max(map(len, text.splitlines())) <= 80


async def test_rows_that_a_learners_tables_do_not_take_fail_the_check(runtime: Runtime, large: Path) -> None:
    large.write_text("INSERT INTO authors (name) VALUES (NULL)")
    lesson = find_lesson(3)
    result = await run_check(a_check, runtime, lesson, lesson.solution)
    assert result.outcome is Outcome.FAILED
    assert result.finding is not None
    assert "do not take the rows of" in result.finding.happened
    assert 'null value in column "name"' in result.finding.happened


# -- plans as data and as text

LEAF = {"Node Type": "Seq Scan", "Relation Name": "books", "Actual Rows": 1.5, "Actual Loops": 4, "Plan Rows": 2,
        "Rows Removed by Filter": 10, "Shared Hit Blocks": 30, "Shared Read Blocks": 10,
        "Filter": "(" + " AND ".join(f"(column_{n} = {n})" for n in range(20)) + ")"}  # fmt: skip
INDEX = {"Node Type": "Bitmap Index Scan", "Index Name": "books_tags", "Actual Rows": 3, "Actual Loops": 1,
         "Plan Rows": 3, "Shared Hit Blocks": 2}  # fmt: skip
ROOT = {"Node Type": "Nested Loop", "Join Type": "Left", "Actual Rows": 6, "Actual Loops": 1, "Plan Rows": 6,
        "Shared Hit Blocks": 40, "Shared Read Blocks": 10, "Plans": [LEAF, INDEX]}  # fmt: skip


def plan_of(raw: dict[str, object]) -> Plan:
    return Plan("SELECT  1\n FROM books", ("'x'",), False, read([{"Plan": raw}]), {"books": 100})


def test_a_plan_is_a_tree_of_numbers() -> None:
    plan = plan_of(ROOT)
    scan, index = plan.root.children
    assert (plan.root.title, scan.title, index.title) == (
        "Nested Loop (Left)",
        "Seq Scan of books ×4",
        "Bitmap Index Scan of books_tags",
    )
    assert (plan.buffers, plan.root.own_buffers, scan.buffers, index.buffers) == (50, 8, 40, 2)
    assert (scan.rows, scan.removed, scan.loops, plan.removed) == (6, 40, 4, 40)  # of all loops
    assert plan.indexes == {"books_tags"}


@pytest.mark.parametrize("width", [75, 100])
def test_a_drawn_plan_fits_the_page(width: int) -> None:
    raw: dict[str, object] = dict(ROOT)
    for _ in range(15):
        raw = {"Node Type": "Aggregate", "Strategy": "Hashed", "Actual Rows": 1_000_000, "Actual Loops": 1,
               "Plan Rows": 1, "Shared Hit Blocks": 1_000_000, "Plans": [raw]}  # fmt: skip
    plan = plan_of(raw)
    lines = draw(plan, width)
    assert max(map(len, lines)) <= width
    text = " ".join(" ".join(lines).split())
    assert "column_19 = 19" in text
    assert text.endswith("In all 1,000,000 blocks of 8 kB. The table books has 100 blocks.")
    assert statement_lines(plan) == ["SELECT 1 FROM books", "$1 = 'x'"]


def test_a_picture_has_all_plans_and_no_markup_of_theirs() -> None:
    evil = Node("<script>", "&", "", 1, 0, 1, 1, 5, (("Filter", "a < b"),), ())
    picture = PlanPicture({"<one>": Plan("", (), False, evil, {"books": 100}), "two": plan_of(ROOT)})
    drawn = ET.fromstring(svg(picture))
    words = "".join(drawn.itertext())
    assert "→ Seq Scan of books ×4, 6 rows" in words
    assert "<script> of &, 1 row" in words
    assert repr(picture).startswith("<one>\n")
    frames = [one.get("width") for one in drawn.iter() if one.get("stroke-dasharray")]
    assert frames == ["296.0", "296.0"]  # both tables have a hundred blocks, more than any plan touches


# -- databases with many rows


async def test_a_filled_database_is_cloned_from_one_that_is_made_once(server: Server) -> None:
    rows = "INSERT INTO t (n) SELECT generate_series(1, 5000); CREATE TABLE loaded AS SELECT clock_timestamp() AS at"
    async with server.databases(SCHEMA, "explain") as databases:
        first, second = await asyncio.gather(databases.filled(rows), databases.filled(rows))
        await first.admin.execute("DELETE FROM t")
        loaded = [await one.admin.fetchval("SELECT at FROM loaded") for one in (first, second)]
        assert loaded[0] == loaded[1]
        facts = "SELECT reltuples, relallvisible = relpages FROM pg_class WHERE relname = 't'"
        assert tuple(await second.admin.fetchrow(facts)) == (5000, True)
        assert await second.admin.fetchval("SELECT count(*) FROM t") == 5000
        await databases.drop(first)
        empty = await databases.fresh()
        assert await empty.admin.fetchval("SELECT count(*) FROM t") == 0
        names = [first.name, second.name]
    admin = await server.connect()
    try:
        assert not await admin.fetch("SELECT FROM pg_database WHERE datname = ANY($1)", names)
    finally:
        await admin.close()


async def test_an_old_one_goes_unless_a_run_uses_it(server: Server) -> None:
    def rows(number: int) -> str:
        return f"INSERT INTO t (n) VALUES ({number})"

    admin = await server.connect()
    try:
        async with server.databases(SCHEMA, "explain") as used:
            names = [
                template_name(f"{used._template}\0{rows(number)}", used._login, PREFIX)
                for number in range(MAX_FILLED + 3)
            ]
            await used.filled(rows(0))
            async with server.databases(SCHEMA, "explain") as databases:
                await databases.filled(rows(1))
            await until_free(admin, names[1])
            async with server.databases(SCHEMA, "explain") as databases:
                for number in range(2, MAX_FILLED + 3):
                    await databases.filled(rows(number))
            there = {name for (name,) in await admin.fetch("SELECT datname FROM pg_database")}
            assert names[0] in there
            assert names[1] not in there
            assert names[-1] in there
            again = await used.filled(rows(1))  # it is made again
            assert await again.admin.fetchval("SELECT n FROM t") == 1
    finally:
        await admin.close()


async def until_free(admin: asyncpg.Connection, template: str) -> None:
    """A connection that was closed ends a little later, and its locks with it."""
    while True:
        async with if_free(admin, template[-16:]) as free:
            if free:
                return
        await asyncio.sleep(0.01)


async def test_a_draft_of_a_run_that_died_goes(server: Server) -> None:
    admin = await server.connect()
    try:
        async with server.databases(SCHEMA, "explain") as databases:
            one = await databases.filled("INSERT INTO t (n) VALUES (1)")
            draft = f"{PREFIX}{'0' * 16}_draft"
            await admin.execute(f'CREATE DATABASE "{draft}" OWNER "{one.role}"')
            await databases.filled(f"-- {draft} {one.name}\nINSERT INTO t (n) VALUES (2)")
        assert not await admin.fetch("SELECT FROM pg_database WHERE datname = $1", draft)
    finally:
        await admin.close()


async def test_tables_that_do_not_take_the_rows_leave_nothing(server: Server) -> None:
    script = "INSERT INTO t (n) VALUES (1), (1)"
    async with server.databases(SCHEMA, "explain") as databases:
        for _ in range(2):
            with pytest.raises(asyncpg.UniqueViolationError):
                await databases.filled(script)
        # by its name: on this server other runs make drafts of their own meanwhile
        left = template_name(f"{databases._template}\0{script}", databases._login, PREFIX)
    admin = await server.connect()
    try:
        assert not await admin.fetch("SELECT FROM pg_database WHERE starts_with(datname, $1)", left)
    finally:
        await admin.close()
