"""Lesson 06: a pen-test report, finding by finding. Here: who somebody is now, and what they may do."""

import re

from checks.kit.report import expect, plural
from checks.kit.testbed.waiting import wait_quiescent
from checks.lesson_06.doors import doors_of, expect_open
from checks.lesson_06.people import ANNA, BEN, bearer, id_of, log_in, logged_in, refresh

SECTION = "Who the customer is now, and what they may do"
NOT_PLACED = "Older clients send a customer_id with each order. Their customers must still be able to buy."
NOT_PLACED_WITHOUT_ID = (
    "The token says who orders, so a client need not send a customer_id. The customers of such a client must be able "
    "to buy."
)
ONE_CONNECTION = (
    "A request that holds one connection and waits for a second one stops the shop at noon: when as many requests as "
    "there are connections hold one each, all of them wait until they give up."
)
COPIES = 3


async def test_finding_13_a_deactivated_customer_is_out(app, shop):
    """Once an account is deactivated, its access token, its refresh token and its password no longer work."""
    tokens, ben = await logged_in(app, ANNA), await logged_in(app, BEN)
    newer = await refresh(app, tokens["refresh_token"])
    doors = await doors_of(shop, await id_of(shop, ANNA))
    for access in (tokens["access_token"], newer["access_token"]):
        await expect_open(app, doors, access, "Anna's token")
    orders = await shop.count("orders")
    await shop.execute(
        "UPDATE customers SET active = false WHERE email = $1", ANNA["email"], step="Anna's account is deactivated"
    )
    responses = {f"access token at {door}": await door.knock(app, tokens["access_token"]) for door in doors}
    responses |= {
        "access token of a refresh at GET /me": await doors[0].knock(app, newer["access_token"]),
        "refresh token": await refresh(app, newer["refresh_token"]),
        "password": await log_in(app, ANNA),
    }
    stored = await shop.count("orders") - orders
    let_in = [f"{what} ({response.status})" for what, response in responses.items() if response.status != 401]
    expect(
        not let_in and not stored,
        f"Anna's account was deactivated. Not refused with 401: {', '.join(let_in) or 'nothing'}; and "
        f"{plural(stored, 'order')} stored since. Expected: 401 for each, and no order.",
        because="An account is deactivated because somebody misuses it. A valid signature only says who somebody was "
        "when the token was made.",
        section=SECTION,
    )
    me = await app.get("/me", headers=bearer(ben["access_token"]))
    expect(
        me.status == 200,
        f"Anna's account was deactivated. Ben, with his own token: {me}. Expected: 200.",
        because="One deactivated account must not close the shop to the others.",
        section=SECTION,
    )


async def test_finding_14_orders_belong_to_who_asks(launch, shop, wire):
    """An order is placed for the customer of the token, whatever the body says, and read by nobody else."""
    app = await launch(env={"DATABASE_CONNECTIONS": "1", "WEB_CONCURRENCY": None})
    ids = await shop.seed(books=1)
    before = await shop.rows("SELECT * FROM books WHERE id = $1", ids.books[0])
    total = COPIES * before[0]["price_cents"]
    anna, ben = await logged_in(app, ANNA), await logged_in(app, BEN)
    anna_id, ben_id = await id_of(shop, ANNA), await id_of(shop, BEN)
    lines = [{"book_id": ids.books[0], "quantity": COPIES}]
    nobody = await app.post("/orders", json={"customer_id": ben_id, "lines": lines})
    expect(
        nobody.status == 401 and await shop.count("orders") == 0,
        f"An order without a token: {nobody}; {plural(await shop.count('orders'), 'order')} stored. Expected: 401.",
        because="Without a login anybody can order in anybody's name.",
        section=SECTION,
    )
    bodies = {
        "without a customer_id": {},
        "with Anna's own customer_id": {"customer_id": anna_id},
        "with Ben's customer_id": {"customer_id": ben_id},
        "with the customer_id null": {"customer_id": None},
        "with the customer_id of nobody": {"customer_id": anna_id + ben_id + 1000},
    }
    orders = []
    for kind, body in bodies.items():
        placed = await app.post("/orders", json=body | {"lines": lines}, headers=bearer(anna["access_token"]))
        owners = await shop.rows("SELECT customer_id FROM orders ORDER BY id DESC LIMIT 1")
        owner = {anna_id: "Anna", ben_id: "Ben"}.get(
            owners[0]["customer_id"] if placed.ok and owners else None, "nobody"
        )
        claimed = placed["customer_id"] if placed.ok else None
        expect(
            owner != "Ben" and claimed in (None, anna_id),
            f"Anna sent an order {kind}: {placed}. Stored for: {owner}. Anna is customer {anna_id}, Ben {ben_id}.",
            because="The body says what its sender likes. Anna can order in Ben's name, and Ben gets the bill.",
            section=SECTION,
        )
        expect(
            placed.status == 201 and owner == "Anna",
            f"Anna sent an order {kind}: {placed}. Stored for: {owner}. Expected: 201, and stored for Anna. "
            "(The service may open one connection: DATABASE_CONNECTIONS=1.)",
            because=ONE_CONNECTION
            if placed.status == 503
            else NOT_PLACED
            if body.get("customer_id")
            else NOT_PLACED_WITHOUT_ID,
            section=SECTION,
        )
        own = await app.get(f"/orders/{placed['id']}", headers=bearer(anna["access_token"]))
        expect(
            own.status == 200 and own["customer_id"] == anna_id,
            f"Anna reads her own order: {own}. Expected: 200, and customer {anna_id}.",
            because="Customers look up what they have ordered.",
            section=SECTION,
        )
        totals = placed["total_cents"], own["total_cents"]
        expect(
            totals == (total, total),
            f"Anna ordered {COPIES} copies at {before[0]['price_cents']} cents. The order's total: {totals[0]} cents "
            f"when it was placed, {totals[1]} when it was read. Expected: {total}, as handed out.",
            because="The customer and the shop have to agree on what the books cost.",
            section=SECTION,
        )
        orders.append(placed["id"])
    sold = before[0]["stock"] - await shop.value("SELECT stock FROM books WHERE id = $1", ids.books[0])
    expect(
        sold == COPIES * len(orders),
        f"Anna placed {len(orders)} orders of {COPIES} copies each. The stock fell by {sold}. Expected: "
        f"{COPIES * len(orders)}, as handed out.",
        because="The shop sells copies that it does not have, or has copies that it does not sell.",
        section=SECTION,
    )
    await shop.execute("UPDATE customers SET credit_cents = 1", step="every customer's credit is 1 cent")
    beyond = await app.post("/orders", json={"lines": lines}, headers=bearer(anna["access_token"]))
    expect(
        not beyond.ok,
        f"An order beyond the customer's credit: {beyond}. Expected: 409, as handed out.",
        because="The shop sends books that nobody pays for.",
        section=SECTION,
    )
    await wait_quiescent(app, wire)
    expect_only_these_logged(app, orders, total)
    for whose, headers in {"Ben": bearer(ben["access_token"]), "somebody without a token": {}}.items():
        read = await app.get(f"/orders/{placed['id']}", headers=headers)
        expect(
            400 <= read.status < 500,
            f"{whose} asks for Anna's order: {read}. Expected: 404, or 401 without a token.",
            because="The numbers of orders can be counted up. Everybody who has an account could read all of them.",
            section=SECTION,
        )


def expect_only_these_logged(app, orders, total):
    """The accountants' line is in the log for each order that is stored, and for none that is not."""
    logged = [int(number) for number in re.findall(rf"\border (\d+)\b.*\b{total}\b", app.log)]
    placed, found = (", ".join(map(str, numbers)) or "none" for numbers in (orders, logged))
    expect(
        set(orders) <= set(logged),
        f"Orders {placed} were placed. In the log, with their {total} cents, are: {found}. Expected: each of them, as "
        "since lesson 02.",
        because="The customer has the books, and the accountants do not know of the order.",
        section=SECTION,
    )
    expect(
        sorted(logged) == sorted(orders),
        f"Orders {placed} were placed, and one more was refused at its COMMIT. In the log are: {found}. Expected: each "
        "order that is stored, once, as since lesson 02.",
        because="The accountants charge a customer for books that nobody sends.",
        section=SECTION,
    )
