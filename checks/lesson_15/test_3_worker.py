"""The worker, which sends the mail of all shops; and how many statements several shops cost."""

from checks.kit.lessons.words import plural
from checks.kit.report import expect
from checks.lesson_15.mailing import sent

MORE_SHOPS = 40


async def test_the_worker_serves_all_shops(testbed, app, shop, gateway, hosted):
    """The worker sends the mail of all shops and stores each invoice in its shop; `app.report` has all orders."""
    placed = {}
    for turn in range(2):
        for owner in hosted:
            body = {"lines": [{"book_id": owner.ids.books[turn], "quantity": 1}]}
            order = await app.post("/orders", json=body, headers=await owner.log_in(app))
            placed[order["id"]] = owner
    await shop.execute(DEAD, hosted[1].id, step="a worker had begun all mail of shop B, and died; the leases are over")
    # long enough that the worker looks once more before it has to try again, and does not find the mail by chance
    worker = await testbed.start("app.worker", env={"MAIL_RETRY_SECONDS": "2"}, name="worker", connected=True)
    arrived = await sent(gateway, worker, len(placed))
    gateway.respond_next(status=500)
    late = await app.post(
        "/orders",
        json={"lines": [{"book_id": hosted[1].ids.books[2], "quantity": 1}]},
        headers=await hosted[1].log_in(app),
    )
    placed[late["id"]] = hosted[1]
    arrived = arrived and await sent(gateway, worker, len(placed) + 1)
    left = await worker.terminate()
    mails = {call["data"]["order_id"]: call["to"] for call in gateway.calls if call.answer.status < 300}
    wanted = {order: owner.email for order, owner in placed.items()}
    rows = await shop.rows(
        "SELECT o.id, m.status, i.shop_id AS invoice, m.shop_id AS mail FROM orders o JOIN outbox m "
        "ON m.order_id = o.id LEFT JOIN invoices i ON i.order_id = o.id WHERE o.id = ANY($1::bigint[]) ORDER BY o.id",
        list(placed),
    )
    wrong = [
        row
        for row in rows
        if (row["status"], row["invoice"], row["mail"]) != ("sent", placed[row["id"]].id, placed[row["id"]].id)
    ]
    expect(
        arrived and left == 0 and mails == wanted and not wrong and len(rows) == len(placed),
        f"There were {plural(len(placed), 'order')} of two shops. A worker had begun the mail of B and died. The "
        "gateway refused the last mail once. Sent: "
        f"{plural(len(mails), 'mail')}, to {sorted(mails.values())}. Not as expected: {wrong or 'no row'}.",
        because="Customers of a shop get no mail, or their invoice is in another shop.",
        section="Work for all shops",
    )
    report = await testbed.command("app.report", apart=True)
    named = {int(line.split(",")[0]) for line in report.stdout.splitlines()[1:]}
    orders = {row["id"] for row in await shop.rows("SELECT id FROM orders WHERE status <> 'cancelled'")}
    expect(
        report.ok and named == orders,
        f"{report.command}: exit code {report.code}, with {plural(len(named & orders), 'order')} of two shops. There "
        f"are {len(orders)}.",
        because="The accountants do not see all sales.",
        section="For whom a policy does not hold",
    )


async def test_statements_do_not_multiply(testbed, narrow, shop, wire, gateway, hosted):
    """A request needs at most two more statements per transaction, and mail about as many, with any number of shops."""
    a, _ = hosted
    headers = await a.log_in(narrow)
    mailed = {}
    for shops in ("few", "many"):
        if shops == "many":
            await shop.execute(MANY, MORE_SHOPS, step=f"{MORE_SHOPS} more shops are there")
        for path, (statements, transactions) in {
            f"/books/{a.book}": (1, 1),
            "/dashboard": (1, 1),
            "/catalogue?size=2": (4, 1),
            f"/orders/{a.order}": (3, 2),
            "/export/books.csv": (2, 2),
        }.items():
            for who in [headers] if "/orders" in path else [headers, a.visit]:
                with wire.watching() as seen:
                    response = await narrow.get(path, headers=who)
                    await wire.wait_idle()
                expect_few(response, len(seen.data_statements), statements, transactions)
        for n in (2, 40):
            with wire.watching() as seen:
                response = await narrow.post("/books/import", json=good_lines(a, f"{shops}{n}", n), headers=headers)
                await wire.wait_idle()
            expect(
                response.ok and response["stored"] == n,
                f"Shop A sent a list with {plural(n, 'good line')}. {response}",
                because="A publisher's list is not stored.",
                section="What policies cost",
            )
            expect_few(response, len(seen.data_statements), n, 1)
        mailed[shops] = await statements_for_a_mail(testbed, shop, wire, gateway, a)
    expect(
        mailed["many"] <= 2 * mailed["few"],
        f"For one mail of shop A the worker sent {mailed['few']} statements while there were 2 shops, and "
        f"{mailed['many']} while there were {MORE_SHOPS} more. Expected: at most twice as many.",
        because="With each shop that we host, mail becomes slower for all others.",
        section="Work for all shops",
    )


# -- what the checks use


DEAD = """
    UPDATE outbox SET status = 'processing', attempts = 1, due_at = now() WHERE status = 'pending' AND shop_id = $1
"""

MANY = "INSERT INTO shops (name, host) SELECT 'More', 'more' || n || '.example' FROM generate_series(1, $1::int) AS n"


def good_lines(owner, name, number):
    """Lines of a publisher's list."""
    book = {"title": "T", "author_id": owner.ids.authors[0], "price_cents": 900}
    return [book | {"isbn": f"979-{name}-{line:04}"} for line in range(number)]


async def statements_for_a_mail(testbed, shop, wire, gateway, owner):
    """How many statements a worker sends that finds one mail."""
    await shop.execute("DELETE FROM invoices; DELETE FROM outbox")
    await shop.add("outbox", order_id=owner.order, recipient="x@example.com", total_cents=1000, shop_id=owner.id)
    done = len(gateway.calls)
    with wire.watching() as seen:
        worker = await testbed.start("app.worker", name="worker", connected=True)
        expect(
            await sent(gateway, worker, done + 1),
            "Shop A had a mail, and the worker did not send it.",
            because="Customers get no mail.",
            section="Work for all shops",
        )
        await worker.terminate()
        await wire.wait_idle()
    return len([one for one in seen.data_statements if one.process.startswith("worker")])


def expect_few(response, number, own, transactions):
    most = own + 2 * transactions
    allowed = f"{own} of its own, and {2 * transactions} for {plural(transactions, 'transaction')}"
    expect(
        number <= most and response.ok,
        f"{response.request} → {response.status}, with {plural(number, 'statement')}. Expected: at most {most}: "
        f"{allowed}.",
        because="Each page is slower than before, for all shops.",
        section="What policies cost",
    )
