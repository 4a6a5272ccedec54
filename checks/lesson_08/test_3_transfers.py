"""Lesson 08: many customers at once. Here: transfers, and transactions that PostgreSQL rolls back."""

from contextlib import asynccontextmanager
from typing import NamedTuple

from checks.kit.report import expect
from checks.kit.testbed.invariants import read_ledger
from checks.lesson_08.at_once import crowd, in_step, overtaken, stored_by
from checks.lesson_08.shopping import (
    KEYED,
    buying,
    credits_of,
    expect_all_served,
    expect_sums,
    order_of,
    path_of,
    statuses,
)

ORDER, SKEW, RETRY = (
    "Locks in one order cannot deadlock",
    "Isolation levels against anomalies",
    "Repeat the transaction, not the statement",
)
MONEY = "Money has appeared or disappeared, and the accountants cannot say where."
DEADLOCK = "At the end of the month many transfers meet. Each one that fails is a customer who calls."
OVERDRAWN = "Somebody has given away credit that they did not have."
ROLLED_BACK = (
    "PostgreSQL rolls a transaction back so that another one can go on. Nothing is wrong with the request, yet the "
    "customer reads that it failed."
)
LEAST, MOST = 3, 20


class Failure(NamedTuple):
    """Where PostgreSQL ends a transaction: of which request, with which SQLSTATE, at which statement about a table."""

    way: str
    sqlstate: str
    at: str
    table: str

    def __str__(self):
        where = self.at if self.at == "COMMIT" else f"its {self.at} of {self.table}"
        return f"{self.way} fails with SQLSTATE {self.sqlstate} at {where}"


CHANGED = {"/transfers": "customers", "/orders": "books", KEYED: "books"}
FAILURES = [
    *(Failure(way, sqlstate, "COMMIT", CHANGED[way]) for way in CHANGED for sqlstate in ("40001", "40P01")),
    Failure("/transfers", "40001", "UPDATE", "customers"),
    Failure("/transfers", "40P01", "UPDATE", "customers"),
    Failure("/transfers", "40001", "SELECT", "customers"),
    Failure("/transfers", "40P01", "INSERT", "transfers"),
    Failure("/orders", "40P01", "UPDATE", "books"),
    Failure("/orders", "40001", "INSERT", "order_lines"),
    Failure("/orders", "40001", "SELECT", "books"),
    Failure(KEYED, "40P01", "UPDATE", "books"),
    Failure(KEYED, "40001", "INSERT", "idempotency_keys"),
]
LASTING = [
    Failure("/transfers", "40001", "UPDATE", "customers"),
    Failure("/orders", "40P01", "UPDATE", "books"),
    Failure(KEYED, "40001", "COMMIT", "books"),
]


async def test_transfers_in_opposite_directions_succeed(apps, shop, wire, login):
    """Transfers between the same customers at the same moment all succeed, in whatever direction they go."""
    ids = await shop.seed(customers=4)
    ledger = await read_ledger(shop)
    a, b, c, _ = ids.customers
    for both in (((a, b), (b, a)), ((b, c), (c, b))):
        before = await credits_of(shop, ids.customers)
        sends = [transfer(app, login, *pair, 10 + n) for n, (app, pair) in enumerate(zip(apps, both, strict=True))]
        responses = await in_step(wire, shop, *sends)
        expect(
            all(one.status == 201 for one in responses),
            f"Two transfers in opposite directions at the same moment: {statuses(responses)}. Expected: 201 and 201.",
            because=DEADLOCK,
            section=ORDER,
        )
        expected = moved(before, ids.customers, [(*pair, 10 + n) for n, pair in enumerate(both)])
        await expect_credits(shop, ids.customers, expected, "two transfers in opposite directions")
    before = await credits_of(shop, ids.customers)
    six = [(a, b, 1), (b, a, 2), (a, c, 3), (c, a, 4), (a, b, 5), (b, a, 6)]
    sends = [transfer(apps[n % 2], login, *one) for n, one in enumerate(six)]
    await expect_all_served(sends, await overtaken(wire, shop, *sends), "6 transfers", DEADLOCK, ORDER)
    await expect_credits(shop, ids.customers, moved(before, ids.customers, six), "6 transfers at the same moment")
    before = await credits_of(shop, ids.customers)
    many = [(ids.customers[n % 4], ids.customers[(n + 1 + n // 4 % 3) % 4], 1 + n % 7) for n in range(16)]
    sends = [
        lambda app, pair=pair: app.post("/transfers", json=body(pair[1], pair[2]), headers=login(pair[0]))
        for pair in many
    ]
    responses = await crowd(apps, sends)
    expect(
        all(one.status == 201 for one in responses),
        f"{len(many)} transfers among four customers: {statuses(responses)}. Expected: 201 for each.",
        because=DEADLOCK,
        section=ORDER,
    )
    await expect_credits(shop, ids.customers, moved(before, ids.customers, many), "many transfers of four customers")
    rows = await shop.count("transfers")
    expect(rows == 26, f"26 transfers succeeded, and {rows} are on record.", because=MONEY, section=ORDER)
    await expect_sums(shop, ledger)


async def test_no_transfer_overdraws(apps, shop, wire, login):
    """Two transfers at the same moment do not give away the same credit, and none is lost."""
    ids = await shop.seed(customers=3)
    ledger = await read_ledger(shop)
    a, b, c = ids.customers
    for _ in range(2):
        before = await credits_of(shop, ids.customers)
        whole = before[0]
        responses = await in_step(
            wire, shop, transfer(apps[0], login, a, b, whole), transfer(apps[1], login, a, c, whole)
        )
        after = await credits_of(shop, ids.customers)
        expect(
            sorted(one.status for one in responses) == [201, 409] and after[0] == 0,
            f"A customer gave the whole credit of {whole} cents to two others at the same moment: "
            f"{statuses(responses)}. The customer now has {after[0]} cents. Expected: 201 and 409, and 0 cents.",
            because=OVERDRAWN if after[0] < 0 or all(one.ok for one in responses) else DEADLOCK,
            section=SKEW,
        )
        expect(sum(after) == sum(before), f"The credits were {before} and are {after}.", because=MONEY, section=SKEW)
        winner = b if responses[0].status == 201 else c
        # one comes in while another one goes out
        loser = b if winner == c else c
        pairs = [(winner, a, 400), (winner, loser, 50)]
        for pair in (pairs, [(winner, a, 30), (a, winner, 20)], [(winner, loser, 15), (a, loser, 16)]):
            before = await credits_of(shop, ids.customers)
            sends = [transfer(app, login, *one) for app, one in zip(apps, pair, strict=True)]
            responses = await in_step(wire, shop, *sends)
            expect(
                all(one.status == 201 for one in responses),
                f"Two transfers that share a customer, at the same moment: {statuses(responses)}. Expected: 201 twice.",
                because=DEADLOCK,
                section=ORDER,
            )
            await expect_credits(shop, ids.customers, moved(before, ids.customers, pair), "two transfers at once")
    await expect_sums(shop, ledger)


async def test_what_postgresql_rolls_back_is_repeated(app, shop, wire, login):
    """A transfer or order that PostgreSQL rolls back is repeated as a whole, 20 times at most, then 503 is returned."""
    ids = await shop.seed(books=1, customers=2, stock=100)
    ledger = await read_ledger(shop)
    for failure in FAILURES:
        before = await state(shop, ids)
        async with rolling_back(shop, failure, times=2, but=ids.customers[0]):
            response = await start(app, login, ids, failure.way)
        after = await state(shop, ids)
        expect(
            response.status == 201,
            f"{failure}, twice. The service returned {response.status}. Expected: a third attempt, and 201.",
            because=ROLLED_BACK,
            section=RETRY,
        )
        expected = expected_after(before, failure.way)
        expect(
            after == expected,
            f"{failure}, twice. Then it succeeded. Before: {before}, after: {after}. Expected: {expected}.",
            because=MONEY,
            section=RETRY,
        )
    for way in CHANGED:
        await expect_all_is_read_again(app, shop, wire, login, ids, way)
    await expect_a_used_key_is_found(app, shop, login, ids)
    for failure in LASTING:
        before = await state(shop, ids)
        async with rolling_back(shop, failure, times=1_000_000) as attempts:
            response = await start(app, login, ids, failure.way)
            made = await attempts()
        after = await state(shop, ids)
        expect(
            LEAST <= made <= MOST,
            f"{failure}, each time. The service made {made} attempts. Expected: at least {LEAST}, and at most {MOST}.",
            because=ROLLED_BACK
            if made < LEAST
            else "A service that never gives up does the same work again and again, while the customer waits and "
            "all others are slow.",
            section=RETRY,
        )
        wait = response.headers.get("retry-after", "missing")
        expect(
            response.status == 503 and wait != "missing",
            f"{failure}, each time. After {made} attempts: {response}, Retry-After: {wait}. Expected: 503 with it.",
            because="Nothing is stored, so the customer may try again, and has to be told so.",
            section=RETRY,
        )
        expect(
            after == before,
            f"{failure}, each time. Before: {before}, after: {after}. Expected: no change.",
            because=MONEY,
            section=RETRY,
        )
    await expect_sums(shop, ledger)


async def test_an_unknown_outcome_is_not_repeated(app, shop, wire, login):
    """If the response to a COMMIT is lost, the service does not repeat the transfer or order by itself."""
    ids = await shop.seed(books=1, customers=2, stock=50)
    ledger = await read_ledger(shop)
    for way in CHANGED:
        _, storing = await stored_by(wire, lambda way=way: start(app, login, ids, way))
        before = await state(shop, ids)
        async with wire.lost_response(storing.number(storing.count)) as lost:
            response = await start(app, login, ids, way)
        await wire.wait_idle(strict=False)
        after, expected = await state(shop, ids), expected_after(before, way)
        expect(
            lost.count == 1 and after == expected,
            f"{way}: PostgreSQL executed the COMMIT, and its response was lost. The service "
            f"returned {response.status}. Before: {before}, after: {after}. Expected: {expected}.",
            because="The customer pays twice for one request.",
            section=RETRY,
        )
    await expect_sums(shop, ledger)


def body(recipient, cents):
    return {"recipient_id": recipient, "cents": cents}


def transfer(app, login, sender, recipient, cents):
    """What to send for `in_step`."""
    return lambda: app.start_request("POST", "/transfers", json=body(recipient, cents), headers=login(sender))


def moved(credits, customers, transfers):
    """The credits after these transfers: (sender, recipient, cents)."""
    after = dict(zip(customers, credits, strict=True))
    for sender, recipient, cents in transfers:
        after[sender] -= cents
        after[recipient] += cents
    return list(after.values())


async def expect_credits(shop, customers, expected, after):
    found = await credits_of(shop, customers)
    expect(
        found == expected,
        f"After {after} the credits are {found}. Expected: {expected}.",
        because=MONEY,
        section=SKEW,
    )


def start(app, login, ids, way):
    """Sends a transfer of 30 cents from the first customer to the second, or an order of 2 copies."""
    headers = login(ids.customers[0])
    transferring = {"json": body(ids.customers[1], 30), "headers": headers}
    options = transferring if way == "/transfers" else buying(way, {ids.books[0]: 2}, headers)
    return app.start_request("POST", path_of(way), **options)


async def state(shop, ids):
    """All that `start` changes."""
    counts = ", ".join(f"(SELECT count(*) FROM {table}) AS {table}" for table in ("transfers", "orders", "order_lines"))
    credit = "(SELECT credit_cents FROM customers WHERE id = ${})"
    [row] = await shop.rows(
        f"SELECT ARRAY[{credit.format(1)}, {credit.format(2)}] AS credits, stock, {counts} FROM books WHERE id = $3",
        *ids.customers,
        *ids.books,
    )
    return row


def expected_after(before, way):
    """The state after `start` has worked once."""
    if way == "/transfers":
        first, second = before["credits"]
        return before | {"transfers": before["transfers"] + 1, "credits": [first - 30, second + 30]}
    changed = {name: before[name] + 1 for name in ("orders", "order_lines")}
    return before | changed | {"stock": before["stock"] - 2}


async def expect_all_is_read_again(app, shop, wire, login, ids, way):
    """Another transaction has changed what this request reads: the second attempt works with what is there now."""
    table, changes = "books", [("price_cents", ids.books[0], 1234), ("stock", ids.books[0], 1)]
    if way == "/transfers":
        table, changes = "customers", [("credit_cents", ids.customers[1], 777), ("credit_cents", ids.customers[0], 1)]
    because = "The second attempt works with what the first one has read: what came in between is lost or given away."
    for (column, row, value), status in zip(changes, (201, 409), strict=True):
        was = await shop.value(f"SELECT {column} FROM {table} WHERE id = $1", row)
        async with rolling_back(shop, Failure(way, "40001", "UPDATE", table), times=1):
            with wire.watching() as seen:
                async with wire.hold(lambda _, seen=seen: any(one.error for one in seen.statements), limit=1) as held:
                    request = start(app, login, ids, way)
                    if not await held.wait_for_or(request.task):
                        return  # it closed the connection
                    await shop.execute(
                        # a row that a savepoint keeps locked stays as it is
                        f"UPDATE {table} SET {column} = $2 WHERE id = (SELECT id FROM {table} WHERE id = $1 FOR UPDATE "
                        "SKIP LOCKED)",
                        row,
                        value,
                        step=f"PostgreSQL has rolled back the first attempt; {column} of row {row} is {value} now",
                    )
                    before = await state(shop, ids)
                response = await request
        after = await state(shop, ids)
        expected = expected_after(before, way) if status == 201 else before
        total = response["total_cents"] if response.ok and way != "/transfers" else None
        expect(
            response.status == status and after == expected and total in (None, 2 * 1234),
            f"{way} was rolled back because of another transaction, which changed {column} of row {row} of {table} "
            f"from {was} to {value}. The service returned {response}. Before the second attempt: {before}, after it: "
            f"{after}. Expected: {status}, and {expected}.",
            because=because,
            section=RETRY,
        )
        await shop.execute(f"UPDATE {table} SET {column} = {column} + $2 WHERE id = $1", row, was - value)


async def expect_a_used_key_is_found(app, shop, login, ids):
    """A request that comes again is rolled back where it reads what is stored for its key."""
    headers = login(ids.customers[0]) | {"Idempotency-Key": "used"}
    sent = {"json": order_of({ids.books[0]: 2}), "headers": headers}
    first = await app.post("/orders", **sent)
    failure = Failure("a request with a key that was used", "40001", "SELECT", "idempotency_keys")
    async with rolling_back(shop, failure, times=2):
        again = await app.post("/orders", **sent)
    expect(
        again.status == 201 and again.json == first.json,
        f"{first}. It was sent again: {failure}, twice. The service returned: {again}. Expected: a third attempt, and "
        "the first response.",
        because=ROLLED_BACK,
        section=RETRY,
    )


@asynccontextmanager
async def rolling_back(shop, failure, *, times, but=0):
    """Makes PostgreSQL raise this error so many times. A COMMIT fails if it is of a transaction that updates the table.

    The row with the id `but` can be read: that of the customer, which is how the token is checked.
    Gives a function that says how many attempts there were. A sequence counts them: it is not rolled back.
    """
    reads = failure.at == "SELECT"  # which no trigger sees, but a policy does
    event, when = ("UPDATE", "DEFERRED") if failure.at == "COMMIT" else (failure.at, "IMMEDIATE")
    policy = f"""
        CREATE POLICY roll_back ON {failure.table} USING (id = {but} OR roll_back());
        ALTER TABLE {failure.table} ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
    """
    trigger = f"""
        CREATE CONSTRAINT TRIGGER roll_back AFTER {event} ON {failure.table} DEFERRABLE INITIALLY {when}
            FOR EACH ROW EXECUTE FUNCTION roll_back();
    """
    await shop.execute(
        f"""
        CREATE SEQUENCE attempts;
        CREATE FUNCTION roll_back() RETURNS {"boolean" if reads else "trigger"} LANGUAGE plpgsql SECURITY DEFINER AS $$
        BEGIN
            IF nextval('attempts') <= {times} THEN
                RAISE EXCEPTION 'this transaction has to make way for another one' USING ERRCODE = '{failure.sqlstate}';
            END IF;
            RETURN {"true" if reads else "NULL"};
        END $$;
        {policy if reads else trigger}
        """,
        step=f"PostgreSQL will let it happen {times} times: {failure}",
    )

    async def attempts():
        return await shop.value("SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM attempts")

    yield attempts
    undo = f"DROP TRIGGER roll_back ON {failure.table}"
    if reads:
        undo = f"DROP POLICY roll_back ON {failure.table}; "
        undo += f"ALTER TABLE {failure.table} DISABLE ROW LEVEL SECURITY, NO FORCE ROW LEVEL SECURITY"
    await shop.execute(f"{undo}; DROP FUNCTION roll_back; DROP SEQUENCE attempts")
