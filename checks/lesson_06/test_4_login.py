"""Lesson 06: a pen-test report, finding by finding. Here: what a login, a response and the log tell."""

import time

import pytest

from checks.kit.report import expect
from checks.kit.testbed.waiting import wait_quiescent
from checks.lesson_06.doors import doors_of
from checks.lesson_06.forgery import guess_key, resigned
from checks.lesson_06.hashes import LEAKED
from checks.lesson_06.people import (
    ANNA,
    BEN,
    PASSWORD,
    WRONG,
    bearer,
    id_of,
    log_in,
    logged_in,
    parts_of,
    refresh,
    registered,
    sha256,
)
from checks.lesson_06.test_1_tokens import OTHER_KEY, SECRET
from checks.lesson_06.work import measured_work

CORA = {"email": "cora@example.com", "name": "Cora"}
DORA = {"email": "dora@example.com", "name": "Dora"}
NOBODY = {"email": "nobody@example.com"}
TOO_SHORT, MISTYPED, CORAS = "Tq4!zzz", "c0rrect h0rse battery", "a password of last year"
CLOCK = "A response that comes sooner or later than others tells a thief with a clock who is a customer."
LESS_WORK = (
    "Many logins at once share the processor. With less work for each they are refused sooner, even if the service "
    "sleeps for as long as a hash takes: a thief with a clock learns who is a customer."
)
MORE_WORK = "More work takes longer, so a thief with a clock learns who is a customer."
LIST = "A thief who tries a list of e-mails learns who is a customer, and tries passwords on those only."


async def test_finding_10_login_does_not_say_who_exists(app, shop):
    """An unknown e-mail and a wrong password get the same response."""
    await registered(app, ANNA)
    for who, active in ((BEN, True), (CORA, False)):
        stored = sha256(PASSWORD)
        await shop.add("customers", email=who["email"], name=who["name"], password_hash=stored, active=active)
    await shop.add("customers", email=DORA["email"], name=DORA["name"], password_hash="")  # never had a password
    attempts = ((ANNA, WRONG), (ANNA, WRONG + "!"), (BEN, WRONG), (CORA, WRONG), (DORA, WRONG))
    wrong = [await log_in(app, who, password) for who, password in attempts]
    unknown = [await log_in(app, NOBODY | {"email": email}, WRONG) for email in ("nobody@example.com", "x@example.org")]
    steady = steady_headers(unknown + wrong[:2])
    for (who, _), response in zip(attempts, wrong, strict=True):
        expect(
            response.status == unknown[0].status == 401 and response.text == unknown[0].text,
            f"{who['name']} with a wrong password: {response.status} {response.text}. "
            f"With an unknown e-mail: {unknown[0].status} "
            f"{unknown[0].text}. Expected: 401 and the same text.",
            because=LIST,
            section="Response times tell who is a customer",
        )
        differing = [
            name
            for name in sorted({*response.headers, *unknown[0].headers})
            if name in steady and response.headers.get(name) != unknown[0].headers.get(name)
        ]
        expect(
            not differing,
            f"A wrong password and an unknown e-mail differ in the header {', '.join(differing)}: "
            f"{[one.headers.get(name) for one in (response, unknown[0]) for name in differing]}.",
            because=LIST,
            section="Response times tell who is a customer",
        )


@pytest.mark.serial
async def test_finding_11_login_works_as_hard_for_nobody(app, shop):
    """Refusing an unknown e-mail, an old hash or a deactivated account takes about as much work as a wrong password."""
    await logged_in(app, ANNA)
    refused = await log_in(app, ANNA, WRONG)
    expect(
        refused.status == 401,
        f"Anna with a wrong password: {refused}. Expected: 401.",
        because="A login that accepts a wrong password is open to everybody. The check can measure refusals only.",
        section="Response times tell who is a customer",
    )
    hashed = await shop.value("SELECT password_hash FROM customers WHERE id = $1", await id_of(shop, ANNA))
    await shop.add("customers", email=BEN["email"], name=BEN["name"], password_hash=hashed, active=False)
    await shop.add("customers", email="old@example.com", name="Old", password_hash=sha256(PASSWORD))
    others = {
        "an unknown e-mail": NOBODY["email"],
        "a deactivated account": BEN["email"],
        "an account with an old hash": "old@example.com",
    }
    for work in await measured_work(app, ANNA, others):
        less, more = ("Less work", "More work") if work.computed else ("Refused sooner", "Refused later")
        expect(
            not work.less,
            f"{work} {less}: {work.listed(work.less)}. Expected: about the same.",
            because=LESS_WORK if work.computed else CLOCK,
            section="Response times tell who is a customer",
        )
        expect(
            not work.more,
            f"{work} {more}: {work.listed(work.more)}. Expected: about the same.",
            because=MORE_WORK if work.computed else CLOCK,
            section="Response times tell who is a customer",
        )


async def test_finding_12_nothing_secret_leaves(app, shop, wire):
    """No response holds a hash, no rejected body is sent back with its password, and the log holds neither."""
    await shop.execute(FULL_DISK, step="the check lets each INSERT of a customer named Zoe fail: the disk is full")
    await shop.add("customers", email=CORA["email"], name=CORA["name"], password_hash=sha256(CORAS))
    responses = [
        await registered(app, ANNA),
        await app.post("/auth/register", json=ANNA | {"name": "Anna again"}),
        await app.post("/auth/register", json=BEN | {"name": "Zoe"}),
        tokens := await logged_in(app, ANNA, register=False),
        await log_in(app, ANNA, MISTYPED),
        newer := await refresh(app, tokens["refresh_token"]),
        await log_in(app, CORA, CORAS),  # her hash is replaced
    ]
    strange = strange_tokens(tokens["access_token"])
    responses += [await app.get("/me", headers=headers) for headers in headers_with(strange)]
    responses.append(await refresh(app, strange["an unknown refresh token"]))
    rejected = [await app.post(path, **options) for path, options in rejected_requests()]
    rejected += [await refresh(app, newer["refresh_token"] + "\0"), await app.get("/books/first")]
    customer = await id_of(shop, ANNA)
    for door in await doors_of(shop, customer):
        responses.append(await door.knock(app, tokens["access_token"]))
    async with wire.refusing():
        await wire.cut()
        responses += [await log_in(app, ANNA), await refresh(app, newer["refresh_token"])]
        responses.append(await app.get("/me", headers=bearer(tokens["access_token"])))
    responses += [await app.get(f"/customers/{customer}"), await app.get("/openapi.json"), *rejected]
    responses.append(await refresh(app, tokens["refresh_token"]))  # a second use: what is refused may be logged
    await shop.execute("UPDATE customers SET active = false WHERE id = $1", customer, step="Anna is deactivated")
    responses += [await app.get("/me", headers=bearer(newer["access_token"])), await log_in(app, ANNA)]
    responses.append(await refresh(app, newer["refresh_token"]))
    await wait_quiescent(app, wire)
    stored = await shop.value("SELECT password_hash FROM customers WHERE id = $1", customer)
    passwords = {
        "the password": PASSWORD,
        "a rejected password": TOO_SHORT,
        "a mistyped password": MISTYPED,
        "the end of the password's hash": stored[-16:],
        "the password's SHA-256": sha256(PASSWORD),
        "the beginning of a rejected password": TOO_SHORT[:4],
        "the beginning of a mistyped password": MISTYPED[:5],
        "the password of an old account": CORAS,
        "the old hash of an account": sha256(CORAS),
        "the key": SECRET,
    }
    for response in responses:
        text = parts_of(response)
        found = [what for what, secret in passwords.items() if secret in text]
        found += ["a password hash"] if LEAKED.search(text) else []
        expect(
            not found,
            f"The response of {response.request} ({response.status}) holds {' and '.join(found)}: "
            f"{around(text, passwords)}",
            because="A response is kept in browsers, proxies and error reports, where it is not meant to be.",
            section="Secrets in responses and in the log",
        )
    failed = [f"{response.request} → {response.status}" for response in rejected if response.status >= 500]
    expect(
        not failed,
        f"The check sent requests that the service rejects. It failed instead: {', '.join(failed)}. Expected: 422.",
        because="With a 500 nobody learns what is wrong with the request, and the person on call is woken up.",
        section="Secrets in responses and in the log",
    )
    expect(
        names_the_field(rejected[0], "password"),
        f"A registration with a password of {len(TOO_SHORT)} characters: {rejected[0]}. Expected: a list as `detail`, "
        "with `loc` and `msg` for each mistake, as FastAPI returns it.",
        because="Clients show each message beside the field that it is about. Without `loc` they cannot.",
        section="Secrets in responses and in the log",
    )
    tokens = {
        "an access token": tokens["access_token"],
        "a refresh token": tokens["refresh_token"],
        "the access token of a refresh": newer["access_token"],
        "the refresh token of a refresh": newer["refresh_token"],
    } | strange
    found = [what for what, secret in (passwords | tokens).items() if secret in app.log]
    found += ["a password hash"] if LEAKED.search(app.log) else []
    expect(
        not found,
        f"The log holds {' and '.join(found)}: {around(app.log, passwords | tokens)}",
        because="Logs are copied, searched and kept by people and services that must not have passwords or tokens.",
        section="Secrets in responses and in the log",
    )


FULL_DISK = """
    CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
    $$BEGIN RAISE EXCEPTION 'the check lets this INSERT fail: the disk is full' USING ERRCODE = 'disk_full'; END$$;
    CREATE TRIGGER refuse BEFORE INSERT ON customers FOR EACH ROW WHEN (NEW.name = 'Zoe') EXECUTE FUNCTION refuse();
"""


def rejected_requests():
    """Requests that cannot succeed, each with a password in its body: (path, options)."""
    yield "/auth/register", {"json": BEN | {"password": TOO_SHORT}}
    for body in ({"password": PASSWORD}, {"email": ANNA["email"], "password": [PASSWORD]}, [ANNA], PASSWORD):
        yield "/auth/login", {"json": body}
        yield "/auth/register", {"json": body}
    yield "/auth/register", {"json": BEN | {"email": "no e-mail", "password": PASSWORD}}
    yield "/auth/register", {"json": BEN | {"name": "", "password": PASSWORD}}
    yield "/auth/register", {"json": BEN | {"name": "Ben\0"}}
    yield "/auth/register", {"json": BEN | {"email": "ben\0@example.com"}}
    for content, kind in (
        (f'{{"email": "anna@example.com", "password": "{PASSWORD}"', "application/json"),
        (f'{{"email": "anna@example.com", "password": "{PASSWORD}"}}', "text/plain"),
        (f"email=anna%40example.com&password={PASSWORD}", "application/x-www-form-urlencoded"),
    ):
        yield "/auth/login", {"content": content, "headers": {"content-type": kind}}


def strange_tokens(token):
    """What a service refuses and must not log either."""
    key = guess_key(token) or SECRET
    return {
        "a forged access token": resigned(token, OTHER_KEY),
        "an expired access token": resigned(token, key, exp=int(time.time()) - 86400),
        "what was sent as Authorization: Basic": "YW5uYTphbm90aGVyIHNlY3JldCBvZiBBbm5hJ3M=",
        "an unknown refresh token": "an-unknown-refresh-token-0123456789",
    }


def headers_with(strange):
    """The headers with which these arrive at an endpoint that needs a login."""
    forged, expired, basic, _ = strange.values()
    return [bearer(forged), bearer(expired), {"Authorization": f"Basic {basic}"}]


def names_the_field(response, field):
    """Whether a response to a rejected body says of this field what is wrong with it, in FastAPI's form."""
    detail = response.json.get("detail") if isinstance(response.json, dict) else None
    mistakes = [one for one in detail if isinstance(one, dict)] if isinstance(detail, list) else []
    return any(field in one.get("loc", ()) and one.get("msg") for one in mistakes)


def around(text, secrets):
    """The part of a text in which a secret is."""
    places = [text.find(secret) for secret in secrets.values() if secret in text]
    if (match := LEAKED.search(text)) is not None:
        places += [match.span()[0]]
    if not places:
        return ""
    start = max(0, min(places) - 60)
    return ("…" if start else "") + text[start : start + 160].replace("\n", " ") + "…"


def steady_headers(responses):
    """The names of headers whose values do not change between two requests of one kind."""
    pairs = list(zip(responses[::2], responses[1::2], strict=True))
    names = {name for response in responses for name in response.headers} - {"date"}
    return {name for name in names if all(a.headers.get(name) == b.headers.get(name) for a, b in pairs)}
