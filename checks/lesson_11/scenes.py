"""What the notebook of lesson 11 needs besides its subject: requests, two drivers, a big catalogue, pictures."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from statistics import median
from typing import TYPE_CHECKING, Any

from checks.kit.lessons.lesson import find_lesson
from checks.kit.lessons.variants import variant_path
from checks.kit.notebook import RunningApp, run_app
from checks.lesson_11.described import Document
from checks.lesson_11.members import stocked
from checks.lesson_11.refused import refused_everywhere, refused_here

if TYPE_CHECKING:
    from checks.kit.testbed.rows import Seeded
    from checks.kit.testbed.shop import Shop

BLUE, RED, GREY = "#2c5fa8", "#c0352c", "#b8bec8"

BIG_CATALOGUE = """
    INSERT INTO books (isbn, title, author_id, price_cents, created_at)
    SELECT lpad(n::text, 13, '0'), 'Book ' || n, {author}, 900, timestamptz '2026-01-01' + n / 7 * interval '1 minute'
      FROM generate_series(1, {count}) AS n;
    VACUUM ANALYZE books
"""


@asynccontextmanager
async def open_shop(target: str = "lessons", books: int = 5) -> AsyncIterator[tuple[RunningApp, Seeded]]:
    """A shop of yours (`lessons`), of the solution (`solutions`), or of a variant; the ids of its rows."""
    async with run_app(11, target) as running:
        yield running, await stocked(running.shop, books)


def variants_there(**named: str) -> dict[str, str]:
    """Those of these variants that there are, by what to call them; a checkout for learners has none."""
    lesson = find_lesson(11)
    there = {name: variant for name, variant in named.items() if variant_path(lesson, variant).is_file()}
    return {name.replace("_", " "): variant for name, variant in there.items()} if lesson.solution.is_dir() else {}


async def edits(running: RunningApp, book: int, changes: Sequence[dict[str, Any]]) -> list[tuple[str, int, Any, Any]]:
    """For each change of a book with a subtitle: the body, the status, and what title and subtitle are afterwards."""
    found = []
    for change in changes:
        await running.shop.execute("UPDATE books SET title = 'Old', subtitle = 'A Novel' WHERE id = $1", book)
        response = await running.app.patch(f"/books/{book}", json=change, headers={"If-Match": "*"})
        [row] = await running.shop.rows("SELECT title, subtitle FROM books WHERE id = $1", book)
        found.append((json.dumps(change), response.status, row["title"], row["subtitle"]))
    return found


async def violations(url: str, driver: str, inserts: Mapping[str, str]) -> AsyncIterator[tuple[str, dict[str, Any]]]:
    """What SQLAlchemy raises for each of these statements, with this driver."""
    from sqlalchemy import text
    from sqlalchemy.exc import DBAPIError
    from sqlalchemy.ext.asyncio import create_async_engine

    engine = create_async_engine(url.replace("+asyncpg", f"+{driver}"), hide_parameters=True)
    try:
        for name, sql in inserts.items():
            try:
                async with engine.begin() as connection:
                    await connection.execute(text(sql))
            except DBAPIError as error:
                yield name, carried(error)
    finally:
        await engine.dispose()


def carried(error: Any) -> dict[str, Any]:
    """What an error of SQLAlchemy carries, wherever the driver keeps it."""
    cause = getattr(error.orig, "diag", None) or error.orig.__cause__
    said = {"class": type(error).__name__, "sqlstate": error.orig.sqlstate}
    for field in ("constraint_name", "column_name"):
        said[field] = getattr(cause, field, None)
    said["text"] = str(error)
    said["detail"] = getattr(cause, "message_detail", None) or getattr(cause, "detail", None)
    return said


async def error_shapes(running: RunningApp, ids: Seeded) -> list[tuple[str, int, str, str]]:
    """Errors from several places: what was asked, the status, the media type, and the members of the body."""
    app = running.app
    new = {"isbn": "9780000000000", "title": "New", "author_id": ids.authors[0], "price_cents": 900}
    responses = [await app.get("/nowhere"), await app.delete("/orders"), await app.get("/books/0")]
    responses += [await app.get(f"/books/{2**40}"), await app.get("/me"), await app.post("/books", json=new)]
    async with running.wire.outage("nothing_listens"):
        responses.append(await app.get(f"/books/{ids.books[0]}"))
    await running.shop.execute("ALTER TABLE authors RENAME TO writers")
    responses.append(await app.get("/authors"))
    await running.shop.execute("ALTER TABLE writers RENAME TO authors")
    found = []
    for response in responses:
        kind = response.headers.get("content-type", "").partition(";")[0]
        members = ", ".join(json.loads(response.text)) if kind.endswith("json") else f"a text: {response.text[:30]}"
        found.append((response.request, response.status, kind, members))
    return found


async def fill_catalogue(shop: Shop, count: int) -> None:
    """So many books, seven of them with each time."""
    author = await shop.add("authors", name="Ann")
    for statement in BIG_CATALOGUE.format(author=author, count=count).split(";"):
        await shop.execute(statement)


async def buffers(shop: Shop, sql: str) -> int:
    """The pages of 8 kB that PostgreSQL reads for a query, from its memory or from the disk."""
    plan = await shop.value(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {sql}")
    top = (json.loads(plan) if isinstance(plan, str) else plan)[0]["Plan"]
    return int(top["Shared Hit Blocks"] + top["Shared Read Blocks"])


def depth_picture(depths: Sequence[int], lines: Mapping[str, Sequence[int]]) -> Any:
    """Pages that PostgreSQL reads for one page of the list, against its depth, both on logarithmic axes."""
    import matplotlib.pyplot as plt

    figure, pane = plt.subplots(figsize=(8, 4))
    for (name, found), color in zip(lines.items(), (RED, BLUE, GREY), strict=False):
        pane.plot(depths, found, marker="o", color=color, lw=2)
        pane.annotate(
            name, (depths[-1], found[-1]), xytext=(8, 0), textcoords="offset points", color=color, va="center"
        )
    pane.set(xscale="log", yscale="log", xlabel="books before this page", ylabel="pages of 8 kB read (buffers)")
    pane.set_title("What 20 books cost, by how far down the list they are", fontsize=11)
    pane.grid(True, which="major", color="#e3e6ea")
    for side in ("top", "right"):
        pane.spines[side].set_visible(False)
    figure.subplots_adjust(right=0.72)
    plt.close(figure)
    return figure


async def walk(running: RunningApp, limit: int, between: Callable[[int], Any] | None = None) -> list[int]:
    """The ids that a walk along the cursors shows. `between` is awaited after each page, with the page's number."""
    shown: list[int] = []
    params: dict[str, Any] = {"limit": limit}
    for page in range(1, 200):
        response = await running.app.get("/books", params=params)
        shown += [book["id"] for book in response["books"]]
        if response["next"] is None:
            return shown
        params["cursor"] = response["next"]
        if between is not None:
            await between(page)
    return shown


async def objections(running: RunningApp, ids: Seeded, header: dict[str, str]) -> list[str]:
    """What is wrong with the document, for each kind of response that comes to requests that must be refused."""
    from checks.kit.testbed.endpoints import Endpoints

    document = Document((await running.app.get("/openapi.json")).json)
    everywhere = Endpoints(running.testbed.lesson.endpoints)(ids, headers=header)
    found = []
    for _, method, path, options, statuses in (*refused_everywhere(everywhere), *refused_here(ids, header)):
        if statuses == (413,) or document.operation(method, path) is None:
            continue
        response = await running.app.request(method, path, **options)
        objection = document.objection(method, path, response)
        found.append(f"{response.status}: {objection}" if objection else "")
    return found


def described_picture(found: Mapping[str, Sequence[str]]) -> Any:
    """How many responses are as described, and how many are not, by status."""
    import matplotlib.pyplot as plt

    figure, pane = plt.subplots(figsize=(8, 0.9 + 0.6 * len(found)))
    for y, (_, each) in enumerate(found.items()):
        good = sum(not one for one in each)
        pane.barh(y, good, color=BLUE)
        pane.barh(y, len(each) - good, left=good, color=RED)
        pane.text(len(each) + 1, y, f"{good} of {len(each)} as described", va="center", fontsize=9)
    pane.set_yticks(range(len(found)), list(found))
    pane.invert_yaxis()
    pane.set_xlim(0, max(len(each) for each in found.values()) * 1.35)
    pane.set_xlabel("responses to requests that are refused")
    for side in ("top", "right", "left"):
        pane.spines[side].set_visible(False)
    figure.tight_layout()
    plt.close(figure)
    return figure


def milliseconds(work: Callable[[], Any], times: int = 15) -> float:
    """The median time of a call."""
    found = []
    for _ in range(times):
        began = time.perf_counter()
        work()
        found.append(time.perf_counter() - began)
    return median(found) * 1000
