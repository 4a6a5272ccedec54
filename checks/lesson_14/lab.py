"""What the notebook of lesson 14 works with: suites against broken shops, coverage, and ways of isolation."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import matplotlib.pyplot as plt
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from sqlalchemy import NullPool, text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine

from checks.kit.lessons.lesson import find_lesson
from checks.kit.notebook import command_line
from checks.kit.testbed.suite import Suite, other_apps, the_app

LESSON = find_lesson(14)

CATCHES, MISSES, BAD = "#1f6f8b", "#e8e4dc", "#c0352c"


@dataclass(frozen=True, slots=True)
class Matrix:
    """What each test of a suite says about each broken shop.

    `lines` are the numbers of the app's lines that each test executes, "imports" those without a test, of `total`.
    """

    tests: list[str]
    caught: dict[str, set[str]]
    lines: dict[str, set[int]]
    total: int

    def score(self, tests: Collection[str]) -> float:
        """The percentage of broken shops that one of these tests notices."""
        return 100 * sum(bool(by.intersection(tests)) for by in self.caught.values()) / len(self.caught)

    def coverage(self, tests: Collection[str]) -> float:
        """The percentage of the app's lines that these tests execute, with imports."""
        ran = set().union(*(self.lines.get(test, set()) for test in ["imports", *tests]))
        return 100 * len(ran) / self.total


async def against_broken_shops(target: str = "solutions") -> Matrix:
    """Runs the suite of a target against each broken shop, to its end, and once more to see which lines it executes."""
    async with command_line(14, target) as line:
        suite = Suite(line.testbed.runtime, LESSON, line.testbed.folder)
        broken = other_apps(LESSON, "mutants")
        plugin = ("-p", "checks.kit.service.inside.lines")
        whole, *runs = await asyncio.gather(
            suite.against(the_app(LESSON), *plugin), *(suite.against(app) for app in broken.values())
        )
    notes = [note for note in whole.notes if note["event"] == "lines"]
    lines: dict[str, set[int]] = {}
    for note in notes:
        lines.setdefault(note["test"], set()).update(note["lines"])
    caught = {
        app.about: {failed.id for failed in run.failed() if failed.phase == "call"}
        for app, run in zip(broken.values(), runs, strict=True)
    }
    return Matrix(whole.tests, caught, lines, notes[0]["total"])


def heat_map(matrix: Matrix) -> Figure:
    """A row for each broken shop, a column for each test: dark where the test is red."""
    figure, axes = plt.subplots(figsize=(12, 6.4), layout="constrained")
    shops = sorted(matrix.caught, key=lambda shop: [test not in matrix.caught[shop] for test in matrix.tests])
    cells = [[int(test in matrix.caught[shop]) for test in matrix.tests] for shop in shops]
    axes.imshow(cells, cmap=ListedColormap([MISSES, CATCHES]), vmin=0, vmax=1, aspect="auto")
    axes.set_xticks(
        range(len(matrix.tests)), [words(test) for test in matrix.tests], rotation=55, ha="right", fontsize=8
    )
    axes.set_yticks(range(len(shops)), [shop if len(shop) < 75 else f"{shop[:72]} …" for shop in shops], fontsize=8)
    axes.set_xticks([n - 0.5 for n in range(1, len(matrix.tests))], minor=True)
    axes.set_yticks([n - 0.5 for n in range(1, len(shops))], minor=True)
    axes.grid(which="minor", color="white", linewidth=2)
    axes.tick_params(which="both", length=0)
    axes.spines[:].set_visible(False)
    axes.set_title(
        f"Which test notices which broken shop: {matrix.score(matrix.tests):.0f} % of {len(shops)} are noticed"
    )
    return figure


def words(test: str) -> str:
    return test.rpartition("::")[2].removeprefix("test_").replace("_", " ")


def score_against_coverage(matrix: Matrix, yours: Matrix, subsets: int = 150) -> Figure:
    """A dot for each of subsets of the tests, chosen at random with a seed; a cross for the handed-out suite."""
    chance, dots = random.Random(14), []
    for _ in range(subsets):
        some = chance.sample(matrix.tests, chance.randint(1, len(matrix.tests)))
        dots.append((matrix.coverage(some), matrix.score(some)))
    figure, axes = plt.subplots(figsize=(8, 4.6), layout="constrained")
    axes.scatter(*zip(*dots, strict=True), s=22, alpha=0.5, color=CATCHES, label="some tests of the solution")
    point = (yours.coverage(yours.tests), yours.score(yours.tests))
    axes.scatter(*point, marker="X", s=140, color=BAD, label="the tests as they are in your folder")
    axes.set(xlabel="lines of the app that ran, in percent", ylabel="broken shops that were noticed, in percent")
    axes.set(xlim=(0, 100), ylim=(-3, 103))
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="upper left")
    return figure


# -- ways of isolation

Sessions = Callable[[], AbstractAsyncContextManager[AsyncSession]]

TABLES = "authors, books, customers, orders, order_lines"


@asynccontextmanager
async def one_session(engine: AsyncEngine) -> AsyncIterator[Sessions]:
    """`dependency_overrides[get_session] = lambda: db`."""
    async with AsyncSession(engine) as session:

        @asynccontextmanager
        async def the_same() -> AsyncIterator[AsyncSession]:
            yield session

        yield the_same
        await session.rollback()


@asynccontextmanager
async def savepoint(engine: AsyncEngine) -> AsyncIterator[Sessions]:
    """Each session works in a savepoint of one transaction, which is rolled back."""
    async with engine.connect() as connection:
        outer = await connection.begin()
        yield lambda: AsyncSession(connection, join_transaction_mode="create_savepoint")
        await outer.rollback()


@asynccontextmanager
async def truncate(engine: AsyncEngine) -> AsyncIterator[Sessions]:
    yield lambda: AsyncSession(engine)
    async with engine.begin() as connection:
        await connection.execute(text(f"TRUNCATE {TABLES} RESTART IDENTITY CASCADE"))


@asynccontextmanager
async def database_of_its_own(engine: AsyncEngine) -> AsyncIterator[Sessions]:
    """A clone of the database TEMPLATE, which has the tables."""
    name = f"test_{uuid4().hex}"
    async with engine.execution_options(isolation_level="AUTOCOMMIT").connect() as server:
        await server.execute(text(f'CREATE DATABASE "{name}" TEMPLATE "{TEMPLATE}"'))
        own = create_async_engine(engine.url.set(database=name), poolclass=NullPool)
        yield lambda: AsyncSession(own)
        await own.dispose()
        await server.execute(text(f'DROP DATABASE "{name}" WITH (FORCE)'))


@asynccontextmanager
async def rows_of_its_own(engine: AsyncEngine) -> AsyncIterator[Sessions]:
    """Nobody cleans up: each test makes a customer and a book that no other test has."""
    yield lambda: AsyncSession(engine)


TEMPLATE = f"template_{uuid4().hex}"

WAYS = {
    "one session for all": one_session,
    "savepoint": savepoint,
    "TRUNCATE": truncate,
    "a database for each test": database_of_its_own,
    "rows of its own": rows_of_its_own,
}


async def make_rows(sessions: Sessions, credit: int = 5000) -> tuple[int, int]:
    """A customer and a book with ten copies at 1000 cents."""
    async with sessions() as session:
        author = await session.scalar(text("INSERT INTO authors (name) VALUES ('Jane') RETURNING id"))
        book = await session.scalar(
            text(
                "INSERT INTO books (isbn, title, author_id, price_cents, stock) "
                "VALUES (:isbn, 'Emma', :author, 1000, 10) RETURNING id"
            ),
            {"isbn": uuid4().hex[:13], "author": author},
        )
        customer = await session.scalar(
            text("INSERT INTO customers (email, name, credit_cents) VALUES (:email, 'Ann', :credit) RETURNING id"),
            {"email": uuid4().hex, "credit": credit},
        )
        await session.commit()
        return int(customer or 0), int(book or 0)


async def order(
    sessions: Sessions, customer: int, book: int, commits: bool = True, meet: asyncio.Barrier | None = None
) -> None:
    """An endpoint in small: it reads the stock, writes it, and adds an order with a line."""
    async with sessions() as session:
        stock = await session.scalar(text("SELECT stock FROM books WHERE id = :book"), {"book": book})
        if meet is not None:
            await meet.wait()  # until the other one has read as well
        number = await session.scalar(
            text("INSERT INTO orders (customer_id) VALUES (:customer) RETURNING id"), {"customer": customer}
        )
        await session.execute(
            text("INSERT INTO order_lines (order_id, book_id, quantity, price_cents) VALUES (:n, :book, 1, 1000)"),
            {"n": number, "book": book},
        )
        await session.execute(
            text("UPDATE books SET stock = :stock WHERE id = :book"), {"stock": (stock or 0) - 1, "book": book}
        )
        if commits:
            await session.commit()


async def stock_of(sessions: Sessions, book: int) -> int:
    async with sessions() as session:
        return int(await session.scalar(text("SELECT stock FROM books WHERE id = :book"), {"book": book}) or 0)


async def notices_a_missing_commit(sessions: Sessions) -> str:
    customer, book = await make_rows(sessions)
    await order(sessions, customer, book, commits=False)
    return "noticed" if await stock_of(sessions, book) == 10 else "not seen"


async def notices_what_fails_at_the_commit(sessions: Sessions) -> str:
    customer, book = await make_rows(sessions, credit=0)
    try:
        await order(sessions, customer, book)
    except DBAPIError:
        return "noticed"
    return "not seen"


async def notices_two_at_once(sessions: Sessions) -> str:
    """Both orders read 10 copies before one of them writes: a right shop would end at 8."""
    customer, book = await make_rows(sessions)
    meet = asyncio.Barrier(2)
    async with asyncio.timeout(5):
        orders = (order(sessions, customer, book, meet=meet) for _ in range(2))
        done = await asyncio.gather(*orders, return_exceptions=True)
    if any(isinstance(one, BaseException) for one in done):
        return "cannot run"
    return "noticed" if await stock_of(sessions, book) != 8 else "not seen"


NOTICES = (notices_a_missing_commit, notices_what_fails_at_the_commit, notices_two_at_once)


async def compare_isolation(tests: int = 5) -> list[dict[str, object]]:
    """What each way costs for one test, and what it sees: a line for each way, all of it run."""
    async with command_line(14, "solutions") as line:
        login = await line.testbed.maker()
        url = line.shop.database.url(line.wire.host, line.wire.port, login=login)
        engine = create_async_engine(url)
        async with engine.execution_options(isolation_level="AUTOCOMMIT").connect() as server:
            await server.execute(text(f'CREATE DATABASE "{TEMPLATE}"'))
        template = engine.url.set(database=TEMPLATE).render_as_string(hide_password=False)
        await line.testbed.command("alembic", "upgrade", "head", env={"DATABASE_URL": template})
        found = []
        for name, way in WAYS.items():
            first = await next_order(engine)
            with line.wire.watching() as seen:
                began = time.perf_counter()
                for _ in range(tests):
                    async with way(engine) as sessions:
                        customer, book = await make_rows(sessions)
                        await order(sessions, customer, book)
                        assert await stock_of(sessions, book) == 9
                took = time.perf_counter() - began
            found.append({"way": name, "statements": len(seen.statements) / tests, "ms": 1000 * took / tests})
            for asked in NOTICES:
                found[-1][asked.__name__] = await ask(url, way, asked)
            async with engine.connect() as connection:
                found[-1]["rows left"] = await connection.scalar(text("SELECT count(*) FROM orders"))
            found[-1]["numbers go on"] = "yes" if await next_order(engine) != first else "no"
            await line.shop.database.end_others()
            await line.shop.execute(f"TRUNCATE {TABLES} RESTART IDENTITY CASCADE")
            await engine.dispose(close=False)
        await engine.dispose()
        return found


async def ask(url: str, way: Callable[..., Any], asked: Callable[[Sessions], Awaitable[str]]) -> str:
    """One question, on connections of its own: two sessions on one connection may leave it unusable."""
    engine, said = create_async_engine(url, connect_args={"command_timeout": 5}), "cannot run"
    with contextlib.suppress(SQLAlchemyError, TimeoutError, RuntimeError):
        async with asyncio.timeout(10), way(engine) as sessions:
            said = await asked(sessions)
    await engine.dispose(close=False)
    return said


async def sessions_in_a_transaction() -> str:
    """How many sessions of one role pg_stat_activity shows within one transaction, while another one is opened."""
    count = text("SELECT count(*) FROM pg_stat_activity WHERE usename = current_user")
    async with command_line(14, "solutions") as line:
        login = await line.testbed.maker()
        engine = create_async_engine(line.shop.database.url(line.wire.host, line.wire.port, login=login))
        async with engine.connect() as watching:  # its first statement begins the transaction
            seen = {"at first": await watching.scalar(count)}
            async with engine.connect() as another:
                await another.execute(text("SELECT 1"))
                seen["after another session was opened"] = await watching.scalar(count)
                await watching.execute(text("SELECT pg_stat_clear_snapshot()"))
                seen["after pg_stat_clear_snapshot()"] = await watching.scalar(count)
        await engine.dispose()
    return "\n".join(
        f"{when:34}{sessions} {'session' if sessions == 1 else 'sessions'}" for when, sessions in seen.items()
    )


async def next_order(engine: AsyncEngine) -> object:
    """Where the numbers of orders go on."""
    async with engine.connect() as connection:
        return (await connection.execute(text("SELECT last_value, is_called FROM orders_id_seq"))).one()


def isolation_table(found: list[dict[str, object]]) -> str:
    """The comparison as text; milliseconds as a multiple of the quickest way."""
    quickest = min(float(str(one["ms"])) for one in found)
    titles = ("statements", "time", "no COMMIT", "at COMMIT", "two at once", "rows left", "numbers")
    lines = [f"{'':26}" + "".join(f"{title:13}" for title in titles)]
    for one in found:
        cells = [
            f"{one['statements']:.0f}",
            f"{float(str(one['ms'])) / quickest:.1f}×",
            *(str(one[asked.__name__]) for asked in NOTICES),
            str(one["rows left"]),
            "go on" if one["numbers go on"] == "yes" else "start again",
        ]
        lines.append(f"{one['way']:26}" + "".join(f"{cell:13}" for cell in cells))
    return "\n".join(line.rstrip() for line in lines)
