"""What the notebook of lesson 12 needs besides its subject: copies of large tables, maps of pages, batches, keys."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from checks.kit.notebook import RunningApp, run_app
from checks.lesson_12.at_once import both_before_either_writes

if TYPE_CHECKING:
    from checks.kit.testbed.plan import Plan
    from checks.kit.testbed.shop import Shop

BLUE, RED, GREY = "#2c5fa8", "#c0352c", "#e3e6ea"


@asynccontextmanager
async def open_shop(target: str = "lessons", books: int = 2) -> AsyncIterator[tuple[RunningApp, list[int]]]:
    """A shop of yours (`lessons`) or of the solution (`solutions`), and the ids of its books."""
    async with run_app(12, target) as running:
        yield running, (await running.shop.seed(books=books)).books


async def two_at_once(running: RunningApp, method: str, path: str, *bodies: Mapping[str, Any]) -> list[int]:
    """Two requests of which each has read before either writes; their statuses."""
    sends = [lambda body=body: running.app.start_request(method, path, json=body) for body in bodies]
    return [one.status for one in await both_before_either_writes(running.wire, running.shop, *sends)]


async def copy_tables(shop: Shop) -> None:
    """Copies of the large tables without indexes: `catalogue`, `tills` in no order, and `tills_in_order`."""
    for sql in (
        "SET timezone = 'UTC'",
        "SET max_parallel_workers_per_gather = 0; SET synchronize_seqscans = off",  # or the order of rows is by chance
        "CREATE TABLE catalogue AS SELECT * FROM books",
        "CREATE TABLE tills AS SELECT id, till, sold_at::timestamptz, cents FROM receipts",
        "CREATE TABLE tills_in_order AS SELECT * FROM tills ORDER BY sold_at",
        "VACUUM (ANALYZE) catalogue, tills, tills_in_order",
        "GRANT SELECT ON ALL TABLES IN SCHEMA public TO PUBLIC",  # EXPLAIN runs as the role of the app
    ):
        await shop.execute(sql)


async def pages(shop: Shop, name: str) -> int:
    """Pages of 8 kB of a table or an index."""
    return int(await shop.value("SELECT pg_relation_size($1::text::regclass) / 8192", name))


def read_by(plan: Plan) -> str:
    """The steps of a plan that read a table or an index."""
    return ", ".join(dict.fromkeys(node.kind for node in plan.nodes if "Scan" in node.kind))


async def answer(shop: Shop, sql: str) -> str:
    """What PostgreSQL says to a statement: how many rows it has changed, or the SQLSTATE of its error."""
    import asyncpg

    try:
        return str(await shop.database.admin.execute(sql))
    except asyncpg.PostgresError as error:
        return f"{error.sqlstate} {str(error)[:90]}"


async def touched(shop: Shop, table: str, condition: str, per_range: int = 0) -> list[int]:
    """For each page of a table: 2 if a row on it matches, 1 if BRIN makes PostgreSQL read it all the same, else 0.

    `per_range` is how many pages BRIN keeps one summary for; 0 for an index that knows the rows.
    """
    size = await pages(shop, table)
    page = "(ctid::text::point)[0]::int"
    matching = {
        row["page"] for row in await shop.rows(f"SELECT DISTINCT {page} AS page FROM {table} WHERE {condition}")
    }
    ranges: set[int] = set()
    if per_range:
        summary = f"SELECT {page} / {per_range} AS r, min(sold_at) AS low, max(sold_at) AS high FROM {table} GROUP BY 1"
        edges = f"SELECT min(sold_at) AS low, max(sold_at) AS high FROM {table} WHERE {condition}"
        overlap = f"SELECT r FROM ({summary}) AS s, ({edges}) AS e WHERE s.low <= e.high AND s.high >= e.low"
        ranges = {row["r"] for row in await shop.rows(overlap)}
    return [2 if at in matching else 1 if per_range and at // per_range in ranges else 0 for at in range(size)]


def page_map(maps: Mapping[str, Sequence[int]], width: int = 60) -> Any:
    """Each page of a table as a square: grey if it is not read, pale if it is read for nothing, red if it has a row."""
    import matplotlib.pyplot as plt
    from matplotlib.colors import ListedColormap

    figure, panes = plt.subplots(len(maps), 1, figsize=(9, 1.45 * len(maps)))
    for pane, (name, found) in zip(panes, maps.items(), strict=True):
        rows = [list(found[at : at + width]) for at in range(0, len(found), width)]
        rows[-1] += [-1] * (width - len(rows[-1]))
        pane.imshow(rows, cmap=ListedColormap(["white", GREY, "#e9a29d", RED]), vmin=-1, vmax=2, aspect="auto")
        pane.set_xticks([at - 0.5 for at in range(width + 1)], minor=True)
        pane.set_yticks([at - 0.5 for at in range(len(rows) + 1)], minor=True)
        pane.grid(which="minor", color="white", lw=0.8)
        pane.tick_params(which="both", length=0, labelbottom=False, labelleft=False)
        for spine in pane.spines.values():
            spine.set_visible(False)
        read = sum(state > 0 for state in found)
        pane.set_title(
            f"{name}: {read} of {len(found)} pages are read, {found.count(2)} have a row", fontsize=9, loc="left"
        )
    figure.tight_layout()
    plt.close(figure)
    return figure


async def batch_ways(url: str, rows: int) -> dict[str, int]:
    """INSERT statements that SQLAlchemy sends for so many objects, by who makes the key."""
    from sqlalchemy import BigInteger, Identity, Integer, Uuid, event, func
    from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
    from sqlalchemy.orm import DeclarativeBase, mapped_column

    class Base(DeclarativeBase):
        pass

    def table(name: str, key: Any) -> type[Base]:
        return type(name, (Base,), {"__tablename__": name, "id": key, "cents": mapped_column(Integer)})

    models = {
        "identity": table("by_identity", mapped_column(BigInteger, Identity(), primary_key=True)),
        "gen_random_uuid() in the database": table(
            "by_server_4", mapped_column(Uuid, primary_key=True, server_default=func.gen_random_uuid())
        ),
        "uuidv7() in the database": table(
            "by_server_7", mapped_column(Uuid, primary_key=True, server_default=func.uuidv7())
        ),
        "a UUID made in Python": table("by_client", mapped_column(Uuid, primary_key=True, default=uuid4)),
    }
    engine = create_async_engine(url)
    sent: list[str] = []
    event.listen(engine.sync_engine, "before_cursor_execute", lambda *arguments: sent.append(arguments[2]))
    found = {}
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    for name, model in models.items():
        async with AsyncSession(engine) as session, session.begin():
            session.add_all([model(cents=n) for n in range(rows)])
            sent.clear()
            await session.flush()
            found[name] = sum(one.startswith("INSERT") for one in sent)
    await engine.dispose()
    return found


KEY_KINDS = {
    "bigint": "n",
    "uuidv7": "uuidv7(make_interval(secs => n / 100.0))",
    "random": "md5(n::text)::uuid",  # no order either, as with uuidv4, but the same ones in each run
}


async def key_costs(shop: Shop, rows: int = 100_000, more: int = 1_000) -> dict[str, tuple[int, int]]:
    """For each kind of key: pages of its index with so many rows, and pages that more rows change."""
    found = {}
    for name, expression in KEY_KINDS.items():
        kind = "bigint" if name == "bigint" else "uuid"
        await shop.execute(f"CREATE TABLE {name}_keys (id {kind} PRIMARY KEY)")
        insert = f"INSERT INTO {name}_keys SELECT {expression} FROM generate_series({{}}::bigint, {{}}) AS n"
        await shop.execute(insert.format(1, rows))
        await shop.execute("CHECKPOINT")  # from now on, each page that changes counts once
        explained = await shop.value(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {insert.format(rows + 1, rows + more)}")
        plan = (json.loads(explained) if isinstance(explained, str) else explained)[0]["Plan"]
        found[name] = (await pages(shop, f"{name}_keys_pkey"), plan["Shared Dirtied Blocks"])
    return found


def bars(found: Mapping[str, int], what: str, colors: Sequence[str] = ()) -> Any:
    """A bar with its number for each entry."""
    import matplotlib.pyplot as plt

    figure, pane = plt.subplots(figsize=(8, 0.8 + 0.4 * len(found)))
    pane.barh(range(len(found)), list(found.values()), color=list(colors) or BLUE)
    for y, number in enumerate(found.values()):
        pane.text(number, y, f" {number:,}", va="center", fontsize=9)
    pane.set_yticks(range(len(found)), list(found))
    pane.invert_yaxis()
    pane.set_xlabel(what)
    pane.set_xlim(0, max(found.values()) * 1.15)
    for side in ("top", "right", "left"):
        pane.spines[side].set_visible(False)
    figure.tight_layout()
    plt.close(figure)
    return figure
