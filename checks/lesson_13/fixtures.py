"""The fixtures of lesson 13: production's database, the release that serves from it, and the steps of a deploy."""

import asyncio
import contextlib
import re
import time
import uuid

import jwt

from checks.kit.report import expect
from checks.kit.testbed.endpoints import Endpoints
from checks.kit.testbed.fixtures import fixture
from checks.kit.testbed.rows import Ids, Seeded
from checks.kit.testbed.shop import Shop
from checks.lesson_13 import old_release
from checks.lesson_13.replay import replay

NEW_ONLY = re.compile(r"/tracking$|^/track/")
"""Paths of endpoints that only the new release has."""

CUSTOMER = 7
"""A customer with old orders."""

WAITING = """
    SELECT count(*) FROM pg_locks l WHERE NOT granted AND pid IN (
        SELECT pid FROM pg_stat_activity WHERE datname = current_database()
    )
"""
"""How many sessions of this database wait for a lock."""


@fixture
async def deploy(testbed):
    """The deploy of a release: `await deploy.old()`, `deploy.upgrade("0014")`, `deploy.new()`, `deploy.backfill()`."""
    yield await production(testbed, "production.sql")


@fixture
async def large_deploy(testbed):
    """As `deploy`, with about 12,500 orders, mails and receipts, and 8,000 coupons."""
    yield await production(testbed, "production.sql", "large.sql")


async def production(testbed, *scripts):
    """Fills the database."""
    paths = [testbed.lesson.checks_folder / script for script in scripts]
    await testbed.fill(*paths)
    testbed.note("the database is production's, at revision 0013")
    return Deploy(testbed, paths)


class Deploy:
    """Production's database with its rows, and what can be started on it. `shop` looks into it."""

    def __init__(self, testbed, scripts):
        self.testbed = testbed
        self.shop = Shop(testbed.database, testbed.note)
        self._scripts = scripts
        self._registered = False
        self._endpoints = Endpoints(testbed.lesson.endpoints)

    async def old(self):
        """A process of the release that is in production."""
        folder = await asyncio.to_thread(old_release.folder)
        return await self.testbed.launch(folder=folder, called="the old release")

    async def new(self):
        """A process of the learner's release."""
        return await self.testbed.launch(called="the new release")

    async def upgrade(self, target):
        """Runs `alembic upgrade` to its end. The check fails unless it succeeds."""
        return await until_it_succeeds(lambda: self.try_upgrade(target))

    async def try_upgrade(self, target):
        return await self.testbed.command("alembic", "upgrade", target)

    async def revision(self):
        """The revision of the database."""
        return await self.shop.value("SELECT string_agg(version_num, ', ' ORDER BY 1) FROM alembic_version")

    async def backfill(self):
        """Runs the backfill to its end. The check fails unless it succeeds."""
        return await until_it_succeeds(self.try_backfill)

    async def try_backfill(self):
        return await self.testbed.command("app.backfill")

    async def backfill_while(self, table, act, unfinished=contextlib.AsyncExitStack):
        """Runs the backfill. When it is about to write the table, `act` starts requests of others, and returns them.

        When each has a response or waits, it goes on inside of `unfinished`, a block that ends when the backfill waits
        for a lock or has ended. A backfill that has given up, because of a lock or because the machine was too slow, is
        started again.
        """
        for _ in range(3):
            async with self.testbed.wire.hold(filling(table), limit=1) as about_to_write:
                process = await self.start("app.backfill")
                if await about_to_write.wait_for_or(process.exit):
                    await responded_or_waiting(self, await act())
                    async with unfinished():
                        about_to_write.release()
                        await self.waits_or_ends(process)
            await asyncio.wait({process.exit}, timeout=30)
            if process.exit.done() and process.exit.result() == 0:
                return
        await self.backfill()

    async def start(self, *command):
        """Starts a command and returns at once."""
        return await self.testbed.start(*command)

    async def copy(self):
        """One more database like production's, to try in it what has crossed the wire."""
        return Copy(self.testbed, await self.testbed.filled(*self._scripts))

    @contextlib.contextmanager
    def transaction(self, *statements):
        """A session of somebody else, such as a long report: it runs statements, and its transaction stays open."""
        with self._session() as connection:
            for statement in statements:
                connection.execute(statement)
            self.testbed.note(f"a session ran {'; '.join(statements)}, and its transaction stays open")
            yield connection

    @contextlib.contextmanager
    def in_use(self, tables):
        """Somebody's transaction is open. Calling what this gives makes it use the tables that are not locked."""
        used = []
        with self._session() as connection:
            connection.execute("SELECT 1")  # begins the transaction, so that what follows is a savepoint
            self.testbed.note(f"a transaction reads {', '.join(tables)} and changes rows there, and stays open")

            def use_more():
                used.extend(table for table in tables if table not in used and use(connection, table))
                return used

            yield use_more

    @contextlib.contextmanager
    def _session(self):
        """A transaction that nobody but the check may end."""
        import psycopg

        login = self.testbed.login(self.testbed.database)
        with psycopg.connect(login.conninfo().decode()) as connection:
            try:
                yield connection
                connection.rollback()
            except psycopg.OperationalError:
                expect(
                    False,
                    "Somebody's transaction was open. It was ended from outside, and its connection closed.",
                    because="A report begins anew, and an import has lost what it had stored.",
                    section="The lock queue",
                )
        self.testbed.note("that transaction has ended")

    async def waits_or_ends(self, process, within=40):
        """Returns when some session waits for a lock (True), or the process has ended (False)."""
        until = asyncio.get_running_loop().time() + within
        while not process.exit.done() and asyncio.get_running_loop().time() < until:
            if await self.shop.value(WAITING):
                return True
            await asyncio.wait({process.exit}, timeout=0.01)
        return False

    async def kill(self, process):
        """SIGKILL, and the server notices at once that the client is gone, as it does after a while."""
        await process.kill()
        await self.shop.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = current_database() "
            "AND pid <> pg_backend_pid() AND backend_type = 'client backend' AND application_name NOT LIKE 'workbook%'"
        )

    async def _account(self, app):
        """What a new customer logs in with, the same one each time: to hash a password takes long."""
        account = {"email": "ann@example.com", "password": "a password of Ann's"}
        if not self._registered:
            created = await app.post("/auth/register", json={**account, "name": "Ann"})
            expect(created.ok, f"{created}", because="Nobody can open an account.", section="See it break")
            self._registered = True
        tokens = await app.post("/auth/login", json=account)
        return {"refresh_token": tokens["refresh_token"], **account}

    async def _rows(self):
        """Rows for the endpoints. The order is an old one, whose payment is about to be accepted."""
        one = self.shop.value
        author = await one("INSERT INTO authors (name) VALUES ('Ben') RETURNING id")
        book = (
            "INSERT INTO books (isbn, title, author_id, price_cents, stock) VALUES ($1, 'It', $2, 900, 50) RETURNING id"
        )
        books = [await one(book, uuid.uuid4().hex[:13], author) for _ in range(2)]
        order = await one(
            "INSERT INTO payments (order_id, key, card_token, amount_cents) SELECT max(id), gen_random_uuid(), 't', 1 "
            "FROM orders WHERE customer_id = $1 AND status = 'pending' AND id NOT IN (SELECT order_id FROM payments) "
            "RETURNING order_id",
            CUSTOMER,
        )
        await self.shop.execute("INSERT INTO invoices (order_id, lines, total_cents) VALUES ($1, '[]', 0)", order)
        return Seeded([author], books, [CUSTOMER], [], [order], others=Ids(customers=[1]))

    async def failures(self, app, *, old=False):
        """Sends a request to each endpoint; those that do not succeed, as text."""
        values, failed = await self._account(app), []
        for endpoint in self._endpoints(await self._rows(), headers=self.login(), **values):
            if old and NEW_ONLY.search(endpoint.path):
                continue
            response = await asked(app, endpoint.method, endpoint.path, **endpoint.options)
            if not response.ok:
                failed.append(str(response))
        return failed

    def login(self):
        """The header of CUSTOMER, who is logged in."""
        claims = {"sub": str(CUSTOMER), "iss": "bookshop", "aud": "bookshop-api", "exp": int(time.time()) + 600}
        return {"Authorization": f"Bearer {jwt.encode(claims, self.testbed.lesson.env['JWT_SECRET'], 'HS256')}"}


async def asked(app, method, path, **options):
    """The response to a request, which is sent again if the app asks for that: a slow machine meets its time limits."""
    response = await app.request(method, path, **options)
    if response.status == 503 and "retry-after" in response.headers:
        response = await app.request(method, path, **options)
    return response


def use(connection, table):
    """Reads a table, and locks it as an UPDATE does, unless somebody else has locked it. True: it is in use now."""
    import psycopg

    try:
        with connection.transaction():
            connection.execute(f"LOCK TABLE {table} IN ROW EXCLUSIVE MODE NOWAIT")
            connection.execute(f"SELECT count(*) FROM {table}")
    except psycopg.errors.LockNotAvailable:
        return False
    return True


class Copy:
    """A database like production's. Nobody works in it but the kit."""

    def __init__(self, testbed, database):
        self._testbed, self._database = testbed, database

    async def replay(self, statements):
        """What each of Alembic's statements among these does here, as steps."""
        statements = [statement for statement in statements if statement.process.startswith("alembic")]
        return await asyncio.to_thread(replay, self._testbed.login(self._database), statements)

    async def backfill(self):
        """Runs the learner's backfill here."""
        url = self._database.url(self._testbed.wire.host, self._testbed.wire.port)
        await until_it_succeeds(lambda: self._testbed.command("app.backfill", env={"DATABASE_URL": url}))


async def until_it_succeeds(run):
    """Starts a step again when it fails, as the ticket says: a slow machine meets time limits, autovacuum has locks."""
    for _ in range(2):
        done = await run()
        if done.ok:
            return done
    return must(await run())


def must(done):
    expect(
        done.ok,
        f"A step of the deploy failed: {done}.",
        because="The deploy stops half way: what comes after this step cannot begin.",
        section="See it break",
    )
    return done


def filling(table):
    """For `wire.hold`: what the backfill does to the rows of a table."""
    return lambda statement: (
        statement.changes
        and "backfill" in statement.process
        and re.search(rf"\b{table}\b", statement.text)
        and statement.verb != "ALTER"
    )


async def responded_or_waiting(deploy, requests):
    """Returns when each request has a response, or waits for a lock."""
    for _ in range(200):
        open_ = [request.task for request in requests if not request.task.done()]
        if not open_ or await deploy.shop.value(WAITING) >= len(open_):
            return
        await asyncio.wait(open_, timeout=0.01)
