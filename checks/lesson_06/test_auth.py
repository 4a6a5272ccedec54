"""Lesson 06: a pen-test report, finding by finding."""

import asyncio
import hashlib
import re
import time
from statistics import median

import jwt
import pytest

from checks.kit.forgery import claims_of, guess_key, resigned, unsigned
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
    alike = await app.post("/auth/login", json={"email": ANNA["email"], "password": PASSWORD[:-1] + "?"})
    expect(alike.status != 200, f"A password with another end: {alike}", because="All of it is the password.")
    again = await app.post("/auth/register", json=ANNA)
    expect(
        400 <= again.status < 500,
        f"The same e-mail a second time: {again}",
        because="The e-mail is unique: that is an answer, no accident.",
    )
    nobody = await app.get("/me")
    expect(
        nobody.status == 401, f"Without a token: {nobody}", because="Nobody is nobody's customer.", read="See it break"
    )


async def test_finding_1_forged_tokens(app, shop):
    """Tokens that are not signed, signed with another key or algorithm, changed, or garbage get 401, everywhere."""
    token = (await logged_in(app, ANNA))["access_token"]
    key = guess_key(token) or SECRET
    head, claims, signature = token.split(".")
    others = resigned(token, key, sub="2").split(".")[1]
    await expect_refused(
        app,
        shop,
        {
            "no token": "",
            "alg none": unsigned(token, "none"),
            "alg NONE": unsigned(token, "NONE"),
            "another key": resigned(token, "x" * 40),
            "the key of last year, bookshop": resigned(token, "bookshop" if key != "bookshop" else "x" * 40),
            "another algorithm, HS384": resigned(token, key, algorithm="HS384"),
            "another algorithm, HS512": resigned(token, key, algorithm="HS512"),
            "changed claims": f"{head}.{others}.{signature}",
            "alg RS256": f"{unsigned(token, 'RS256')}{signature}",
            "no signature": f"{head}.{claims}.",
            "garbage": "a.b.c",
            "30 000 characters": "a" * 30_000,
        },
    )
    for kind, header in {"without a scheme": token, "another scheme": f"Basic {token}"}.items():
        answer = await app.get("/me", headers={"Authorization": header})
        expect(
            answer.status == 401,
            f"A genuine token {kind}: {answer.status}.",
            because="What is not `Authorization: Bearer` is not what was agreed upon.",
            read="A token, taken apart",
        )


async def test_finding_2_stale_tokens(app, shop):
    """Tokens that are expired, not valid yet, without an end, or made by or for somebody else get 401, everywhere."""
    token = (await logged_in(app, ANNA))["access_token"]
    key = guess_key(token) or SECRET
    now = int(time.time())
    minutes = (claims_of(token).get("exp", now) - now) / 60
    expect(
        minutes <= 60,
        f"An access token is good for {minutes:.0f} minutes.",
        because="Nothing takes an access token back. How long may a stolen one be good for?",
        read="Rotation",
    )
    await expect_refused(
        app,
        shop,
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
    for secret in (None, "", "short-key", SECRET[:31]):
        try:
            await launch(env={"JWT_SECRET": secret})
            happened = "The service started."
        except AppDidNotStart as refusal:
            log = refusal.log.strip()
            if secret and secret in log:
                happened = f"It ended, and printed the key: {log.splitlines()[-1]}"
            elif "jwt_secret" not in log.lower():
                happened = f"It ended without naming JWT_SECRET; its last line is {log.splitlines()[-1:]}."
            else:
                continue
        expect(False, f"JWT_SECRET is {secret!r}. {happened}", because=KEY, read="The key")
    await launch(env={"JWT_SECRET": SECRET[:32]})  # and of 32 it starts


async def test_finding_5_passwords_are_hashed_with_argon2id(app, shop):
    """The database holds Argon2id hashes with at least the parameters that OWASP asks for, each with its own salt."""
    await registered(app, ANNA)
    await registered(app, BEN | {"password": PASSWORD})
    hashes = [row["password_hash"] for row in await shop.rows("SELECT password_hash FROM customers")]
    weak = [weakness(hashed) for hashed in hashes if weakness(hashed)]
    if not weak and len(set(hashes)) < 2:
        weak = ["the same hash for both: the salt is the same as well"]
    expect(
        not weak,
        f"Two customers with the same password are stored as {hashes[0][:34]}… and {hashes[1][:34]}…: {weak[:1]}.",
        because="A fast hash is tried billions of times a second once the table is stolen, and without a salt one try "
        "counts for all customers. OWASP asks for Argon2id with 19 MiB, two passes and one lane, or what equals it.",
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
        (answer.status, again.status) == (200, 200) and not weakness(stored) and wrong.status != 200,
        f"With a wrong password {wrong.status}, with the right one {answer.status}, a second time {again.status}; "
        f"stored is {stored[:34]}…",
        because="Nobody knows the passwords but their owners. The moment at which the service sees one is the login: "
        "what can it do then that no migration can?",
        read="Passwords",
    )
    await shop.add("customers", email=BEN["email"], name="Ben", password_hash=old)
    await shop.add("customers", email="empty@example.com", name="No password", password_hash="")
    for email, password, what in (
        (BEN["email"], old, "with the stored hash as the password"),
        (BEN["email"], "", "without a password"),
        ("empty@example.com", "", "of an account without a password, without one"),
        ("empty@example.com", PASSWORD, "of an account without a password, with any"),
    ):
        answer = await app.post("/auth/login", json={"email": email, "password": password})
        expect(
            not answer.ok,
            f"A login {what}: {answer}",
            because="Whoever has a copy of the table has the hashes: these must not open anything by themselves.",
            read="Passwords",
        )


async def test_finding_7_refresh_tokens_are_good_for_one_use(app, shop):
    """A refresh gives a new pair; who uses an old token again gets 401, and so does every token of that login."""
    first = await logged_in(app, ANNA)
    other = await app.post("/auth/login", json={"email": ANNA["email"], "password": PASSWORD})
    second = await refreshed(app, first["refresh_token"])
    expect(second.status == 200, f"{second}", because=FAMILY, read="Rotation")
    me = await app.get("/me", headers=bearer(second["access_token"]))
    expect(me.status == 200, f"With the new access token: {me}", because=FAMILY, read="Rotation")
    heir = second
    for _ in range(3):
        heir = await refreshed(app, heir["refresh_token"])
        expect(heir.status == 200, f"Refreshed with the token of a refresh: {heir}", because=FAMILY, read="Rotation")
    reuse = await refreshed(app, first["refresh_token"])
    last = await refreshed(app, heir["refresh_token"])
    elsewhere = await refreshed(app, other["refresh_token"])
    expect(
        (reuse.status, last.status, elsewhere.status) == (401, 401, 200),
        f"The first token a second time: {reuse.status}. The last one that came from it, after that: {last.status}. "
        f"The token of another login: {elsewhere.status}. Wanted: 401, 401, 200.",
        because=FAMILY,
        read="Rotation",
    )
    await shop.execute("UPDATE refresh_tokens SET expires_at = now() - interval '1 minute'", did="all tokens expire")
    late = await refreshed(app, elsewhere["refresh_token"])
    expect(late.status == 401, f"An expired refresh token: {late.status}.", because=FAMILY, read="Rotation")


async def test_finding_8_two_uses_at_once_have_one_winner(launch, wire):
    """Of two refreshes with the same token at the same moment, one succeeds, whichever process they reach."""
    apps = [await launch(), await launch()]
    token = (await logged_in(apps[0], ANNA))["refresh_token"]
    async with wire.hold(lambda statement: statement.changes) as writes:
        requests = [app.sending("POST", "/auth/refresh", json={"refresh_token": token}) for app in apps]
        await writes.arrived(2, timeout=1)
    statuses = sorted([(await request).status for request in requests])
    expect(
        statuses == [200, 401],
        f"Two processes of the service were each asked once, and both were on their way when the first change was "
        f"sent. They answered {statuses[0]} and {statuses[1]}. Wanted: 200 and 401.",
        because="Both read that the token is unused before either of them writes that it is used. What makes the "
        "second one wait, or its UPDATE find nothing?",
        read="Rotation",
    )


async def test_finding_9_refresh_tokens_are_not_stored(app, shop):
    """No table holds a refresh token that could be used, and none can be guessed."""
    token = (await logged_in(app, ANNA))["refresh_token"]
    found = await shop.tables_with(token)
    expect(
        not found,
        f"The token that the client got stands in {', '.join(found)}.",
        because=BACKUP,
        read="Rotation",
    )
    [row] = await shop.rows("SELECT * FROM refresh_tokens")
    for column, value in row.items():
        if isinstance(value, str):
            answer = await refreshed(app, value)
            expect(
                answer.status != 200,
                f"Refreshed with what stands in refresh_tokens.{column}: {answer.status}.",
                because=BACKUP,
                read="Rotation",
            )
    expect(
        len(token) >= 22,
        f"A refresh token has {len(token)} characters.",
        because="128 random bits are 22 characters of base64. What is shorter can be guessed.",
        read="Rotation",
    )


async def test_finding_10_login_does_not_say_who_exists(app):
    """An unknown e-mail and a wrong password get the same answer."""
    await registered(app, ANNA)
    answers = [
        await app.post("/auth/login", json={"email": email, "password": "wrong password, wrong"})
        for email in (ANNA["email"], "nobody@example.com")
    ]
    headers = [{name: value for name, value in answer.headers.items() if name.lower() != "date"} for answer in answers]
    expect(
        answers[0].status == answers[1].status == 401
        and answers[0].text == answers[1].text
        and headers[0] == headers[1],
        f"Wrong password: {answers[0].status} {answers[0].text} {headers[0]}. "
        f"Unknown e-mail: {answers[1].status} {answers[1].text} {headers[1]}.",
        because="A list of e-mails goes in, a list of customers comes out, and each is worth trying passwords on.",
        read="Work",
    )


@pytest.mark.alone
async def test_finding_11_login_works_as_hard_for_nobody(app, shop):
    """Refusing an unknown e-mail, an old hash or a deactivated account takes about the work of a wrong password."""
    await registered(app, ANNA)
    await registered(app, BEN)
    await shop.execute("UPDATE customers SET active = false WHERE email = $1", BEN["email"], did="Ben is deactivated")
    old = hashlib.sha256(PASSWORD.encode()).hexdigest()
    await shop.add("customers", email="old@example.com", name="Old", password_hash=old)
    seconds = {ANNA["email"]: [], "nobody@example.com": [], BEN["email"]: [], "old@example.com": []}
    for _ in range(7):
        for email, taken in seconds.items():
            began = time.perf_counter()
            await app.post("/auth/login", json={"email": email, "password": "wrong password, wrong"})
            taken.append(time.perf_counter() - began)
    known, *others = (median(taken) for taken in seconds.values())
    kinds = ("an unknown e-mail", "a deactivated account", "an account with an old hash")
    quick = [f"{kind} {other / known:.0%}" for kind, other in zip(kinds, others, strict=True) if other <= known / 2]
    expect(
        not quick,
        f"Of the time of refusing a wrong password, refusing took for {', '.join(quick)}.",
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
        await app.post("/auth/login", json={"password": PASSWORD}),
        await app.post("/auth/register", json={"name": "Anna", "password": PASSWORD}),
        await app.post("/auth/register", json=ANNA | {"name": "Anna again"}),
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
    there = await shop.has(books=1)
    order = {"lines": [{"book_id": there.books[0], "quantity": 1}]}
    before = await app.get("/me", headers=bearer(tokens["access_token"]))
    expect(before.status == 200, f"{before}", because="Customers must be able to come in.", read="See it break")
    await shop.execute("UPDATE customers SET active = false", did="Anna's account is deactivated")
    answers = {
        "access token at /me": await app.get("/me", headers=bearer(tokens["access_token"])),
        "access token at /orders": await app.post("/orders", json=order, headers=bearer(tokens["access_token"])),
        "refresh token": await refreshed(app, tokens["refresh_token"]),
        "password": await app.post("/auth/login", json={"email": ANNA["email"], "password": PASSWORD}),
    }
    let_in = [f"{what} ({answer.status})" for what, answer in answers.items() if answer.status != 401]
    expect(
        not let_in,
        f"Wanted is 401. Otherwise answered: {', '.join(let_in)}.",
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
    claimed = placed["customer_id"] if placed.ok else None
    expect(
        nobody.status == 401 and for_ben == 0 and claimed != ids[BEN["email"]],
        f"Without a token: {nobody.status}. Anna's order with Ben's number in it: {placed.status}, and Ben has "
        f"{for_ben} orders now; the answer says that it is customer {claimed}'s.",
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


async def expect_refused(app, shop, tokens):
    """Each of the tokens gets 401 at /me and at /orders, which asks for a login as well."""
    there = await shop.has(books=1)
    order = {"lines": [{"book_id": there.books[0], "quantity": 1}]}
    doors = {
        "/me": lambda token: app.get("/me", headers=bearer(token)),
        "/orders": lambda token: app.post("/orders", json=order, headers=bearer(token)),
    }
    for door, knock in doors.items():
        answers = await asyncio.gather(*(knock(token) for token in tokens.values()))
        by_kind = dict(zip(tokens, answers, strict=True))
        not_401 = [f"{kind} ({answer.status})" for kind, answer in by_kind.items() if answer.status != 401]
        bare = [
            kind
            for kind, answer in by_kind.items()
            if answer.status == 401 and "bearer" not in answer.headers.get("www-authenticate", "").lower()
        ]
        expect(
            not not_401 and not bare,
            (f"At {door} not refused with 401: {', '.join(not_401)}. " if not_401 else f"At {door} each got 401. ")
            + (f"401 without `WWW-Authenticate: Bearer`: {', '.join(bare)}." if bare else ""),
            because="Whoever can make a token is any customer. What is believed must be said by the service: the "
            "algorithm, the issuer, the audience, and that there is an end at all; all of it, or 401.",
            read="A token, taken apart",
        )


OWASP = ((47104, 1), (19456, 2), (12288, 3), (9216, 4), (7168, 5))
"""Memory in KiB and passes of Argon2id that its Password Storage Cheat Sheet holds to be equal, with one lane."""


def weakness(hashed):
    """What is wrong with a stored hash; empty if nothing is."""
    match = re.match(r"\$argon2id\$v=19\$m=(\d+),t=(\d+),p=(\d+)\$([^$]+)\$([^$]+)$", hashed)
    if not match:
        return "no Argon2id"
    memory, passes, _ = (int(number) for number in match.groups()[:3])
    salt, tag = (len(part) * 3 // 4 for part in match.groups()[3:])
    if not any(memory >= least and passes >= times for least, times in OWASP):
        return f"m={memory}, t={passes} is less than OWASP's m=19456, t=2, and than what equals it"
    return f"a salt of {salt} and a hash of {tag} bytes" if salt < 16 or tag < 16 else ""


KEY = (
    "Who knows the key is every customer, and a key that stands in the code is known to everybody who ever saw the "
    "code. One of less than 32 bytes can be guessed offline from a single token, without a request to the service."
)
BACKUP = "Whoever reads a backup is logged in as everybody. The service only has to recognise the token."
FAMILY = (
    "A refresh token lives for weeks; a stolen one as well. If each is good for one use, the second use tells of the "
    "theft: either the thief or the owner comes too late. Since nobody knows which, both have to log in again."
)
