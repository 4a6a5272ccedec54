"""What the checks ask about the learner's tests, run against the shop, other right shops and broken ones."""

import asyncio
import re
import time
from collections import Counter
from dataclasses import dataclass

from checks.kit.lessons.words import plural
from checks.kit.postgres.database import SCHEMA_FINGERPRINT_SQL
from checks.kit.report import expect
from checks.kit.testbed.suite import SuiteRun
from checks.lesson_14.meeting import Meeting
from checks.lesson_14.names import made_databases, named_by_the_time

BROKEN = {
    "stored": ("order_not_stored", "price_of_today", "gift_without_mail"),
    "refused": ("orders_of_others", "any_secret", "part_of_a_refused_order"),
    "at the commit": ("confirmed_before_the_commit", "copies_of_a_refused_order"),
    "at once": ("last_copy_sold_twice", "key_at_once", "transfer_lost"),
    "payments": ("refused_payment_keeps_the_copies", "charged_twice"),
    "migrations": ("reviews_without_limit", "credit_without_limit"),
}
"""Broken shops, by the check that asks whether the tests notice them."""

ORDERS = {"reversed": "the opposite order", "shuffled:1": "a random order"}
"""What the plugin calls an order, and what we call it."""

MAX_STATEMENTS = 1500
"""How many statements a run may send."""

GREEN = "no test failed"

SYSTEM = "'^(pg_|information_schema$)'"
"""Names of PostgreSQL's own schemas, and of those that end with a session."""

TABLES = f"""
    SELECT format('%I.%I', schemaname, tablename) AS name, tablename AS called FROM pg_tables
     WHERE schemaname !~ {SYSTEM}
"""

SEQUENCES = f"""
    SELECT format('%I.%I %s', schemaname, sequencename, last_value) AS row FROM pg_sequences
     WHERE schemaname !~ {SYSTEM}
"""

SCHEMAS = f"SELECT nspname AS row FROM pg_namespace WHERE nspname !~ {SYSTEM}"


@dataclass(frozen=True)
class Seen:
    """A run against the shop that the lesson hands out, what was in the developer's database before it, and what after.

    `made` are the databases that are left.
    """

    run: SuiteRun
    before: dict
    after: dict
    made: list

    @property
    def changed(self):
        """What differs in the developer's database."""
        names = self.before.keys() | self.after.keys()
        return sorted(name for name in names if self.before.get(name) != self.after.get(name))

    def is_clean(self):
        return self.run.is_green() and not self.changed and not self.made and self.run.statements <= MAX_STATEMENTS


class Judge:
    def __init__(self, testbed, suite):
        self.testbed = testbed
        self.suite = suite
        self.shop = suite.shop
        self._lines = []
        testbed.add_evidence("What the tests said", lambda: self._lines)

    async def as_it_is(self):
        """What was Seen of one run against the shop that the lesson hands out."""
        both, _ = await self.two_at_once()
        # two runs in one place that leave nothing and ask little: each of them is a run that does so
        return both[0] if all(one.is_clean() for one in both) else await self.suite.once("as it is", self._as_it_is)

    async def _as_it_is(self):
        async with self.suite.place() as place:
            before = await state(place)
            run = await self.suite.run(place, self.shop)
            return Seen(run, before, await state(place), await place.maker.made())

    async def as_it_is_with_tests(self, *, because, section):
        """What `as_it_is` returns, if a test passed: else nobody can tell what a run leaves, or how much it asks."""
        seen = await self.as_it_is()
        said = f"On the shop as it is: {seen.run.why_not_green()}"
        expect(seen.run.passed(), said, because=because, section=section)
        return seen

    async def other_shops(self):
        """The runs against the other right shops, with what each does in another way."""
        await self.two_at_once()
        apps = self.suite.others("apps").values()
        runs = await asyncio.gather(*(self.suite.against(app) for app in apps))
        return list(zip(apps, runs, strict=True))

    async def distrusted(self):
        """The tests that are red on a right shop: what they say about a broken one means nothing."""
        return sorted({failed.id for _, run in await self.other_shops() for failed in run.failed()})

    async def broken(self, promises):
        """The runs against the broken shops of a list, each to its first red test."""
        mutants = self.suite.others("mutants")
        chosen = [mutants[name] for name in BROKEN[promises]]
        distrusted, orders = await asyncio.gather(self.distrusted(), self.orders())
        options = ["--kit-stop", *(f"--kit-distrust={test}" for test in distrusted)]
        any_order = all(run.is_green() for run in orders.values())
        tests = next(iter(orders.values())).tests

        def first(app):
            """If the order of the tests does not matter: begins with those that are likely to notice this fault."""
            return [f"--kit-first={test}" for test in likely_to_notice(app.name, tests)] if any_order else []

        runs = await asyncio.gather(*(self.suite.against(app, *options, *first(app)) for app in chosen))
        return list(zip(chosen, runs, strict=True))

    async def expect_caught(self, promises, *, because, section):
        """Each broken shop of the list makes a test red that is green on all right ones."""
        run = (await self.as_it_is()).run
        expect(
            run.is_green(),
            f"The tests are red on the shop as it is, so nobody can tell what they say about a broken one. "
            f"{run.why_not_green()}",
            because="A test that is red on a right shop says nothing about a broken one.",
            section="See it break",
        )
        distrusted, missed, runs = set(await self.distrusted()), [], await self.broken(promises)
        for app, run in runs:
            if caught := run.caught(but=distrusted):
                self._lines.append(f"noticed      {app.about}\n             by {caught}")
                continue
            why = run.trouble() or (f"the suite fell over: {run.failed()[0]}" if fell_over(run, distrusted) else GREEN)
            missed.append(f"{app.about} ({GREEN if why == GREEN else 'the suite fell over'})")
            self._lines.append(f"not noticed  {app.about}\n             {why}")
        expect(
            not missed,
            f"{len(runs) - len(missed)} of {plural(len(runs), 'broken shop')} noticed. "
            f"Not noticed: {'; '.join(missed)}.",
            because=because,
            section=section,
        )

    async def expect_accepted(self, runs, *, because, section):
        """All runs are green: pairs of what was run, in words, and the run."""
        red = []
        for said, run in runs:
            if run.is_green():
                continue
            red.append(f"{said[0].upper()}{said[1:]}: {run.why_not_green().rstrip('.')}.")
            self._lines.append(red[-1])
            self._lines += [failed.text for failed in run.failed()[:1]] or run.log.splitlines()[-20:]
        expect(not red, " ".join(red[:3]), because=because, section=section)

    async def orders(self):
        """A run in each order of ORDERS."""
        await self.two_at_once()
        return await self.suite.once("orders", self._orders)

    async def _orders(self):
        """One after the other in one place, each in a process of its own: a suite may start threads before any test."""
        async with self.suite.place() as place:
            return {
                order: await self.suite.run(place, self.shop, f"--kit-order={order}", called="orders")
                for order in ORDERS
            }

    async def two_at_once(self):
        """Two runs with one DATABASE_URL, which meet after the fixtures of each test.

        They come before all others. If they disturb each other, the others would, too: a port is one for all of them.
        Then only one run goes on at a time from here on, so that each check sees its own fault.

        Returns what was Seen of each, and two names of databases that differ in the time only, or None.
        """
        return await self.suite.once("two at once", self._two_at_once)

    async def _two_at_once(self):
        async with self.suite.place() as place, Meeting(await self.testbed.listen()) as meeting:

            async def run(name):
                try:
                    return await self.suite.run(place, self.shop, meeting.option(name), called=name, passes=3)
                finally:
                    await meeting.end(name)

            before, began = await state(place), time.time()
            with place.wire.watching() as seen:
                first = asyncio.ensure_future(run("first"))
                await meeting.begun("first")
                both = await asyncio.gather(first, run("second"))
            after, left = await state(place), await place.maker.made()
        # runs that wait for each other gain nothing by being started together, and would wait beyond their limit
        if meeting.apart or not all(run.is_green() for run in both):
            self.suite.one_at_a_time()
        alike = named_by_the_time(made_databases(seen.statements), began, time.time())
        return [Seen(run, before, after, left) for run in both], alike


def likely_to_notice(mutant, tests):
    """The three tests whose names have the rarest words in common with the name of a mutant."""
    words = {test: words_of(test.rpartition("::")[2]) for test in tests}
    common = Counter(word for has in words.values() for word in has)
    return sorted(tests, key=lambda test: -sum(1 / common[word] for word in words[test] & words_of(mutant)))[:3]


def words_of(name):
    """Their first four letters: "gifts" is "gift", and "confirmed" is "confirmation"."""
    return {word[:4] for word in re.findall("[a-z]+", name.lower())}


def fell_over(run, distrusted):
    return any(failed.id not in distrusted for failed in run.failed())


async def state(place):
    """What is in the developer's database: a value for the rows of each table, and for all that is no row."""

    async def texts(query):
        return sorted(one["row"] for one in await place.shop.rows(query))

    found = {
        "the tables themselves": await place.shop.value(SCHEMA_FINGERPRINT_SQL),
        "the schemas": await texts(SCHEMAS),
        "the numbers of the next rows": await texts(SEQUENCES),
    }
    for table in await place.shop.rows(TABLES):
        found[table["called"]] = await texts(f"SELECT t::text AS row FROM {table['name']} t")
    return found
