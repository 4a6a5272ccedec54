"""Lesson 06: a pen-test report, finding by finding."""

import asyncio
import hashlib
import re
import time
from statistics import median

import jwt

from checks.kit.forgery import guess_key, resigned, unsigned
from checks.kit.report import expect
from checks.kit.service import AppDidNotStart

SECRET = "c4f2a1d0e6b94f7db3a85c1e9d2f60a7b8c3e5d1"
PASSWORD = "correct horse battery staple"
ANNA = {"email": "anna@example.com", "name": "Anna", "password": PASSWORD}
BEN = {"email": "ben@example.com", "name": "Ben", "password": "another password of Ben's"}


async def test_customers_register_and_log_in(app):
    """A customer registers (201), logs in, and `GET /me` knows who it is; without a token it answers 401."""
    tokens = await logged_in(app, ANNA)
    me = await app.get("/me", headers=bearer(tokens["access_token"]))
    expect(
        me.status == 200 and (me["email"], me["name"]) == ("anna@example.com", "Anna"),
        f"Anna is logged in. {me}",
        because="Whatever is closed must not close the door to customers.",
        read="See it break",
    )
    nobody = await app.get("/me")
    expect(
        nobody.status == 401, f"Without a token: {nobody}", because="Nobody is nobody's customer.", read="See it break"
    )


async def test_finding_1_forged_tokens(app):
    """Tokens that are not signed, signed with another key or algorithm, changed, or garbage get 401."""
    token = (await logged_in(app, ANNA))["access_token"]
    key = guess_key(token) or SECRET
    head, claims, signature = token.split(".")
    others = resigned(token, key, sub="2").split(".")[1]
    await expect_refused(
        app,
        {
            "no token": "",
            "alg none": unsigned(token, "none"),
            "alg NONE": unsigned(token, "NONE"),
            "another key": resigned(token, "x" * 40),
            "another algorithm, HS512": resigned(token, key, algorithm="HS512"),
            "changed claims": f"{head}.{others}.{signature}",
            "alg RS256": f"{unsigned(token, 'RS256')}{signature}",
            "no signature": f"{head}.{claims}.",
            "garbage": "a.b.c",
            "30 000 characters": "a" * 30_000,
        },
    )


async def test_finding_2_stale_tokens(app):
    """Tokens that are expired, not valid yet, without an end, or made by or for somebody else get 401."""
    token = (await logged_in(app, ANNA))["access_token"]
    key = guess_key(token) or SECRET
    now = int(time.time())
    await expect_refused(
        app,
        {
            "expired": resigned(token, key, exp=now - 3600),
            "not valid yet": resigned(token, key, nbf=now + 3600),
            "no exp": resigned(token, key, exp=None),
            "no sub": resigned(token, key, sub=None),
            "another issuer": resigned(token, key, iss="somebody-else"),
            "another audience": resigned(token, key, aud="another-service"),
            "no audience": resigned(token, key, aud=None),
            "a number as sub": resigned(token, key, sub=1),
            "an unknown customer": resigned(token, key, sub="999999"),
            "a sub that is no id": resigned(token, key, sub="admin"),
        },
    )


async def test_finding_3_the_key_comes_from_the_environment(app):
    """Tokens are signed with HS256 and the key of JWT_SECRET, not with one that a word list finds."""
    token = (await logged_in(app, ANNA))["access_token"]
    guessed = guess_key(token)
    expect(
        guessed is None,
        f"With a list of forty words, offline, the key of a token was found: {guessed!r}.",
        because=KEY,
        read="The key",
    )
    try:
        jwt.decode(token, SECRET, algorithms=["HS256"], options={"verify_aud": False})
        ours = True
    except jwt.PyJWTError:
        ours = False
    expect(ours, "A token does not verify with HS256 and the key of JWT_SECRET.", because=KEY, read="The key")


async def test_finding_4_no_start_without_a_key(launch):
    """Without JWT_SECRET, or with one of less than 32 bytes, the service refuses to start and says why."""
    for secret in (None, "", "short-key"):
        log = ""
        try:
            await launch(env={"JWT_SECRET": secret})
        except AppDidNotStart as refusal:
            log = refusal.log
        expect(
            "jwt_secret" in log.lower() and (not secret or secret not in log),
            f"JWT_SECRET is {secret!r}. "
            + (f"It ended with: {log.splitlines()[-1]}" if log.strip() else "The service started."),
            because=KEY,
            read="The key",
        )


async def test_finding_5_passwords_are_hashed_with_argon2id(app, shop):
    """The database holds Argon2id hashes with at least the parameters that OWASP asks for, each with its own salt."""
    await registered(app, ANNA)
    await registered(app, BEN | {"password": PASSWORD})
    hashes = [row["password_hash"] for row in await shop.rows("SELECT password_hash FROM customers")]
    strong = [hashed for hashed in hashes if strong_enough(hashed)]
    expect(
        len(strong) == 2 and len(set(hashes)) == 2,
        f"Two customers with the same password are stored as {hashes[0][:34]}… and {hashes[1][:34]}…",
        because="A fast hash is tried billions of times a second once the table is stolen, and without a salt one try "
        "counts for all customers. OWASP asks for Argon2id with 19 MiB, two passes and one lane, or more.",
        read="Passwords",
    )


async def test_finding_6_old_hashes_are_replaced(app, shop):
    """A customer whose password is stored in the old way logs in, and has an Argon2id hash from then on."""
    old = hashlib.sha256(PASSWORD.encode()).hexdigest()
    await shop.add("customers", email=ANNA["email"], name="Anna", password_hash=old)
    wrong = await app.post("/auth/login", json={"email": ANNA["email"], "password": "wrong password, wrong"})
    answer = await app.post("/auth/login", json={"email": ANNA["email"], "password": PASSWORD})
    again = await app.post("/auth/login", json={"email": ANNA["email"], "password": PASSWORD})
    stored = await shop.value("SELECT password_hash FROM customers")
    expect(
        (answer.status, again.status) == (200, 200) and strong_enough(stored) and wrong.status != 200,
        f"With a wrong password {wrong.status}, with the right one {answer.status}, a second time {again.status}; "
        f"stored is {stored[:34]}…",
        because="Nobody knows the passwords but their owners. The moment at which the service sees one is the login: "
        "what can it do then that no migration can?",
        read="Passwords",
    )


async def test_finding_7_refresh_tokens_are_good_for_one_use(app):
    """A refresh gives a new pair; who uses an old token again gets 401, and so does everybody of that login."""
    first = await logged_in(app, ANNA)
    other = await app.post("/auth/login", json={"email": ANNA["email"], "password": PASSWORD})
    second = await refreshed(app, first["refresh_token"])
    expect(second.status == 200, f"{second}", because=FAMILY, read="Rotation")
    me = await app.get("/me", headers=bearer(second["access_token"]))
    expect(me.status == 200, f"With the new access token: {me}", because=FAMILY, read="Rotation")
    reuse = await refreshed(app, first["refresh_token"])
    heir = await refreshed(app, second["refresh_token"])
    elsewhere = await refreshed(app, other["refresh_token"])
    expect(
        (reuse.status, heir.status, elsewhere.status) == (401, 401, 200),
        f"The first token a second time: {reuse.status}. Its successor after that: {heir.status}. "
        f"The token of another login: {elsewhere.status}. Wanted: 401, 401, 200.",
        because=FAMILY,
        read="Rotation",
    )


async def test_finding_8_two_uses_at_once_have_one_winner(app, wire):
    """Of two refreshes with the same token at the same moment, one succeeds."""
    token = (await logged_in(app, ANNA))["refresh_token"]
    async with wire.hold(lambda statement: statement.changes) as writes:
        requests = [app.sending("POST", "/auth/refresh", json={"refresh_token": token}) for _ in range(2)]
        await writes.arrived(2, timeout=1)
    statuses = sorted([(await request).status for request in requests])
    expect(
        statuses == [200, 401],
        f"Both were on their way when the first change was sent. They were answered {statuses}.",
        because="Both read that the token is unused before either of them writes that it is used. What makes the "
        "second one wait, or its UPDATE find nothing?",
        read="Rotation",
    )


async def test_finding_9_refresh_tokens_are_not_stored(app, shop):
    """No table holds a refresh token that could be used."""
    token = (await logged_in(app, ANNA))["refresh_token"]
    found = await shop.tables_with(token)
    expect(
        not found,
        f"The token that the client got stands in {', '.join(found)}.",
        because="Whoever reads a backup is logged in as everybody. The service only has to recognise the token.",
        read="Rotation",
    )


async def test_finding_10_login_does_not_say_who_exists(app):
    """An unknown e-mail and a wrong password get the same answer."""
    await registered(app, ANNA)
    answers = [
        await app.post("/auth/login", json={"email": email, "password": "wrong password, wrong"})
        for email in (ANNA["email"], "nobody@example.com")
    ]
    expect(
        answers[0].status == answers[1].status == 401 and answers[0].text == answers[1].text,
        f"Wrong password: {answers[0].status} {answers[0].text}. Unknown e-mail: {answers[1].status} {answers[1].text}",
        because="A list of e-mails goes in, a list of customers comes out, and each is worth trying passwords on.",
        read="Work",
    )


async def test_finding_11_login_works_as_hard_for_nobody(app):
    """Refusing an unknown e-mail takes about the work of refusing a wrong password."""
    await registered(app, ANNA)
    seconds = {ANNA["email"]: [], "nobody@example.com": []}
    for _ in range(7):
        for email, taken in seconds.items():
            began = time.perf_counter()
            await app.post("/auth/login", json={"email": email, "password": "wrong password, wrong"})
            taken.append(time.perf_counter() - began)
    known, unknown = (median(taken) for taken in seconds.values())
    expect(
        unknown > known / 3,
        f"Refusing an unknown e-mail took {unknown / known:.0%} of the time of refusing a wrong password.",
        because="The answer is the same, its time is not: who measures it reads the list of customers as before. What "
        "can be verified for somebody who does not exist?",
        read="Work",
    )


async def test_finding_12_nothing_secret_leaves(app, shop):
    """No answer holds a hash, no rejected body is sent back with its password, and the log holds neither."""
    answers = [
        await app.post("/auth/register", json=ANNA),
        await app.post("/auth/register", json=BEN | {"password": "too short"}),
        await app.post("/auth/login", json={"email": ANNA["email"], "password": PASSWORD}),
        await app.post("/auth/login", json={"email": ANNA["email"], "password": "a mistyped password"}),
    ]
    tokens = answers[2]
    answers.append(await app.get("/me", headers=bearer(tokens["access_token"])))
    answers.append(await refreshed(app, tokens["refresh_token"]))
    await app.caught_up()
    stored = await shop.value("SELECT password_hash FROM customers")
    secrets = {
        "the password": PASSWORD,
        "a rejected password": "too short",
        "a mistyped password": "a mistyped password",
    }
    secrets["the hash"] = stored
    leaks = [
        f"{what} in {answer.request}" for answer in answers for what, text in secrets.items() if text in answer.text
    ]
    secrets |= {"an access token": tokens["access_token"], "a refresh token": tokens["refresh_token"]}
    leaks += [f"{what} in the log" for what, text in secrets.items() if text in app.log]
    expect(
        not leaks,
        f"Found: {'; '.join(leaks)}.",
        because="Logs are copied, searched and kept by people who may not read passwords, and what an answer holds "
        "is in somebody's browser.",
        read="What leaves",
    )


async def test_finding_13_a_deactivated_customer_is_out(app, shop):
    """Once an account is deactivated, its access token, its refresh token and its password are worth nothing."""
    tokens = await logged_in(app, ANNA)
    await shop.execute("UPDATE customers SET active = false", did="Anna's account is deactivated")
    answers = [
        await app.get("/me", headers=bearer(tokens["access_token"])),
        await refreshed(app, tokens["refresh_token"]),
        await app.post("/auth/login", json={"email": ANNA["email"], "password": PASSWORD}),
    ]
    expect(
        [answer.status for answer in answers] == [401, 401, 401],
        f"Access token: {answers[0].status}, refresh token: {answers[1].status}, login: {answers[2].status}.",
        because="A signature says who somebody was when the token was made. Who they are now stands in the database.",
        read="Who somebody is now",
    )


async def test_finding_14_orders_belong_to_who_asks(app, shop):
    """An order is placed for the customer of the token, whatever the body says, and read by nobody else."""
    anna, ben = await logged_in(app, ANNA), await logged_in(app, BEN)
    ids = {row["email"]: row["id"] for row in await shop.rows("SELECT id, email FROM customers")}
    there = await shop.has(books=1)
    order = {"customer_id": ids[BEN["email"]], "lines": [{"book_id": there.books[0], "quantity": 1}]}
    nobody = await app.post("/orders", json=order)
    placed = await app.post("/orders", json=order, headers=bearer(anna["access_token"]))
    for_ben = await shop.count("orders", "customer_id = $1", ids[BEN["email"]])
    expect(
        nobody.status == 401 and for_ben == 0,
        f"Without a token: {nobody.status}. Anna's order with Ben's number in it: {placed.status}, and Ben has "
        f"{for_ben} orders now.",
        because="A body says what its sender likes. Who the sender is, the token says.",
        read="Who somebody is now",
    )
    own = await app.post("/orders", json={"lines": order["lines"]}, headers=bearer(anna["access_token"]))
    expect(own.status == 201, f"Anna's own order: {own}", because="Customers must be able to order.")
    read = [await app.get(f"/orders/{own['id']}", headers=bearer(who["access_token"])) for who in (anna, ben)]
    expect(
        read[0].status == 200 and not read[1].ok,
        f"Anna's order, read by Anna: {read[0].status}, by Ben: {read[1].status}.",
        because="Numbers of orders can be counted up. To be logged in is not to be allowed.",
        read="Who somebody is now",
    )


def bearer(token):
    return {"Authorization": f"Bearer {token}"} if token else {}


async def registered(app, who):
    answer = await app.post("/auth/register", json=who)
    expect(answer.status == 201, f"{answer}", because="Customers must be able to register.", read="See it break")


async def logged_in(app, who):
    await registered(app, who)
    answer = await app.post("/auth/login", json={"email": who["email"], "password": who["password"]})
    expect(answer.status == 200, f"{answer}", because="Customers must be able to log in.", read="See it break")
    return answer


async def refreshed(app, token):
    return await app.post("/auth/refresh", json={"refresh_token": token})


async def expect_refused(app, tokens):
    answers = await asyncio.gather(*(app.get("/me", headers=bearer(token)) for token in tokens.values()))
    by_kind = dict(zip(tokens, answers, strict=True))
    not_401 = [f"{kind} ({answer.status})" for kind, answer in by_kind.items() if answer.status != 401]
    bare = [
        kind
        for kind, answer in by_kind.items()
        if answer.status == 401 and "bearer" not in answer.headers.get("www-authenticate", "").lower()
    ]
    expect(
        not not_401 and not bare,
        (f"Not refused with 401: {', '.join(not_401)}. " if not_401 else "Each got 401. ")
        + (f"401 without `WWW-Authenticate: Bearer`: {', '.join(bare)}." if bare else ""),
        because="Whoever can make a token is any customer. What is believed must be said by the service: the "
        "algorithm, the issuer, the audience, and that there is an end at all; all of it, or 401.",
        read="A token, taken apart",
    )


def strong_enough(hashed):
    """Argon2id with at least m=19456 KiB, t=2, p=1: OWASP's Password Storage Cheat Sheet."""
    match = re.match(r"\$argon2id\$v=19\$m=(\d+),t=(\d+),p=(\d+)\$", hashed)
    return bool(match) and [int(match[1]) >= 19456, int(match[2]) >= 2, int(match[3]) >= 1] == [True] * 3


KEY = (
    "Who knows the key is every customer, and a key that stands in the code is known to everybody who ever saw the "
    "code. One of less than 32 bytes can be guessed offline from a single token, without a request to the service."
)
FAMILY = (
    "A refresh token lives for weeks; a stolen one as well. If each is good for one use, the second use tells of the "
    "theft: either the thief or the owner comes too late. Since nobody knows which, both have to log in again."
)
