"""The endpoints that lesson.toml lists: all that the app has, each with a request that works."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from checks.kit.lessons.errors import WorkbookError
from checks.kit.lessons.lesson import NOBODY, EndpointEntry, Lesson, OutsideEntry, all_lessons, find_lesson, load
from checks.kit.service.app import App
from checks.kit.testbed.endpoints import Endpoints, NoSuchRow
from checks.kit.testbed.rows import Ids, Seeded
from checks.kit.testbed.runtime import Runtime
from checks.kit.testbed.shop import Shop
from checks.kit.testbed.testbed import open_testbed
from checks.kit.testbed.waiting import served_meanwhile

IDS = Seeded([11], [21, 22], [31, 32], [41], [51], others=Ids(customers=[39]))
UNLISTED = {("get", "/receipts/{receipt_id}"), ("get", "/track/{public_id}")}
"""Of something that nothing but a response names."""

ACCOUNT = {"email": "ann@example.com", "password": "a password of Ann's", "name": "Ann"}


@pytest.mark.parametrize("lesson", all_lessons(), ids=lambda lesson: lesson.name)
async def test_each_endpoint_is_listed_and_works_with_the_solution(lesson: Lesson, runtime: Runtime) -> None:
    async with open_testbed(runtime, lesson, lesson.solution) as testbed:
        if lesson.number in (5, 13):  # their checks run the migrations
            assert (await testbed.command("alembic", "upgrade", "head")).ok
        app, shop = await testbed.launch(), Shop(testbed.database)
        ids = Seeded()
        if lesson.number:
            ids = await shop.seed(books=3, customers=2, orders=2, reviews=2 if lesson.number > 1 else 0)
        headers, values = await logged_in(app, shop) if "login" in str(lesson.endpoints) else ({}, {})
        endpoints = Endpoints(lesson.endpoints)(ids, headers=headers, **values)
        for endpoint in endpoints:
            response = await app.request(endpoint.method, endpoint.path, **endpoint.options)
            assert response.ok, response
        described = (await app.get("/openapi.json")).json["paths"]
    asked = [(endpoint.method, endpoint.path.partition("?")[0]) for endpoint in endpoints]
    for path, methods in described.items():
        pattern = re.sub(r"\{\w+\}", "[^/]+", re.sub(r"\{\w+_id\}", r"\\d+", path))
        for method in methods:
            if (method, path) in UNLISTED:
                continue
            assert any(verb == method.upper() and re.fullmatch(pattern, one) for verb, one in asked), (method, path)


async def test_somebody_else_is_served_while_a_request_is_held(runtime: Runtime) -> None:
    lesson = find_lesson(1)
    async with open_testbed(runtime, lesson, lesson.solution) as testbed:
        app, shop = await testbed.launch(), Shop(testbed.database)
        ids = await shop.seed(books=1, customers=1)
        order = {"customer_id": ids.customers[0], "lines": [{"book_id": ids.books[0], "quantity": 1}]}
        async with testbed.wire.hold("INSERT INTO order_lines", limit=1) as held:
            request = app.start_request("POST", "/orders", json=order)
            await held.wait_for()
            response = await served_meanwhile(app, "GET", f"/books/{ids.books[0]}")
            assert response is not None
            assert response.status == 200
            async with testbed.wire.hold("FROM books"):
                assert await served_meanwhile(app, "GET", f"/books/{ids.books[0]}", within=0.2) is None
            assert not request.responded
        assert (await request).ok


async def logged_in(app: App, shop: Shop) -> tuple[dict[str, str], dict[str, str]]:
    """The header of a customer who is logged in, and the values with which that customer logs in again."""
    if not await shop.value("SELECT to_regclass('refresh_tokens')"):
        return {}, {}
    if await shop.value("SELECT to_regclass('shops')"):  # what follows belongs to the shop of all requests
        await shop.execute("SELECT set_config('app.shop_id', (SELECT max(id)::text FROM shops), false)")
    customer = (await app.post("/auth/register", json=ACCOUNT))["id"]
    await shop.execute("UPDATE orders SET customer_id = $1", customer)
    if await shop.value("SELECT to_regclass('payments')"):
        await shop.execute(
            "INSERT INTO payments (order_id, key, card_token, amount_cents, status) "
            "SELECT id, gen_random_uuid(), 'tok', 1, 'accepted' FROM orders"
        )
        await shop.execute("UPDATE orders SET status = 'paid'")
    if await shop.value("SELECT to_regclass('invoices')"):
        await shop.execute("INSERT INTO invoices (order_id, lines, total_cents) SELECT id, '[]', 0 FROM orders")
    tokens = await app.post("/auth/login", json=ACCOUNT)
    values = {"refresh_token": tokens["refresh_token"], "email": ACCOUNT["email"], "password": ACCOUNT["password"]}
    return {"Authorization": f"Bearer {tokens['access_token']}"}, values


def test_placeholders_become_the_first_ids_and_another_number_each_time() -> None:
    body = '{"author_id": {author}, "isbn": "978{n}", "reader": {other_customer}, "email": "{email}"}'
    endpoints = Endpoints(
        [
            EndpointEntry("POST /books", body, writes=True, name="new book"),
            EndpointEntry("GET /books/{book}?n={n}", login=True),
        ]
    )
    new, read = endpoints(IDS, headers={"X": "y"}, email='a"b')
    sent = {"author_id": 11, "isbn": "978100001", "reader": 39, "email": 'a"b'}
    assert (new.method, new.path, new.options, new.name) == ("POST", "/books", {"json": sent}, "new book")
    assert (read.path, read.options, str(read)) == ("/books/21?n=100001", {"headers": {"X": "y"}}, f"GET {read.path}")
    assert [one.path for one in endpoints(IDS, writes=False)] == ["/books/21?n=100002"]
    [last] = Endpoints([EndpointEntry("DELETE /books/{last_book}")])(IDS)
    assert last.path == "/books/22"
    [edit] = Endpoints([EndpointEntry("PATCH /x", login=True, header="If-Match: *")])(IDS, headers={"X": "y"})
    assert edit.options == {"headers": {"If-Match": "*", "X": "y"}}
    assert [one.path for one in endpoints(IDS, login=False)] == ["/books"]


def test_an_endpoint_without_its_row_says_what_to_seed() -> None:
    endpoints = Endpoints([EndpointEntry("GET /orders/{order}")])
    with pytest.raises(
        NoSuchRow, match=r"GET /orders/\{order\} needs \{order\}: seed one, as in shop.seed\(orders=1\)"
    ):
        endpoints(Seeded())


@pytest.fixture
def read(tmp_path: Path) -> Callable[[str], Lesson]:
    """Reads a lesson.toml with this text."""

    def read(text: str) -> Lesson:
        path = tmp_path / "lesson_09" / "lesson.toml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return load(path)

    return read


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ('request = "GET /x"\nwrite = true', "endpoint 'GET /x': unknown key 'write'. Known: request, body, writes"),
        ('request = "GET /x"\nwrites = "yes"', "writes is true or false, not 'yes'."),
        ('request = "GET /x"\nbody = 7', "body is a string, not 7."),
        ('request = "/x"', "request is a method and a path, as in"),
        ("writes = true", "request is a method and a path, as in"),
        ('request = "GET /x/{bok}"', "unknown placeholder {bok}. Known: author, book,"),
        ('request = "GET /x"\nheader = "If-Match"', 'header is a name and a value, as in "If-Match: *".'),
        ('request = "POST /x"\nbody = \'{"a": {n}\'', "body is not JSON:"),
    ],
)
def test_a_wrong_endpoint_table_names_file_endpoint_and_key(
    read: Callable[[str], Lesson], lines: str, said: str
) -> None:
    with pytest.raises(WorkbookError) as refusal:
        read(f"[[endpoint]]\n{lines}\n")
    assert said in str(refusal.value)
    assert "lesson_09" in str(refusal.value)


def test_endpoints_are_read(read: Callable[[str], Lesson]) -> None:
    lesson = read('[[endpoint]]\nrequest = "GET /books/{book}"\nlogin = true\n')
    assert lesson.endpoints == (EndpointEntry("GET /books/{book}", login=True),)


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ('env = "MAIL_URL"\nnam = "x"', "outside 'MAIL_URL': unknown key 'nam'. Known: env, name, status, body"),
        ('env = "MAIL_URL"\nname = "mail gateway"\nstatus = "202"', "status is a number, not '202'."),
        ('env = "mail"\nname = "mail gateway"', "env is a variable and name says what it is"),
        ('env = "MAIL_URL"', "env is a variable and name says what it is"),
        ('env = "MAIL_URL"\nname = "mail gateway"\nbody = "{id: {n}}"', "body is not JSON:"),
    ],
)
def test_a_wrong_outside_table_names_variable_and_key(read: Callable[[str], Lesson], lines: str, said: str) -> None:
    with pytest.raises(WorkbookError) as refusal:
        read(f"[[outside]]\n{lines}\n")
    assert said in str(refusal.value)
    assert "lesson_09" in str(refusal.value)


def test_an_outside_service_has_a_url_where_only_a_command_runs(read: Callable[[str], Lesson]) -> None:
    outside = '[[outside]]\nenv = "MAIL_URL"\nname = "mail gateway"\nstatus = 202\nbody = \'{"id": "m-{n}"}\'\n'
    lesson = read(f'worker = "app.worker"\n[env]\nJWT_SECRET = "x"\n{outside}')
    assert lesson.outside == (OutsideEntry("MAIL_URL", "mail gateway", 202, '{"id": "m-{n}"}'),)
    assert (lesson.worker, lesson.env) == ("app.worker", {"JWT_SECRET": "x"})
    assert lesson.settings == {"MAIL_URL": NOBODY, "JWT_SECRET": "x"}
