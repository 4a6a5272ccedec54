"""Lesson 16: observability. Here: the login has a limit of tries, as the log of the logins asks for."""

import asyncio

from checks.kit.report import expect
from checks.lesson_16.lines import must

TRIES = 5
GUESSED = "Somebody tries ten thousand passwords a minute until one is right."
OUT = "Customers who have done nothing cannot log in."
RIGHT, WRONG = "the right password", "a wrong password"


async def test_a_password_has_five_tries(launch, apps, shop, wire):
    """After five logins that failed, an account gets 429 with Retry-After in each process, for LOGIN_SECONDS."""
    await shop.seed(books=1)
    for name in ("anna", "ben", "carl"):
        created = await apps[0].post("/auth/register", json=account(name) | {"name": name})
        must(created, 201)
    for _ in range(2):  # a login that succeeds makes them forgotten
        await expect_statuses([await try_(apps[n % 2], "anna", WRONG) for n in range(TRIES - 1)], [401] * (TRIES - 1))
        await expect_statuses([await try_(apps[1], "anna", RIGHT)], [200])
    for name in ("anna", "nobody"):
        await expect_statuses([await try_(apps[n % 2], name, WRONG) for n in range(TRIES)], [401] * TRIES)
        late = [await try_(apps[n % 2], name, password) for n, password in enumerate((WRONG, RIGHT, RIGHT, WRONG))]
        await expect_statuses(late, [429] * 4)
        waits = [one.headers.get("retry-after", "") for one in late]
        expect(
            all(wait.isdecimal() and 0 < int(wait) <= 900 for wait in waits),
            f"{late[0]} has Retry-After: {waits[0] or 'none'}. Expected: at most 900 seconds.",
            because="The app of a customer tries again at once, and again.",
            section="A limit of tries",
        )
    await expect_statuses([await try_(app, "ben", RIGHT) for app in (apps[0], apps[1])], [200, 200], OUT)
    body = account("carl", WRONG)
    crowd = await apps.at_once([("POST", "/auth/login", {"json": body})] * 12)
    await expect_statuses(sorted(crowd, key=lambda one: one.status), [401] * TRIES + [429] * (12 - TRIES))
    await expect_statuses([await try_(apps[0], "carl", RIGHT)], [429])
    await expect_no_race(await launch(env={"DATABASE_CONNECTIONS": "1", "LOGIN_TRIES": "1"}), wire)
    await expect_the_end(await launch(env={"LOGIN_TRIES": "1", "LOGIN_SECONDS": "2"}))


async def expect_no_race(app, wire):
    """Of one try, the right password comes after a wrong one, while nobody knows yet that this is wrong.

    There is one connection, for which requests wait in the order of their arrival.
    """
    for name in ("dora", "emma", "fred", "gina"):
        must(await app.post("/auth/register", json=account(name) | {"name": name}), 201)
        async with wire.hold(lambda one: one.data, limit=1) as held:
            wrong = app.start_request("POST", "/auth/login", json=account(name, WRONG))
            await held.wait_for()
            right = app.start_request("POST", "/auth/login", json=account(name))
            await app.flush()
            held.release()
            responses = [await wrong, await right]
        if responses[-1].status != 503:  # on a slow machine it may wait too long for the connection
            break
    expect(
        responses[-1].status in (429, 503),
        "With LOGIN_TRIES=1, a login with a wrong password was under way, and then one with the right password came. "
        f"They got {[one.status for one in responses]}. Expected: 401 and 429.",
        because=GUESSED,
        section="A limit of tries",
    )


async def expect_the_end(app):
    """The limit ends by itself, also if somebody goes on trying meanwhile."""
    for _ in range(2):
        await expect_statuses([await try_(app, "ben", WRONG)], [401])
        tries, until = [], asyncio.get_running_loop().time() + 10
        while asyncio.get_running_loop().time() < until:
            tries.append(await try_(app, "ben", RIGHT))
            if tries[-1].status != 429:
                break
        waits = [one.headers.get("retry-after", "") for one in tries[:-1]]
        expect(
            tries[-1].status == 200 and all(wait in ("1", "2") for wait in waits),
            "With LOGIN_TRIES=1 and LOGIN_SECONDS=2, a try failed. For up to 10 s the right password followed: "
            f"{len(tries)} times, the last {tries[-1]}. Retry-After was {sorted(set(waits))}. Expected: 2 at most, "
            "then status 200.",
            because=OUT,
            section="A limit of tries",
        )


def account(name, password=RIGHT):
    return {"email": f"{name}@example.com", "password": password}


async def try_(app, name, password):
    return await app.post("/auth/login", json=account(name, password))


async def expect_statuses(responses, expected, because=GUESSED):
    statuses = [one.status for one in responses]
    expect(
        statuses == expected,
        f"Logins, with up to {TRIES} tries for a password: {responses[0].request} → {statuses}. Expected: {expected}.",
        because=because,
        section="A limit of tries",
    )
