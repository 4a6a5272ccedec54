"""What the notebook of lesson 08 works with: transactions run step by step, strategies under load, and pictures."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import jwt
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from checks.kit.lessons.lesson import find_lesson
from checks.kit.notebook import run_app
from checks.kit.testbed.shop import Shop

LEVELS = ("READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE")
FIRST, SECOND, ROW, BAD = "#1f6f8b", "#b5651d", "#555555", "#c0352c"


class Base(DeclarativeBase):
    pass


class Book(Base):
    """Those columns of a book that the notebook needs."""

    __tablename__ = "books"

    id: Mapped[int] = mapped_column(primary_key=True)
    stock: Mapped[int]
    revision: Mapped[int]


@dataclass(frozen=True, slots=True)
class Lab:
    """A live database: an engine, sessions, the ids of its books and customers, and the shop's rows."""

    engine: AsyncEngine
    sessions: async_sessionmaker[Any]
    books: list[int]
    customers: list[int]
    shop: Shop

    async def stock(self, book: int) -> int:
        """What the database holds now."""
        return int(await self.shop.value("SELECT stock FROM books WHERE id = $1", book))


@asynccontextmanager
async def lab(books: int = 2, stock: int = 10, driver: str = "asyncpg") -> AsyncIterator[Lab]:
    """The shop's tables with so many books and two customers."""
    async with run_app(8) as s:
        ids = await s.shop.seed(books=books, customers=2, stock=stock)
        url = s.shop.database.url(s.wire.host, s.wire.port).replace("+asyncpg", f"+{driver}")
        engine = create_async_engine(url, pool_size=20)
        try:
            yield Lab(engine, async_sessionmaker(engine), ids.books, ids.customers, s.shop)
        finally:
            await engine.dispose()


def token_of(customer: int) -> str:
    """An access token of this customer, as the app of lesson 08 makes them."""
    claims = {"sub": str(customer), "iss": "bookshop", "aud": "bookshop-api", "exp": int(time.time()) + 600}
    return jwt.encode(claims, find_lesson(8).env["JWT_SECRET"], "HS256")


def sqlstate(error: DBAPIError) -> str:
    """The SQLSTATE of PostgreSQL's error, with any driver."""
    return str(getattr(error.orig, "sqlstate", ""))


Step = tuple[int, str]
"""Which of two transactions, and what it executes."""


async def outcome(one: Lab, level: str, steps: Sequence[Step], happened: str) -> str:
    """Runs two transactions step by step at an isolation level. Whether the anomaly happened, or which error came.

    `happened` is a query that says so afterwards; or "differs", if transaction 1 reads two different things.
    """
    await one.shop.execute("UPDATE books SET stock = 10")
    async with one.engine.connect() as first, one.engine.connect() as second:
        names = {"book": one.books[0], "other": one.books[1]}
        read: list[Any] = []
        for connection in (first, second):
            await connection.execution_options(isolation_level=level)
        try:
            for number, sql in steps:
                connection = first if number == 1 else second
                if sql == "COMMIT":
                    await connection.commit()
                    continue
                result = await connection.execute(text(sql.format(**names)))
                if result.returns_rows and number == 1:
                    read.append(result.all())
        except DBAPIError as error:
            return f"error {sqlstate(error)}"
        if happened == "differs":
            return "happens" if read[0] != read[-1] else "-"
        return "happens" if await one.shop.value(happened.format(**names)) else "-"


Strategy = Callable[[AsyncConnection, int], Awaitable[bool]]
"""Sells one copy of a book in an open transaction; False if it has to be repeated."""


async def sales_per_second(
    engine: AsyncEngine, strategy: Strategy, books: Sequence[int], sales: int
) -> tuple[float, float]:
    """How many sales a second eight workers make with this strategy, and how many attempts each sale takes."""
    left = iter(range(sales))
    attempts = 0

    async def worker() -> None:
        nonlocal attempts
        for number in left:
            done = False
            while not done:
                attempts += 1
                try:
                    async with engine.begin() as connection:
                        sold = await strategy(connection, books[number % len(books)])
                    done = sold  # not before its COMMIT
                except DBAPIError as error:
                    if sqlstate(error) not in ("40001", "40P01"):
                        raise

    began = time.perf_counter()
    await asyncio.gather(*(worker() for _ in range(8)))
    return sales / (time.perf_counter() - began), attempts / sales


def two_timelines(steps: Sequence[tuple[int, str, int]], title: str) -> Any:
    """Two transactions as two lines, and the row between them. `steps`: (which, what it does, the stock after it)."""
    import matplotlib.pyplot as plt

    figure, pane = plt.subplots(figsize=(9.5, 3))
    for lane, color in ((1, FIRST), (-1, SECOND)):
        pane.axhline(lane, color=color, linewidth=1, alpha=0.4, zorder=0)
        pane.text(-0.7, lane, f"request {1 if lane == 1 else 2}", ha="right", va="center", color=color, weight="bold")
    pane.text(-0.7, 0, "the row's stock", ha="right", va="center", color=ROW, weight="bold")
    before = steps[0][2]
    for x, (which, what, stock) in enumerate(steps):
        lane, color = (1, FIRST) if which == 1 else (-1, SECOND)
        box = {"boxstyle": "round,pad=0.4", "facecolor": "white", "edgecolor": color, "linewidth": 1.8}
        pane.text(x, lane, what, ha="center", va="center", color=color, bbox=box, fontsize=10)
        pane.text(x, 0, str(stock), ha="center", va="center", color=BAD if stock != before else ROW, fontsize=13,
                  weight="bold" if stock != before else "normal")  # fmt: skip
        if "COMMIT" in what or "reads" in what:
            up = "COMMIT" in what
            ends = (x, 0.22 * lane), (x, 0.72 * lane)
            pane.annotate("", ends[0] if up else ends[1], ends[1] if up else ends[0],
                          arrowprops={"arrowstyle": "->", "color": color})  # fmt: skip
        before = stock
    pane.set(xlim=(-0.6, len(steps) - 0.4), ylim=(-1.5, 1.5), title=title)
    pane.axis("off")
    figure.tight_layout()
    plt.close(figure)
    return figure


def strategies_picture(measured: Mapping[str, Mapping[int, tuple[float, float]]]) -> Any:
    """Two panes over the number of books that are sold: sales a second, and attempts for each sale."""
    import matplotlib.pyplot as plt

    figure, panes = plt.subplots(1, 2, figsize=(10, 3.6))
    for pane, which, label in zip(panes, (0, 1), ("sales a second", "attempts for each sale"), strict=True):
        for name, points in measured.items():
            pane.plot(list(points), [point[which] for point in points.values()], marker="o", label=name)
        pane.set(xlabel="books that are sold (fewer: more contention)", ylabel=label, xscale="log", ylim=(0, None))
        counts = list(next(iter(measured.values())))
        pane.set_xticks(counts, [str(count) for count in counts])
        pane.minorticks_off()
    panes[1].legend(fontsize=8)
    figure.tight_layout()
    plt.close(figure)
    return figure
