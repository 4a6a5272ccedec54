"""Lesson 06: a pen-test report, finding by finding. Here: refresh tokens."""

import asyncio
import base64
import binascii
import codecs
import contextlib
import hashlib
import itertools
import math
from collections import Counter
from datetime import timedelta

import pytest

from checks.kit.report import expect
from checks.kit.testbed.waiting import responded_while_held
from checks.kit.wire import committing
from checks.lesson_06.forgery import is_jwt, resigned, unsigned
from checks.lesson_06.people import ANNA, BEN, bearer, log_in, logged_in, refresh

STAY = "A customer who uses the shop every day must not have to log in every hour."
THIEF = (
    "After a second use either the thief or the owner holds the newest token, and nobody knows which. While any token "
    "of that login works, the thief may stay logged in for ever."
)
OTHERS = "An alarm about one login must not throw out the customer's other devices, or other customers."
BACKUP = "Anybody who reads a backup of the table could use this to stay logged in as every customer."
GUESS = "Anybody who guesses a refresh token is logged in as that customer, for weeks."


AGED = """
    UPDATE refresh_tokens SET used_at = used_at - interval '31 days', expires_at = expires_at - interval '31 days'
    WHERE used_at IS NOT NULL
"""
SHORTER = """
    SELECT first.expires_at - now() AS at_login, later.expires_at - now() AS at_refresh
    FROM refresh_tokens AS first JOIN refresh_tokens AS later USING (family)
    WHERE later.id > first.id AND later.expires_at < first.expires_at - interval '1 minute'
"""


@pytest.mark.start_early
async def test_finding_7_refresh_tokens_are_good_for_one_use(app, launch, shop, wire):
    """A refresh gives a new pair. A second use of a token gets 401, and then so does every token of that login."""
    another = await launch()  # a second process, which knows what is in the database, and not more
    first = await logged_in(app, ANNA)
    ben = await logged_in(app, BEN)
    chain = [first, await refresh(app, first["refresh_token"])]
    for _ in range(2):
        expect(
            chain[-1].status == 200,
            f"A refresh with the newest token of a login: {chain[-1]}. Expected: 200.",
            because=STAY,
            section="Refresh tokens that work once",
        )
        chain.append(await refresh(app, chain[-1]["refresh_token"]))
    expect(
        chain[-1].status == 200,
        f"A refresh with the newest token of a login: {chain[-1]}. Expected: 200.",
        because=STAY,
        section="Refresh tokens that work once",
    )
    for who, tokens in ((ANNA, chain[-1]), (BEN, ben := await refresh(app, ben["refresh_token"]))):
        me = await app.get("/me", headers=bearer(tokens["access_token"]))
        expect(
            me.status == 200 and me["email"] == who["email"],
            f"{who['name']} has refreshed. With the new access token: {me}. Expected: 200 and {who['email']}.",
            because=STAY,
            section="Refresh tokens that work once",
        )
    elsewhere = await logged_in(app, ANNA, register=False)
    await expect_no_shorter(shop)
    async with wire.hold(committing) as commits:
        request = another.start_request("POST", "/auth/refresh", json={"refresh_token": first["refresh_token"]})
        early = await responded_while_held(another, wire, request, commits)
    reuse = await request
    expect(
        reuse.status == 401,
        f"The first token of a login, a second time, in another process of the service: {reuse.status}. Expected: 401.",
        because=THIEF,
        section="Refresh tokens that work once",
    )
    expect(
        not early,
        "A token came a second time. The service returned 401 while the COMMIT that revokes the login's tokens was "
        "still on its way.",
        because="If the COMMIT fails now, nothing is revoked, and nobody will raise the alarm again.",
        section="Refresh tokens that work once",
    )
    when = "A login's first token came a second time, after three refreshes and a login on another device"
    await expect_dead(app, when, *reversed(chain))
    alive = {"another login of the same customer": elsewhere, "another customer": ben}
    for whose, tokens in alive.items():
        response = await refresh(app, tokens["refresh_token"])
        expect(
            response.status == 200,
            f"A token of one login came a second time. After that, a token of {whose}: {response}. Expected: 200.",
            because=OTHERS,
            section="Refresh tokens that work once",
        )
        alive[whose] = response
    newest, bens = alive.values()
    await shop.execute(
        "UPDATE customers SET active = false WHERE email = $1", BEN["email"], step="Ben's account is deactivated"
    )
    await refresh(app, ben["refresh_token"])
    await shop.execute(
        "UPDATE customers SET active = true WHERE email = $1", BEN["email"], step="Ben's account is active again"
    )
    when = "A used token came a second time while the account was deactivated, and then the account was activated again"
    await expect_dead(app, when, bens)
    await shop.execute(AGED, step="31 days pass for the used tokens; the newest ones are still valid")
    reuse = await refresh(app, elsewhere["refresh_token"])
    expect(
        reuse.status == 401,
        f"A used token: {reuse.status}. Expected: 401.",
        because=THIEF,
        section="Refresh tokens that work once",
    )
    await expect_dead(
        app, "A login's first token came a second time, 31 days after its refresh: it had expired", newest
    )
    again = await logged_in(app, ANNA, register=False)
    await shop.execute("UPDATE refresh_tokens SET expires_at = now() - interval '1 minute'", step="all tokens expire")
    late = await refresh(app, again["refresh_token"])
    expect(
        late.status == 401,
        f"A refresh token whose expires_at is past: {late.status}. Expected: 401.",
        because="A token that was lost on an old telephone must stop working one day.",
        section="Refresh tokens that work once",
    )


async def test_finding_8_two_uses_at_once_have_one_winner(launch, shop, wire):
    """Of two refreshes with the same token at the same moment, one succeeds, also in two processes."""
    apps = [await launch(), await launch()]
    token = (await logged_in(apps[0], ANNA))["refresh_token"]
    async with wire.hold(lambda statement: statement.changes) as writes:
        requests = [app.start_request("POST", "/auth/refresh", json={"refresh_token": token}) for app in apps]
        await both_under_way(shop, requests, writes)
    statuses = sorted([(await request).status for request in requests])
    expect(
        statuses == [200, 401],
        f"Two processes of the service got the same refresh token at the same moment. They returned {statuses[0]} and "
        f"{statuses[1]}. Expected: 200 and 401.",
        because="If both succeed, a stolen token raises no alarm. If none does, or one fails with an error of the "
        "service, a customer is logged out for no reason.",
        section="Refresh tokens that work once",
    )


async def test_finding_9_refresh_tokens_are_not_stored(app, launch, shop):
    """No table holds a refresh token that could be used, and none can be guessed."""
    token = (await logged_in(app, ANNA))["refresh_token"]
    found = await shop.tables_with(token)
    expect(
        not found,
        f"The refresh token that the client got is in the table {', '.join(found)}, as it is.",
        because=BACKUP,
        section="Refresh tokens that work once",
    )
    for row in await shop.rows("SELECT * FROM refresh_tokens"):
        await expect_useless(app, row, token)
    if is_jwt(token):
        await expect_forged_refused(app, token)
    tokens = [token, (await log_in(app, ANNA))["refresh_token"]]
    for _ in range(14):  # 16 tokens tell 64 random bits from the 73 of 22 decimal digits
        response = await refresh(app, tokens[-1])
        expect(
            response.status == 200,
            f"A refresh with the newest token of a login: {response}. Expected: 200.",
            because=STAY,
            section="Refresh tokens that work once",
        )
        tokens.append(response["refresh_token"])
    shortest, bits = min(map(len, tokens)), varying_bits(tokens)
    expect(
        shortest >= 22,
        f"The shortest of {len(tokens)} refresh tokens has {shortest} characters. Expected: at least 22.",
        because=GUESS,
        section="Refresh tokens that work once",
    )
    expect(
        bits >= 64,
        f"{len(tokens)} refresh tokens have {shortest} characters or more, but they differ little from each other: "
        f"the check could see about {bits:.0f} random bits. Expected: at least 64.",
        because=GUESS,
        section="Refresh tokens that work once",
    )
    await shop.execute("TRUNCATE refresh_tokens RESTART IDENTITY", step="refresh_tokens is empty, and counts from 1")
    repeated = (await log_in(await launch(), ANNA))["refresh_token"]
    expect(
        repeated != token,
        "The service was started again, with an empty table. The first refresh token is the same as last time.",
        because=GUESS,
        section="Refresh tokens that work once",
    )


async def expect_no_shorter(shop):
    """What a refresh gives does not expire before what the login gave."""
    shorter = await shop.rows(SHORTER)
    minutes = [f"{lasts.total_seconds() / 60:.0f}" for lasts in shorter[0].values()] if shorter else ["", ""]
    expect(
        not shorter,
        f"The refresh token of a login expires in {minutes[0]} minutes, and one that a refresh gave for it in "
        f"{minutes[1]}. Expected: not earlier, as handed out.",
        because="A customer who has just used the shop is logged out sooner than one who has not.",
        section="Refresh tokens that work once",
    )


async def expect_dead(app, when, *pairs):
    """None of these refresh tokens works."""
    for tokens in pairs:
        response = await refresh(app, tokens["refresh_token"])
        which = "the newest token" if tokens is pairs[0] else "an older token"
        expect(
            response.status == 401,
            f"{when}. After that, {which} of that login: {response.status}. Expected: 401.",
            because=THIEF,
            section="Refresh tokens that work once",
        )


async def both_under_way(shop, requests, writes):
    """Returns when each request has sent its first change, waits for a lock, or has its response."""
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    for _ in range(100):
        done = sum(request.task.done() for request in requests)
        if len(writes.waiting) + done + await shop.value(waiting) >= len(requests):
            return
        await asyncio.sleep(0.02)  # between two looks at pg_stat_activity


async def expect_useless(app, row, token):
    """Nobody can refresh with what is in this row of refresh_tokens."""
    expect(
        token not in made_of(row),
        "The refresh token that the client got can be computed from its row in refresh_tokens, without any secret.",
        because=BACKUP,
        section="Refresh tokens that work once",
    )
    for column, kind, value in readings(row):
        response = await refresh(app, value)
        expect(
            not response.ok,
            f"A refresh with what is in refresh_tokens.{column}, {kind}: {response.status}. Expected: 401.",
            because=BACKUP,
            section="Refresh tokens that work once",
        )


async def expect_forged_refused(app, token):
    """If refresh tokens are JWTs: what a forged one says counts for nothing."""
    forged = {
        "with the signature of another key": resigned(token, "a key of the attacker's own, long enough"),
        "with alg none": unsigned(token, "none"),
        "without its signature": token.rpartition(".")[0] + ".",
    }
    for kind, value in forged.items():
        response = await refresh(app, value)
        expect(
            not response.ok,
            f"A refresh token is a JWT here. One {kind}: {response.status}. Expected: 401.",
            because=GUESS,
            section="Refresh tokens that work once",
        )


def readings(row):
    """What somebody with a backup would try: (column, how it was read, text)."""
    for column, value in row.items():
        if not isinstance(value, str):
            continue
        yield column, "as it is", value
        yield column, "read backwards", value[::-1]
        yield column, "with letters exchanged (ROT13)", codecs.encode(value, "rot13")
        for kind, decode in (("as base64", base64.urlsafe_b64decode), ("as hexadecimal", binascii.unhexlify)):
            with contextlib.suppress(ValueError):
                yield column, kind, decode(value + "=" * (-len(value) % 4 if kind == "as base64" else 0)).decode()


def made_of(row):
    """Texts that need nothing but the row: its values, two or three of them joined, and the usual hashes of these."""
    values = {form for value in row.values() if value is not None for form in forms(value)}
    chosen = [some for count in (2, 3) for some in itertools.permutations(values, count)]
    texts = values | {sign.join(some) for some in chosen for sign in ("", "-", ":", ".", "|")}
    made = set(texts)
    for text in texts:
        for algorithm in (hashlib.sha256, hashlib.sha1, hashlib.md5):
            digest = algorithm(text.encode()).digest()
            made |= {digest.hex(), base64.urlsafe_b64encode(digest).rstrip(b"=").decode()}
    return made


def forms(value):
    """A value of the database as text, in the ways in which a program would write it."""
    yield str(value)
    if hasattr(value, "hex") and not isinstance(value, (bytes, float)):
        yield value.hex
    if hasattr(value, "isoformat"):
        yield value.isoformat()
        for moment in (value, value - timedelta(days=30)):  # a token lasts 30 days: its row tells when it was made
            yield str(int(moment.timestamp()))
            yield str(moment.timestamp())


def varying_bits(tokens):
    """About how many bits differ from token to token: the entropy that each place shows, added up.

    A few tokens show less than there is. What is added for that is the correction of Miller and Madow; it is nothing
    where a place never changes.
    """
    bits = 0.0
    for place in zip(*tokens, strict=False):
        counts = Counter(place).values()
        bits -= sum(count / len(tokens) * math.log2(count / len(tokens)) for count in counts)
        bits += (len(counts) - 1) / (2 * len(tokens) * math.log(2))
    return bits
