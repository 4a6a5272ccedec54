"""Lesson 16: observability. Here: the login has a limit of tries, as the log of the logins asks for."""

import asyncio
import time
from dataclasses import dataclass

from checks.kit.report import expect
from checks.kit.service.app import Response
from checks.lesson_16.lines import asks, must

TRIES = 5
GUESSED = "Somebody tries ten thousand passwords a minute until one is right."
OUT = "Customers who have done nothing cannot log in."
RIGHT, WRONG = "the right password", "a wrong password"
SECONDS = 2


@dataclass(frozen=True)
class Try:
    """A login, the time at which it was sent, and the one at which its response had been read."""

    sent: float
    ended: float
    response: Response


async def test_a_password_has_five_tries(launch, apps, shop, wire):
    """After five logins that failed, an account gets 429 with Retry-After in each process, for LOGIN_SECONDS."""
    await shop.seed(books=1)
    for name in ("anna", "ben", "carl", "dave"):
        await register(apps[0], name)
    for _ in range(2):  # a login that succeeds makes them forgotten
        below = [await try_(apps[n % 2], "anna", WRONG) for n in range(TRIES - 1)]
        await expect_statuses("Four tries with a wrong password, to two processes in turn", below, [401] * (TRIES - 1))
        await expect_statuses("The right password, after four wrong ones", [await try_(apps[1], "anna", RIGHT)], [200])
    short = await launch(env={"LOGIN_TRIES": "1", "LOGIN_SECONDS": str(SECONDS)})
    first = await timed(short, "dave", WRONG)
    await expect_statuses("With LOGIN_TRIES=1, the first try with a wrong password", [first.response], [401])
    expect_limit(first, await timed(short, "dave", RIGHT), SECONDS)

    await expect_no_race(await launch(env={"DATABASE_CONNECTIONS": "1", "LOGIN_TRIES": "1"}), wire)
    await expect_no_limit_for_ben(apps)
    body = account("carl", WRONG)
    crowd = await apps.at_once([("POST", "/auth/login", {"json": body})] * 12)
    crowd = sorted(crowd, key=lambda one: one.status)
    await expect_statuses(
        "Twelve wrong passwords at once, to two processes, sorted", crowd, [401] * TRIES + [429] * (12 - TRIES)
    )

    second = await expect_the_end(short, first, WRONG, 401)
    expect_limit(second, await timed(short, "dave", RIGHT), SECONDS)
    for name in ("anna", "nobody"):
        began = await timed(apps[0], name, WRONG)
        tries = [began.response, *[await try_(apps[n % 2], name, WRONG) for n in range(1, TRIES)]]
        await expect_statuses(f"Account {name}: five wrong passwords, to two processes in turn", tries, [401] * TRIES)
        late = [await timed(apps[n % 2], name, one) for n, one in enumerate((WRONG, RIGHT, RIGHT, WRONG))]
        for one in late:
            expect_limit(began, one, 900)
    await expect_no_limit_for_ben(apps)
    limited = [await try_(apps[0], name, RIGHT) for name in ("carl", "anna")]
    await expect_statuses("Two accounts with a limit, after a login of another account", limited, [429, 429])
    await expect_the_end(short, second, RIGHT, 200)


async def expect_no_limit_for_ben(apps):
    """An account logs in, in both processes, while others have a limit."""
    logins = [await try_(app, "ben", RIGHT) for app in (apps[0], apps[1])]
    await expect_statuses("The right password of an account without failed tries", logins, [200, 200], OUT)


async def expect_no_race(app, wire):
    """With one try allowed, the right password comes after two wrong ones whose logins are still under way.

    The app has one connection, for which requests wait in the order of their arrival. If it has others to count tries,
    the first login, which is held, may be overtaken, and the second one is the try that counts.
    """
    seen = []
    for name in ("dora", "emma", "fred", "gina", "hugo", "ida"):
        await register(app, name)
        async with wire.hold(asks, limit=1) as held:
            sent = [app.start_request("POST", "/auth/login", json=account(name, WRONG))]
            await held.wait_for()
            sent += [app.start_request("POST", "/auth/login", json=account(name, one)) for one in (WRONG, RIGHT)]
            await app.flush()
            held.release()
            statuses = [(await one).status for one in sent]
        if statuses[-1] == 429:
            return
        if statuses[-1] != 503:  # on a slow machine it may wait too long for the connection
            seen.append(statuses)
        if len(seen) == 2:  # once they may have overtaken each other on their way
            break
    expect(
        not seen,
        "With LOGIN_TRIES=1, two logins with a wrong password were under way, and then one with the right password "
        f"came. They got {' and, of another account, '.join(map(str, seen))}. Expected: 429 for the last one.",
        because=GUESSED,
        section="A limit of tries",
    )


async def expect_the_end(app, first, password, status):
    """A limit that began with a try ends by itself, also if somebody goes on trying. Returns the try after it."""
    while (last := await timed(app, "dave", password)).response.status == 429 and last.sent < first.sent + 10:
        expect_limit(first, last, SECONDS)
        await asyncio.sleep(0.1)  # between two looks at the clock of PostgreSQL
    expect(
        last.response.status == status,
        f"With LOGIN_TRIES=1 and LOGIN_SECONDS={SECONDS}, a try failed. {last.ended - first.sent:.1f} s later came "
        f"{last.response}. Expected: status {status}.",
        because=OUT,
        section="A limit of tries",
    )
    expect_limit(first, last, SECONDS)
    return last


def expect_limit(first, one, seconds):
    """Status 429 until `seconds` after the first try. `Retry-After` is the rest of them, or one more."""
    least, most = first.sent + seconds - one.ended, first.ended + seconds - one.sent + 1
    if one.response.status != 429 and least <= 0.05:
        return
    wait = one.response.headers.get("retry-after", "")
    expect(
        one.response.status == 429 and wait.isdecimal() and least - 0.05 <= int(wait) <= max(1, most + 0.05),
        f"A limit of {seconds} s began {one.sent - first.sent:.1f} s before this try: {one.response}, with "
        f"Retry-After: {wait or 'none'}. Expected: status 429, with whole seconds, from {max(0, least):.1f} to "
        f"{max(1, most):.1f}.",
        because=GUESSED if one.response.status != 429 else "A customer's app tries again too early, or far too late.",
        section="A limit of tries",
    )


async def register(app, name):
    """On a slow machine a limit of the app may end the first try with 503, before or after the account is stored."""
    created = await app.post("/auth/register", json=account(name) | {"name": name})
    for _ in range(4):
        if created.status != 503:
            break
        created = await app.post("/auth/register", json=account(name) | {"name": name})
        if created.status == 409:
            return
    must(created, 201)


def account(name, password=RIGHT):
    return {"email": f"{name}@example.com", "password": password}


async def try_(app, name, password):
    return await app.post("/auth/login", json=account(name, password))


async def timed(app, name, password):
    sent = time.perf_counter()
    response = await try_(app, name, password)
    return Try(sent, time.perf_counter(), response)


async def expect_statuses(what, responses, expected, because=GUESSED):
    statuses = [one.status for one in responses]
    expect(
        statuses == expected,
        f"{what}: {responses[0].request} → {statuses}. Expected: {expected}.",
        because=because,
        section="A limit of tries",
    )
