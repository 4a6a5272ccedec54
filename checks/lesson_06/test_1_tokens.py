"""Lesson 06: a pen-test report, finding by finding. Here: who is let in, access tokens, and the key that signs them."""

import asyncio
import time

import pytest

from checks.kit.report import expect
from checks.kit.service.app import AppDidNotStart
from checks.lesson_06.doors import FORGED, SECTION, doors_of, expect_open, expect_refused, parameters_of
from checks.lesson_06.forgery import (
    NULL,
    claims_of,
    guess_key,
    header_of,
    own_key_in_the_header,
    resigned,
    unsigned,
    verifies,
)
from checks.lesson_06.people import ANNA, BEN, bearer, id_of, log_in, logged_in, refresh, registered

SECRET = "c4f2a1d0e6b94f7db3a85c1e9d2f60a7b8c3e5d1"
OTHER_KEY = "a key of the attacker's own, long enough"
SHORT_KEY = "Qz7~Vx9^Kj4`Wp2|Gy6}Bn8{Hd5;Mf3"
"""31 bytes, none of which looks like anything that a service would print by itself."""


async def test_customers_register_and_log_in(app, shop, wire):
    """Customers register, log in and read `GET /me` (401 without a token). While the database is down: 503, not 401."""
    long = ANNA | {"password": "correct 🐎 battery staple, " * 3 + "A"}
    await registered(app, BEN)
    tokens = await logged_in(app, long)
    me = await app.get("/me", headers=bearer(tokens["access_token"]))
    wanted = {"id": await id_of(shop, ANNA), "email": ANNA["email"], "name": ANNA["name"]}
    expect(
        me.status == 200 and {name: me[name] for name in wanted} == wanted,
        f"Anna has logged in. {me}. Expected: 200 and {wanted}.",
        because="A customer who has logged in must see their own account.",
        section="See it break",
    )
    close = {
        "another last character": long["password"][:-1] + "B",
        "capitals for its small letters": long["password"].upper(),
        "another emoji": long["password"].replace("🐎", "🐄"),
    }
    others = await asyncio.gather(*(log_in(app, long, password) for password in close.values()))
    for how, other in zip(close, others, strict=True):
        expect(
            other.status == 401,
            f"Anna's password has {len(long['password'])} characters. With {how}: {other}. Expected: 401.",
            because="If a part of the password is enough, a long password protects no better than a short one.",
            section="Password hashes, fast and slow",
        )
    again = await app.post("/auth/register", json=long)
    expect(
        again.status == 409,
        f"A second registration with Anna's e-mail: {again}. Expected: 409, as handed out.",
        because="Somebody who forgot that they have an account has to learn it, and nobody may take the account over.",
    )
    nobody = await app.get("/me")
    expect(
        nobody.status == 401,
        f"Without a token: {nobody}. Expected: 401.",
        because="What is shown to a request without a token is shown to everybody.",
        section="See it break",
    )
    late = await log_in_as_the_database_leaves(app, wire, long)
    expect(
        late.status in (200, 503),
        f"The database went away after a login had read Anna's row. Her password is right: {late}. Expected: 503.",
        because=LOGGED_OUT if late.status < 500 else NOT_503,
        section="Who the customer is now, and what they may do",
    )
    doors = await doors_of(shop, wanted["id"])
    async with wire.refusing():
        await wire.cut()
        responses = [await door.knock(app, tokens["access_token"]) for door in doors]
        responses.append(await refresh(app, tokens["refresh_token"]))
        responses.append(await log_in(app, long))
    refused = [f"{response.request} → {response.status}" for response in responses if response.status != 503]
    expect(
        not refused,
        f"While the database refused every connection, Anna's valid tokens and password got: {', '.join(refused)}. "
        "Expected: 503, as since lesson 04.",
        because=LOGGED_OUT if any(response.status < 500 for response in responses) else NOT_503,
        section="Who the customer is now, and what they may do",
    )
    at_a_loss = [response.request for response in responses if "retry-after" not in response.headers]
    expect(
        not at_a_loss,
        f"While the database refused every connection, these returned 503 without the header Retry-After: "
        f"{', '.join(at_a_loss)}. Expected: with it, as since lesson 04.",
        because="The header tells a client that the same request can succeed soon, and when to send it again.",
        section="Who the customer is now, and what they may do",
    )


async def test_finding_1_forged_tokens(app, shop):
    """Tokens that are unsigned, signed with another key or algorithm, changed, or garbage get 401, everywhere."""
    anna, ben = await logged_in(app, ANNA), await logged_in(app, BEN)
    token, key = anna["access_token"], guess_key(anna["access_token"]) or SECRET
    head, claims, signature = token.split(".")
    doors = await doors_of(shop, await id_of(shop, ANNA))
    await expect_open(app, doors, token, "Anna's token")
    await expect_refused(
        app,
        shop,
        doors,
        {
            "nothing in it": "",
            "alg none": unsigned(token, "none"),
            "alg None": unsigned(token, "None"),
            "alg NONE": unsigned(token, "NONE"),
            "no alg": resigned(token, key, header={"typ": "JWT"}),
            "the signature of another key": resigned(token, OTHER_KEY),
            "the signature of an empty key": resigned(token, ""),
            "the signature of the key `bookshop`": resigned(token, "bookshop" if key != "bookshop" else OTHER_KEY),
            "its own key in the header": resigned(token, OTHER_KEY, header=own_key_in_the_header(OTHER_KEY)),
            "algorithm HS384": resigned(token, key, algorithm="HS384"),
            "algorithm HS512": resigned(token, key, algorithm="HS512"),
            "alg RS256, and the key used for an HMAC": resigned(token, key, header={"alg": "RS256", "typ": "JWT"}),
            "alg RS256": f"{unsigned(token, 'RS256')}{signature}",
            "changed claims": f"{head}.{claims_for(token, await id_of(shop, BEN))}.{signature}",
            "the signature of Ben's token": f"{head}.{claims}.{ben['access_token'].split('.')[2]}",
            "no signature": f"{head}.{claims}.",
            "two parts": f"{head}.{claims}",
            "garbage in each part": "a.b.c",
            "30,000 characters": "a" * 30_000,
        },
    )
    for door in doors:
        for scheme in ("Basic", "Digest"):
            response = await door.knock(app, "", headers={"Authorization": f"{scheme} {token}"})
            expect(
                response.status == 401,
                f"{door} with a genuine token, but with `{scheme}` in place of `Bearer`: {response}. Expected: 401.",
                because="A header that is not `Authorization: Bearer` is not the agreed way to show a token.",
                section=SECTION,
            )
        await expect_no_key_from_outside(app, door, resigned(token, OTHER_KEY))


@pytest.mark.start_early
async def test_finding_2_stale_tokens(app, shop):
    """Tokens that are expired, not valid yet, without an expiry, or with the wrong issuer or audience get 401."""
    tokens = await logged_in(app, ANNA)
    token, key = tokens["access_token"], guess_key(tokens["access_token"]) or SECRET
    renewed = await refresh(app, tokens["refresh_token"])
    now, anna = int(time.time()), await id_of(shop, ANNA)
    for origin, given in {"a login": tokens, "a refresh": renewed}.items():
        expiry = claims_of(given["access_token"]).get("exp")
        lasts = "has no expiry" if expiry is None else f"expires after {(expiry - now) / 60:.0f} minutes"
        expect(
            expiry is not None and expiry - now <= 3600,
            f"The access token of {origin} {lasts}. Expected: at most 60 minutes.",
            because="Anybody who finds a token in a log or a browser can use it until it expires.",
            section="Refresh tokens that work once",
        )
    doors = await doors_of(shop, anna)
    await expect_open(app, doors, token, "Anna's token")
    unknown = await shop.value("SELECT max(id) + 1000 FROM customers")
    await expect_refused(
        app,
        shop,
        doors,
        {
            "an exp of ten minutes ago": resigned(token, key, exp=now - 600),
            "an exp of last year": resigned(token, key, exp=now - 365 * 86400),
            "an exp that is text, and past": resigned(token, key, exp=str(now - 3600)),
            "the exp `never`": resigned(token, key, exp="never"),
            "no exp": resigned(token, key, exp=None),
            "the exp null": resigned(token, key, exp=NULL),
            "an nbf in an hour": resigned(token, key, nbf=now + 3600),
            "no sub": resigned(token, key, sub=None),
            "the sub null": resigned(token, key, sub=NULL),
            "a sub that is a number": resigned(token, key, sub=anna),
            "a sub that is a list": resigned(token, key, sub=[str(anna)]),
            "an empty sub": resigned(token, key, sub=""),
            "the sub `admin`": resigned(token, key, sub="admin"),
            "the sub `²`": resigned(token, key, sub="²"),
            "a sub that is a number with a fraction": resigned(token, key, sub=f"{anna}.9"),
            "the sub of no customer": resigned(token, key, sub=str(unknown)),
            "no iss": resigned(token, key, iss=None),
            "another issuer": resigned(token, key, iss="somebody-else"),
            "an issuer that begins like ours": resigned(token, key, iss="bookshop-staging"),
            "an issuer that is the beginning of ours": resigned(token, key, iss="book"),
            "no aud": resigned(token, key, aud=None),
            "another audience": resigned(token, key, aud="another-service"),
            "an audience that is the beginning of ours": resigned(token, key, aud="bookshop"),
            "an audience that begins like ours": resigned(token, key, aud="bookshop-api-admin"),
            "an audience that ends like ours": resigned(token, key, aud="another-bookshop-api"),
            "a list of other audiences": resigned(token, key, aud=["another-service", "bookshop"]),
        },
    )
    await expect_refused(app, shop, doors, {"a refresh token in it": renewed["refresh_token"]})
    confused = await refresh(app, token)
    expect(
        not confused.ok,
        f"An access token in place of a refresh token: {confused.status}. Expected: 401.",
        because="If an access token can be refreshed, a thief of one stays logged in for longer than an hour.",
        section="Refresh tokens that work once",
    )
    await expect_expiry_is_looked_at_each_time(app, doors, token, key)


async def test_finding_3_the_key_comes_from_the_environment(app):
    """Tokens are signed with HS256 and the key of JWT_SECRET, not with one that a word list finds."""
    first = await logged_in(app, ANNA)
    second = await refresh(app, first["refresh_token"])
    for origin, tokens in {"a login": first, "a refresh": second}.items():
        token = tokens["access_token"]
        guessed = guess_key(token)
        expect(
            guessed is None,
            f"The access token of {origin} was signed with the key {guessed!r}: one of forty words, tried offline. "
            "Expected: the key in JWT_SECRET.",
            because=KEY,
            section="A short key is found offline",
        )
        expect(
            verifies(token, SECRET),
            f"The access token of {origin} says {header_of(token)} and cannot be verified with HS256 and JWT_SECRET. "
            "Expected: HS256, and a signature with that key.",
            because="Other services verify our tokens with this key. And if it leaks, replacing JWT_SECRET has to "
            "replace the key.",
            section="A short key is found offline",
        )


@pytest.mark.start_early
async def test_finding_4_no_start_without_a_key(launch):
    """Without JWT_SECRET, or with one of less than 32 bytes, the service refuses to start and says why."""
    secrets = {"not set": None, "empty": "", "31 bytes long": SHORT_KEY}
    key = SHORT_KEY + "!"
    *refusals, without_database = await asyncio.gather(
        *(refusal(launch, JWT_SECRET=secret) for secret in secrets.values()),
        refusal(launch, JWT_SECRET=key, DATABASE_URL=None),
    )
    for kind, refused in zip(secrets, refusals, strict=True):
        expect(
            refused is not None,
            f"JWT_SECRET is {kind}, and the service started. Expected: it refuses.",
            because=KEY,
            section="A short key is found offline",
        )
        expect(
            "jwt_secret" in refused.log.lower(),
            f"JWT_SECRET is {kind}. The service ended without naming JWT_SECRET; its last line: "
            f"{last_line(refused.log.strip())}",
            because="The person who deploys at night has to know which setting is wrong.",
            section="A short key is found offline",
        )
        expect(
            refused.code != 0,
            f"JWT_SECRET is {kind}. The service ended with exit code 0. Expected: another one, such as 1.",
            because="Exit code 0 means success. A process manager that goes by it does not try again and reports no "
            "failure, and the shop stays closed.",
            section="A short key is found offline",
        )
    app = await launch(env={"JWT_SECRET": key})
    token = (await logged_in(app, ANNA))["access_token"]
    logs = {
        "31 bytes long, and the service ended": refusals[-1].log,
        "32 bytes long, DATABASE_URL is not set, and the service ended": without_database.log
        if without_database
        else "",
        "32 bytes long": app.log,
    }
    for when, log in logs.items():
        shown = [line for line in log.splitlines() if any(part in line for part in parts(SHORT_KEY, 3))]
        expect(
            not shown,
            f"JWT_SECRET is {when}. The log holds a part of it: {last_line(shown[0]) if shown else ''}",
            because="Logs are copied and searched by people who must not have the key, and a rejected key is often "
            "the right one with a mistake in it.",
            section="A short key is found offline",
        )
    expect(
        verifies(token, key),
        "The service was started with another JWT_SECRET, of 32 bytes, and did not sign with that one.",
        because="If the key leaks, replacing JWT_SECRET has to replace it.",
        section="A short key is found offline",
    )


LOGGED_OUT = "A client that reads 401 forgets its tokens: a database that restarts would log every customer out."
NOT_503 = (
    "503 says that the same request can succeed soon. Any other error of the service says that something is broken: "
    "the customer gives up, and the person on call is woken up for each database that restarts."
)
KEY = "Anybody with the key can be any customer, and a short or guessable key can be found offline from a single token."


async def expect_no_key_from_outside(app, door, token):
    """A documented parameter does not choose the key: FastAPI makes one of each argument that it does not know."""
    names = await parameters_of(app, door)
    query = dict.fromkeys(names.get("query", []), OTHER_KEY)
    headers = dict.fromkeys((name for name in names.get("header", []) if name.lower() != "authorization"), OTHER_KEY)
    if query or headers:
        response = await door.knock(app, token, params=query, headers=headers)
        expect(
            not response.ok,
            f"{door} accepted a token of another key, sent with that key as {', '.join(query | headers)}: {response}",
            because=FORGED,
            section="A short key is found offline",
        )


async def expect_expiry_is_looked_at_each_time(app, doors, token, key):
    """A token that was accepted before is refused as soon as the service refuses another one of the same expiry."""

    def expiring(at, number):
        return resigned(token, key, exp=at, iat=int(time.time()) - number)

    async def accepted(one):
        return (await app.get("/me", headers=bearer(one))).ok

    leeway, too_late = -3, 601  # a service may allow for clocks that differ
    while too_late - leeway > 1:
        middle = (leeway + too_late) // 2
        if await accepted(expiring(int(time.time()) - middle, 60)):
            leeway = middle
        else:
            too_late = middle
    soon = int(time.time()) - leeway + 1
    used = expiring(soon, 60)
    before = [await door.knock(app, used) for door in doors]
    await asyncio.sleep(max(0, soon + leeway - time.time()))  # no token expires earlier: one machine, one clock
    for number in range(61, 161):
        if not await accepted(expiring(soon, number)):
            break
        await asyncio.sleep(0.05)  # between two looks at the service's clock
    after = [await door.knock(app, used) for door in doors]
    kept = [
        f"{door} ({late.status})"
        for door, early, late in zip(doors, before, after, strict=True)
        if early.ok and late.status != 401
    ]
    expect(
        not kept,
        f"A token was used and then expired: another one with the same expiry was refused. The used one still got: "
        f"{', '.join(kept)}. Expected: 401.",
        because="A stolen token keeps working for as long as the service remembers it.",
        section=SECTION,
    )


async def refusal(launch, **env):
    """How the service refused to start with these settings; None if it started."""
    try:
        await launch(env=env)
    except AppDidNotStart as refused:
        return refused
    return None


async def log_in_as_the_database_leaves(app, wire, who):
    """The response of a login for which the database is gone once the transaction that read the customer has ended.

    A login that needs one transaction only is over by then, and succeeds. Another one is about to take a connection
    from the pool, or to use it.
    """
    async with wire.hold(lambda statement: True) as held:
        request = app.start_request("POST", "/auth/login", json={"email": who["email"], "password": who["password"]})
        has_read = ended = False
        while await held.wait_for_or(request.task):
            [statement, *_] = held.waiting
            if ended:
                async with wire.refusing():
                    await wire.cut()
                    return await request
            has_read = has_read or statement.data
            ended = has_read and statement.verb in ("COMMIT", "ROLLBACK")
            held.release_one()
    return await request


def claims_for(token, customer_id):
    return resigned(token, "", sub=str(customer_id)).split(".")[1]


def parts(text, length):
    return [text[start : start + length] for start in range(len(text) - length + 1)]


def last_line(log):
    return log.splitlines()[-1] if log else "(nothing)"
