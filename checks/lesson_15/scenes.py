"""What the notebook of lesson 15 needs besides its subject: two shops, sessions of each role, pictures."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from checks.kit.notebook import RunningApp, run_app
from checks.lesson_15.hosted import NOBODYS, Hosted, turn

if TYPE_CHECKING:
    import asyncpg

    from checks.kit.service.app import Response

COLORS = {"A": "#2c5fa8", "B": "#e08a1e", "A+B": "#c0352c", "": "#e3e6ea"}

MANY_SHOPS = """
    INSERT INTO shops (name, host) SELECT 'Shop ' || n, 'shop' || n || '.example' FROM generate_series(1, 50) AS n;
    INSERT INTO authors (name, shop_id) SELECT 'Author of ' || name, id FROM shops WHERE host LIKE 'shop%';
    INSERT INTO books (isbn, title, author_id, price_cents, attributes, shop_id)
        SELECT 'n' || n, 'Title ' || n % 700, a.id, 900, jsonb_build_object('shelf', n % 500), a.shop_id
          FROM generate_series(1, 20000) AS n
          JOIN (SELECT id, shop_id, row_number() OVER (ORDER BY id) AS r FROM authors WHERE name LIKE 'Author of%') AS a
            ON a.r = 1 + n % 50;
"""


@asynccontextmanager
async def two_shops(target: str = "solutions") -> AsyncIterator[tuple[RunningApp, Hosted, Hosted]]:
    """An app with one connection, and two shops: A with four books, B with five others."""
    async with run_app(15, target, env={"DATABASE_CONNECTIONS": "1"}) as running:
        shops = await turn(running.shop, {"A": 23, "B": 7}, books=4, customers=3)
        yield running, shops["A"], shops["B"]


async def whose(responses: Mapping[str, Response], a: Hosted, b: Hosted) -> dict[str, str]:
    """For each response whose rows it shows: A, B, A+B, or nobody's."""
    found = {}
    for name, response in responses.items():
        text = response.text if response.status < 400 else ""
        found[name] = "+".join(one.name for one in (a, b) if one.seen_in(text))
    return found


async def turns(target: str) -> dict[str, str]:
    """Whose rows requests show that follow one another on one connection."""
    async with two_shops(target) as (s, a, b):
        nobody = {"Host": NOBODYS}
        mine = await a.log_in(s.app)
        too_many = {"lines": [{"book_id": a.book, "quantity": 1000}]}
        sent = {}
        for name, send in {
            "A": lambda: s.app.get("/books", headers=a.visit),
            "nobody": lambda: s.app.get("/books", headers=nobody),
            "B": lambda: s.app.get("/books", headers=b.visit),
            "nobody again": lambda: s.app.get("/books", headers=nobody),
            "A's order fails": lambda: s.app.post("/orders", json=too_many, headers=mine),
            "nobody, after it": lambda: s.app.get("/books", headers=nobody),
            "B, then A's export": lambda: _after(s, b, "/export/books.csv", a.visit),
            "A's sales": lambda: s.app.get("/reports/sales", headers=a.visit),
            "A, B's receipt": lambda: s.app.get(f"/receipts/{b.receipt}", headers=a.visit),
        }.items():
            sent[name] = await send()
        return await whose(sent, a, b)


async def _after(s: RunningApp, before: Hosted, path: str, headers: dict[str, str]) -> Response:
    await s.app.get("/books", headers=before.visit)
    return await s.app.get(path, headers=headers)


def turns_picture(found: Mapping[str, Mapping[str, str]]) -> Any:
    """One connection from left to right: whose rows each request was shown."""
    import matplotlib.pyplot as plt

    names = list(next(iter(found.values())))
    figure, axes = plt.subplots(figsize=(11, 0.9 * len(found) + 1.6))
    for row, (label, seen) in enumerate(found.items()):
        axes.text(-0.62, -row, label, ha="right", va="center", fontweight="bold")
        axes.plot([-0.5, len(names) - 0.5], [-row, -row], color="#8a919b", lw=1, zorder=0)
        for column, name in enumerate(names):
            shown = seen[name]
            axes.add_patch(plt.Rectangle((column - 0.42, -row - 0.3), 0.84, 0.6, color=COLORS[shown]))
            color = "white" if shown else "#555555"
            axes.text(column, -row, shown or "nothing", ha="center", va="center", color=color, fontsize=9)
    for column, name in enumerate(names):
        axes.text(column, 0.55, name.replace(", ", ",\n").replace("'s ", "'s\n"), ha="center", va="bottom", fontsize=8)
    axes.set_xlim(-1.6, len(names) - 0.4)
    axes.set_ylim(-len(found) + 0.4, 1.5)
    axes.set_title("One connection, from left to right: whose rows does each request read?", fontsize=10)
    axes.axis("off")
    plt.close(figure)
    return figure


async def session(s: RunningApp, role: str) -> asyncpg.Connection[Any]:
    """A connection as "app", "owner" or "superuser", not through the proxy."""
    import asyncpg

    database, address = s.testbed.database, s.testbed.login(s.testbed.database).address
    if role == "superuser":
        return database.admin
    login = database.app if role == "app" else database.login
    assert login is not None
    return await asyncpg.connect(
        host=address.host, port=address.port, user=login.role, password=login.password, database=database.name,
        ssl=address.tls or False, statement_cache_size=0,
    )  # fmt: skip


async def answer(connection: asyncpg.Connection[Any], sql: str, *values: object) -> str:
    """What PostgreSQL says: the first value, or the SQLSTATE and the message of its error."""
    import asyncpg

    try:
        return repr(await connection.fetchval(sql, *values))
    except asyncpg.PostgresError as error:
        return f"{error.sqlstate}: {str(error).splitlines()[0]}"


async def in_shop(connection: asyncpg.Connection[Any], shop_id: int, sql: str, *values: object) -> str:
    """The same, in a transaction that has entered a shop, and that is rolled back."""
    transaction = connection.transaction()
    await transaction.start()
    await connection.execute("SELECT set_config('app.shop_id', $1, true)", str(shop_id))
    said = await answer(connection, sql, *values)
    await transaction.rollback()
    return said


async def plan(connection: asyncpg.Connection[Any], shop_id: int, sql: str) -> tuple[int, str]:
    """The blocks that a query touches in a shop, and the steps that read a table or an index. The second run counts."""
    async with connection.transaction():
        await connection.execute("SELECT set_config('app.shop_id', $1, true)", str(shop_id))
        for _ in range(2):
            raw = await connection.fetchval(f"EXPLAIN (ANALYZE, BUFFERS, TIMING OFF, FORMAT JSON) {sql}")
    root = json.loads(raw)[0]["Plan"]
    return root["Shared Hit Blocks"] + root["Shared Read Blocks"], ", ".join(_scans(root))


def _scans(node: Mapping[str, Any]) -> list[str]:
    below = [scan for child in node.get("Plans", ()) for scan in _scans(child)]
    name = node.get("Index Name") or node.get("Relation Name")
    return [f"{node['Node Type']} {name}", *below] if "Scan" in node["Node Type"] and name else below


def blocks_picture(found: Mapping[str, tuple[int, str]]) -> Any:
    """Bars of blocks."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(9, 0.5 * len(found) + 0.8))
    names = list(found)
    bars = axes.barh(names, [blocks for blocks, _ in found.values()], color=COLORS["A"])
    axes.bar_label(bars, labels=[f"{blocks:,}  {how}" for blocks, how in found.values()], fontsize=8, padding=3)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.9 * max(blocks for blocks, _ in found.values()))
    axes.set_xlabel("blocks of 8 kB")
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    plt.close(figure)
    return figure
