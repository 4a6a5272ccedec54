"""Lesson 10: the report as a command, and a worker that meets an order without lines."""

import asyncio
import csv
import io
from signal import SIGTERM

import pytest

from checks.kit.report import expect
from checks.kit.service.command import COMMAND_TIMEOUT
from checks.kit.wire import OUTAGES
from checks.lesson_10.baskets import USUAL, baskets, shelve
from checks.lesson_10.shopping import lines_of, table_of

COMMAND = "A command has an exit code"
WORKER = "HTTPException outside of HTTP"
MANY = 1500
"""More orders than any batch that somebody might read."""
RESTLESS = 60
"""Statements that a worker without work has no need of while it takes so many requests to the app."""
WINDOWS = 5
"""How often they are counted: a worker with several tasks looks for work many times after its last mail, then rests."""
PASSWORD = "the-password-of-the-report"


async def test_the_report_is_a_command(shop, testbed):
    """The report prints nothing but a CSV table of all orders, sorted by their ids, and ends with exit code 0."""
    await shop.seed(books=5, customers=50, orders=MANY, lines=2)
    await shop.execute(SHORT_IDS)
    await shop.execute("UPDATE orders SET status = (ARRAY['pending', 'paid', 'shipped']::order_status[])[1 + id % 3]")
    right = await shop.rows(TABLE)
    for turn in ("first", "second"):
        done = await testbed.command("app.report", apart=True)
        expect(done.ok, f"{done}.", because=NO_REPORT, section=COMMAND)
        header = next(csv.reader(io.StringIO(done.stdout)), [])
        expect(
            header == ["order_id", "status", "total_cents"],
            f"The first line of the report is {','.join(header) or 'missing'}. Expected: order_id,status,total_cents.",
            because=NOT_A_TABLE,
            section=COMMAND,
        )
        table = table_of(done.stdout)
        found = [{name: row[name] for name in ("order_id", "status")} for row in table]
        expect(
            found == right and all(row["total_cents"].isdigit() for row in table),
            f"There are {len(right)} orders, and none is cancelled. The {turn} report has {len(found)} lines after the "
            f"first one. {first_difference(found, right)}",
            because=NOT_A_TABLE if len(found) >= len(right) else INCOMPLETE,
            section=COMMAND,
        )


@pytest.mark.start_early
async def test_a_report_that_fails_says_so(shop, testbed, wire):
    """Without the database the report ends with another exit code, and a message on standard error only."""
    await shop.seed(books=5, customers=50, orders=MANY, lines=2)
    with wire.watching() as seen:
        whole = await testbed.command("app.report", apart=True)
    expect(whole.ok, f"{whole}.", because=NO_REPORT, section=COMMAND)
    last = sum(statement.data or statement.continues for statement in seen.statements)
    async with wire.hold(numbered(last)) as held:
        cut = asyncio.ensure_future(testbed.command("app.report", apart=True))
        if await held.wait_for_or(cut):
            first = held.waiting[0].connection
            await wire.cut(lambda connection: connection.id == first)
        silent = await testbed.command("app.report", apart=True)
    when = f"At statement {last} of {last}, the report "
    expect_failure(await cut, f"{when}lost its connection to PostgreSQL")
    expect_failure(silent, f"{when}got no response from PostgreSQL any more")
    for how in OUTAGES:
        async with wire.outage(how):
            done = await testbed.command("app.report", password=PASSWORD, apart=True)
        expect_failure(done, f"The database was away ({how.replace('_', ' ')})")


async def test_the_worker_survives_an_order_without_lines(app, customer, gateway, shop, wire, workers):
    """A worker that cannot write an invoice goes on, and writes those of other orders and sends their mail."""
    made = baskets(customer.books, USUAL, 12)
    orders = [await customer.buy(app, basket) for basket in made[:6]]
    empty, gone = orders[0], orders[3]
    await shop.execute(
        "DELETE FROM order_lines WHERE order_id = ANY($1)", [empty.id, gone.id], step="support deletes lines"
    )
    await shop.execute("DELETE FROM invoices WHERE order_id = $1", gone.id)  # if it was written with the order
    await shop.execute("DELETE FROM orders WHERE id = $1", gone.id, step="support deletes one of the orders")
    worker = await workers.start(MAIL_RETRY_SECONDS="3600")
    good = [order for order in orders if order not in (empty, gone)]
    for turn in range(2):
        if turn:
            good.append(await customer.buy(app, made[7]))
        sent = await workers.sent(worker, *(order.id for order in good))
        expect(
            sent and not worker.exit.done(),
            f"Support has removed the lines of order {empty.id}, and the whole order {gone.id}. The worker "
            + ("has ended." if worker.exit.done() else "runs.")
            + ("" if sent else " Not all mail about other orders was sent."),
            because="One order stops the mail of all customers, again and again, until somebody reads a traceback.",
            section=WORKER,
        )
    for _ in range(WINDOWS):  # what it does while an empty order is all that there is, after it has come to rest
        sent_by_worker = await statements_without_work(app, customer, good[0], wire, worker)
        if sent_by_worker <= RESTLESS:
            break
    expect(
        sent_by_worker <= RESTLESS,
        f"MAIL_RETRY_SECONDS is 3600, and all mail was sent but that about orders {empty.id} and {gone.id}. The worker "
        f"went on: {WINDOWS} times one after the other, it sent more than {RESTLESS} statements at once.",
        because="One order without lines keeps a worker and the database busy day and night.",
        section=WORKER,
    )
    await worker.terminate()
    bought = await customer.history(app)
    for order in good:
        invoice = await customer.invoice(app, order.id)
        expect(
            invoice.status == 200 and len(lines_of(invoice.json)) == len(bought[order.id]),
            f"The mail about order {order.id} was sent. {invoice}. Expected: 200, with all lines.",
            because="A customer without an invoice does not pay.",
            section=WORKER,
        )
    none = await customer.invoice(app, empty.id)
    expect(
        none.status == 404,
        f"Support removed the lines of order {empty.id} before the worker started. {none}. Expected: 404.",
        because="The customer gets an invoice about nothing, or about books that are not in the order any more.",
        section=WORKER,
    )


@pytest.mark.start_early
async def test_a_worker_sends_mail_as_before(app, customer, gateway, shop, wire, workers):
    """A worker sends each mail as before, even if the gateway or the database did not respond, and at SIGTERM."""
    made = baskets(customer.books, USUAL, 4)
    orders = [await customer.buy(app, basket) for basket in made[:2]]
    await shelve(shop, [book.id for book in customer.books], change=5)
    recipient = await shop.value("SELECT email FROM customers WHERE id = $1", customer.id)
    await shop.execute("UPDATE customers SET email = 'new.' || email", step="customers change their addresses")
    worker = await workers.start(MAIL_TIMEOUT_SECONDS="2", MAIL_RETRY_SECONDS="0.1")
    async with gateway.hold(limit=1) as held:
        if await workers.begun(worker, held):
            await held.client_left()
    expect_sent(await workers.sent(worker, *(order.id for order in orders)), worker, "The gateway did not respond once")
    with wire.watching() as seen:
        async with wire.outage("starting_up"):
            for _ in range(500):  # until the worker has tried twice to connect, so that the first attempt has failed
                if seen.connections_opened > 1 or worker.exit.done():
                    break
                await asyncio.wait({worker.exit}, timeout=0.02)
    orders.append(await customer.buy(app, made[2]))
    expect_sent(await workers.sent(worker, orders[-1].id), worker, "The database was away for a moment")
    async with gateway.hold(limit=1) as held:
        orders.append(await customer.buy(app, made[3]))
        if await workers.begun(worker, held):
            worker.signal(SIGTERM)
    await worker.terminate()
    status = await shop.value("SELECT status FROM outbox WHERE order_id = $1", orders[-1].id)
    expect(
        status == "sent",
        f"A worker got SIGTERM while the gateway had not responded to a mail. Then the gateway accepted it, and the "
        f"worker ended. In the outbox this mail is {status}. Expected: sent.",
        because="With each deploy, another worker sends the mail at hand a second time.",
        section=WORKER,
    )
    keys = {}
    for call in gateway.calls:
        order = next(order for order in orders if order.id == workers.order_of(call))
        key = keys.setdefault(order.id, call.headers.get("idempotency-key"))
        right = {
            "to": recipient if order in orders[:2] else f"new.{recipient}",
            "template": "order_confirmation",
            "data": {"order_id": order.id, "total_cents": order.total},
        }
        expect(
            call.json == right and call.headers.get("idempotency-key") == key,
            f"Of order {order.id}, the gateway got this mail: {call.json}, with the Idempotency-Key "
            f"{call.headers.get('idempotency-key')}. Expected: {right}, with the key of the first attempt, {key}.",
            because="The customer reads another price than the order has, or gets the mail twice, or not at all. The "
            "address of an order's mail is stored when the order is taken.",
            section=WORKER,
        )


async def statements_without_work(app, customer, order, wire, worker):
    """How many statements the worker sends during RESTLESS requests to the app; not all, if there are many."""
    with wire.watching() as seen:
        for _ in range(RESTLESS):
            await app.get(f"/orders/{order.id}", headers=customer.headers)
            count = sum(statement.process == worker.name for statement in seen.statements)
            if count > RESTLESS:
                break
    return count


def expect_sent(sent, worker, what):
    expect(
        sent,
        f"{what}. MAIL_RETRY_SECONDS is 0.1. The worker "
        + ("has ended." if worker.exit.done() else "runs, and has sent no mail for ten seconds."),
        because="After an outage of a second, no mail is sent for minutes or for the whole night.",
        section=WORKER,
    )


def expect_failure(done, when):
    how = f"{when}. `app.report` "
    how += f"did not end within {COMMAND_TIMEOUT:.0f} s" if done.code is None else f"ended with exit code {done.code}"
    expect(
        done.code is not None,
        f"{how}. Expected: it ends by itself within 20 s, with an exit code that says that it failed.",
        because="The job that runs the report every night waits until morning, and blocks the jobs after it.",
        section=COMMAND,
    )
    expect(
        done.code != 0,
        f"{how}. Expected: an exit code that says that it failed.",
        because="The job that runs the report every night is green, and nobody learns that there was no report.",
        section=COMMAND,
    )
    expect(
        not done.stdout.strip() and bool(done.output.strip()),
        f"{how}. It printed {len(done.stdout)} characters to standard output and {len(done.output)} to standard error. "
        "Expected: a message on standard error, and nothing else.",
        because="Standard output goes into a file that the accountants open. They take a message in it for an order, "
        "and a part of the table for all of it.",
        section=COMMAND,
    )

    expect(
        PASSWORD not in done.output,
        f"{how}. Its message on standard error holds the password of the database. Expected: a message without it.",
        because="The log of a job is kept, and read by people who must not be able to log in to the database.",
        section=COMMAND,
    )


def numbered(number):
    """For `wire.hold`: on each connection, the statement of this number that reads or changes data, or fetches more."""
    seen = {}

    def matches(statement):
        mine = seen.setdefault(statement.connection, [])
        if (statement.data or statement.continues) and not any(one is statement for one in mine):
            mine.append(statement)
        return len(mine) == number and mine[-1] is statement

    return matches


def first_difference(found, right):
    for number, (one, other) in enumerate(zip(found, right, strict=False), 1):
        if one != other:
            return f"Line {number} is {one}. Expected: {other}."
    return ""


NO_REPORT = "The accountants get no report, and nobody can say what was sold."
NOT_A_TABLE = "The accountants read the report with a program. A line that does not belong to the table stops it."
INCOMPLETE = "Orders that are not in the report are sales that nobody counts."

SHORT_IDS = """
    WITH new AS (
        INSERT INTO orders (id, customer_id) OVERRIDING SYSTEM VALUE
        SELECT id, (SELECT min(id) FROM customers) FROM unnest(ARRAY[7, 10, 9]) id RETURNING id
    )
    INSERT INTO order_lines (order_id, book_id, quantity, price_cents)
    SELECT id, (SELECT min(id) FROM books), 2, 995 FROM new
"""
"""So that the order of numbers is not that of texts."""

TABLE = """
    SELECT id::text AS order_id, status::text FROM orders ORDER BY id
"""
