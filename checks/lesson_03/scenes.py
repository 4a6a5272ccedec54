"""What the notebook of lesson 03 needs for its section about OFFSET: a large catalogue, and a walk through it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from checks.kit.notebook import plan_picture
from checks.kit.report.plan_picture import PlanPicture

if TYPE_CHECKING:
    from sqlalchemy import Select
    from sqlalchemy.ext.asyncio import AsyncSession

    from checks.kit.notebook import CommandLine

CATALOGUE = """
    INSERT INTO books (isbn, title, author_id, price_cents)
    SELECT '977' || n, 'Title ' || md5((n / 3)::text), (SELECT min(id) FROM authors), 900
      FROM generate_series(1, $1) AS n
"""
"""Three books with each title, in no order."""

NextPage = Callable[[Any, int], "Select[Any]"]
"""The query of a page: of the last book on the page before, None for the first page, and the number of pages before."""


async def many_books(s: CommandLine, count: int) -> None:
    """Adds so many books, and an index on the columns by which the catalogue is sorted."""
    await s.shop.execute(CATALOGUE, count)
    await s.shop.execute("CREATE INDEX books_title_id ON books (title, id)")
    await s.shop.settle()


async def turn_all_pages(session: AsyncSession, s: CommandLine, next_page: NextPage) -> PlanPicture:
    """Turns pages until one shows no book that is new. Prints what was seen, and draws the plans of three pages."""
    books = await s.shop.count("books")
    shown: list[int] = []
    statements = []
    last = None
    while len(shown) <= 2 * books:
        query = next_page(last, len(statements))
        with s.wire.watching() as seen:
            page = list(await session.scalars(query))
        [statement] = seen.data_statements
        statements.append(statement)
        before = len(set(shown))
        shown += [book.id for book in page]
        if len(set(shown)) == before:
            break
        last = page[-1]
    pages = len(statements) - 1  # the last one showed nothing new
    print(f"{len(set(shown)):,} of {books:,} books seen, {len(shown) - len(set(shown)):,} twice")  # noqa: T201
    plans = {}
    for number in sorted({min(2, pages), max(pages // 2, 1), pages}):
        plans[f"page {number}"] = await s.explain(statements[number - 1])
    touched = {name: plan.buffers for name, plan in plans.items()}
    print(f"blocks: {touched}")  # noqa: T201
    return plan_picture(plans)
