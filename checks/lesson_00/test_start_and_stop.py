"""Lesson 00: the service starts from its environment, reports the state of its database, and leaves in time."""

import asyncio
import base64
import binascii
import contextlib
import re
from signal import SIGINT, SIGTERM
from urllib.parse import quote, unquote

import pytest

from checks.kit.report import expect
from checks.kit.service.app import App, AppDidNotStart, NoResponse, Response
from checks.kit.wire import Statement, Wire

REFUSING = {
    "nothing_listens": "nothing listened at the database's port",
    "reset": "the database reset new connections",
    "starting_up": "the database was starting up",
    "too_many_connections": "the database had too many connections",
}
"""The ways in which a database refuses connections, for `wire.outage`, and what a verdict calls them."""

USER, PASSWORD = "bookshop", "100%@home:a/b"

TOGETHER = 3
"""Requests under way at the same time."""


async def test_it_starts_and_answers(app, wire):
    """The service starts, and `/health` returns 200 while the database is there."""
    first = await app.get("/health")  # now there may be a connection, which the others share
    async with wire.hold(anything) as held:  # so that all requests are under way at once
        requests = [app.start_request("GET", "/health") for _ in range(TOGETHER)]
        await held.wait_for_or(asyncio.gather(*(request.task for request in requests), return_exceptions=True))
        await react(app)
    responses = [first] + [await request for request in requests]
    wrong = [response for response in responses if response.status != 200]
    expect(
        not wrong,
        f"One request was sent to /health, and then {TOGETHER} at the same time. Each should return 200. "
        f"{len(wrong)} did not: {wrong[0] if wrong else ''}",
        because="A load balancer takes the service out of use although its database is there, and customers wait.",
        section="See it break",
    )


async def test_health_asks_the_database(app, launch, wire, testbed, password_prompt):
    """Every request to `/health` reaches the database that `DATABASE_URL` names."""
    await app.get("/health")
    for number in ("second", "third"):
        logins = logged_in(wire)
        async with wire.hold(anything) as held:
            request = app.start_request("GET", "/health")
            waits = await held.wait_for_or(request.task)
            await react(app)
            early = request.responded
        response = await request
        asked = waits and not early
        happened = (
            f"The {number} request got its response, {response}. Between this request and its response no statement "
            f"of the service reached the database of DATABASE_URL, and no login."
        )
        if not asked and logged_in(wire) - logins:  # a login asks as well, if it is that of the request
            response = await response_without_logins(app, wire)
            asked = response is None
            happened = (
                f"A request got its response, {response}, while nothing passed between the service and the database "
                f"of DATABASE_URL: no statement, and no login."
            )
        expect(
            asked,
            happened,
            because="A response that does not come from the database says nothing about it. When the database "
            "fails, the load balancer goes on sending customers here.",
            section="See it break" if logins else "What an un-awaited call returns",
        )
    others = {one.parameters.get("database", "") for one in known(wire) if one.status} - {testbed.database.name}
    expect(
        not others,
        f"DATABASE_URL names the database {testbed.database.name!r}; the service logged in to {', '.join(others)}.",
        because="A server can be up while the shop's own database cannot be reached. Then customers get errors, "
        "and /health reports that all is well.",
        section="What an un-awaited call returns",
    )
    await try_login(launch, password_prompt, PASSWORD)
    received = password_prompt.logins
    wrong = [f"{user!r} with the password {word!r}" for user, word in received if (user, word) != (USER, PASSWORD)]
    expect(
        received and not wrong,
        f"At another start DATABASE_URL named a server that asks for a password, the user {USER!r}, and the password "
        f"{PASSWORD!r}, percent-encoded as it must be. What that server received: {wrong[0] if wrong else 'no login'}.",
        because="A database that checks passwords refuses this login, and the service cannot serve anybody."
        if wrong
        else "The service does not use the database that it was given.",
        section="Settings that fail early",
    )


async def test_health_tells_when_the_database_is_gone(app, wire):
    """`/health` returns 503 while the database refuses connections, and 200 again afterwards."""
    for how, what in REFUSING.items():
        async with wire.hold(anything) as held:
            under_way = app.start_request("GET", "/health")
            waits = await held.wait_for_or(under_way.task) and not under_way.responded
            async with wire.outage(how):
                responses = [await under_way] if waits else []
                responses += [await app.get("/health"), await app.get("/health")]
        wrong = [response for response in responses if response.status != 503]
        expect(
            not wrong,
            f"Every connection was cut, and {what}. /health should return 503 until that is over. "
            f"{len(wrong)} of {len(responses)} responses differ: {wrong[0] if wrong else ''}",
            because="The load balancer keeps sending customers to a service that reports that it is well, and they "
            "get errors."
            if wrong and wrong[0].ok
            else "503 says that the service cannot serve customers now. Any other error says that the service "
            "itself is broken, and operations look for the fault in the wrong place.",
            section="What a refused connection raises",
        )
        again = await app.get("/health")
        expect(
            again.status == 200,
            f"While the outage lasted, {what}, and /health returned 503 as it should. Now the database is back, and "
            f"/health should return 200: {again}",
            because="Customers get no service although the database is back.",
            section="What a refused connection raises",
        )


@pytest.mark.start_early
async def test_it_leaves_when_asked(app):
    """After SIGTERM the service is gone within 5 seconds."""
    await app.get("/health")
    left = await app.stop(within=5)
    expect(
        left is not None and left.code != -9,
        "5 seconds after SIGTERM the service was still running."
        if left is None
        else "After SIGTERM the service did not end by itself: something ended it with SIGKILL.",
        because="A process manager waits, and then ends the service with SIGKILL. Every deploy takes that much "
        "longer, and what the service still had to do is lost.",
        section="Ending in time after SIGTERM",
    )
    expect(
        not await still_accepts(app),
        "After SIGTERM the main process ended, but another process of the service still accepts requests.",
        because="The old version of the service goes on serving customers after the deploy.",
        section="Ending in time after SIGTERM",
    )


@pytest.mark.start_early
async def test_every_connection_says_goodbye(launch, wire):
    """On the way out every database connection is closed with Terminate; none is dropped."""
    app = await launch()
    async with wire.hold(anything) as held:
        requests = [app.start_request("GET", "/health") for _ in range(TOGETHER)]
        await held.wait_for_or(asyncio.gather(*(request.task for request in requests), return_exceptions=True))
        app.process.signal(SIGTERM)
        await react(app)
    await goes_without_dropping(app, wire, SIGTERM)

    app = await launch(workers=2)
    await asyncio.gather(*(app.get("/health") for _ in range(TOGETHER)))
    await goes_without_dropping(app, wire, SIGINT)


async def test_without_database_url_it_does_not_start(launch):
    """Without `DATABASE_URL` the service does not start: its exit code is not 0, its log names the variable."""
    for url, state in ((None, "was not set"), ("", "was, at a second start, set to an empty text")):
        names_the_variable(await refused(launch, url, state), state)


async def test_with_a_malformed_database_url_it_does_not_start(launch):
    """With a `DATABASE_URL` that is not a PostgreSQL URL the service does not start, in the same way."""
    for url in (
        "localhost/bookshop",
        "mysql+aiomysql://bookshop@localhost/postgresql",  # the scheme counts, and not a word somewhere in the URL
        "postgressql+asyncpg://bookshop@localhost/bookshop",  # a typing error, which is as good as another database
        "postgresql+asyncpg://bookshop@localhost:port/bookshop",
    ):
        state = f"was {url!r}"
        names_the_variable(await refused(launch, url, state), state)


async def test_the_password_stays_out_of_the_log(launch, password_prompt):
    """The password in `DATABASE_URL` does not get into the log, whether the URL is right or wrong."""
    for url, password in (
        ("postgresql://b:s3cr3t%40w0rd@:x/b", "s3cr3t@w0rd"),  # no host, and a port that is not a number
        ("postgresql://b:s3cr3t/w0rd@localhost:x/b", "s3cr3t/w0rd"),  # / should be %2F: s3cr3t is taken for the port
        ("b:s3cr3t%40w0rd@localhost:5432/b", "s3cr3t@w0rd"),  # no scheme
        ("mysql://b:s3cr3t@w0rd@localhost/b", "s3cr3t@w0rd"),  # another database; and @ should be %40
    ):
        log = await refused(launch, url, f"was {url!r}")
        keeps_the_password(log, f"DATABASE_URL was {url!r}, with the password {password}. The service did not start")
    log = await try_login(launch, password_prompt, "s3cr3t@w0rd")
    keeps_the_password(log, "DATABASE_URL was right, with the password s3cr3t@w0rd. /health was asked")


def anything(statement: Statement) -> bool:
    """Every statement, also those that a driver sends for its own needs."""
    return True


def known(wire: Wire) -> list:
    return [*wire.closed, *wire.connections]


def logged_in(wire: Wire) -> set[int]:
    """The connections on which PostgreSQL has accepted a login."""
    return {connection.id for connection in known(wire) if connection.status}


async def response_without_logins(app: App, wire: Wire) -> Response | None:
    """What `/health` reports as well while the database is silent; None if it waits for the database, or returns 503.

    A service may log in without any request, and then a login between a request and its response tells nothing. So
    the proxy stops all logins: the response to a request that needs one has to wait.
    """
    async with wire.black_hole():
        request = app.start_request("GET", "/health")
        await react(app)
        early = request.responded
    response = await request
    return response if early and response.status != 503 else None


async def try_login(launch, prompt, password: str) -> str:
    """The log of an app whose DATABASE_URL is right, and whose server asks for the password and lets nobody in."""
    url = f"postgresql+asyncpg://{USER}:{quote(password, safe='')}@{prompt.host}:{prompt.port}/bookshop"
    try:
        app = await launch(env={"DATABASE_URL": url})
    except AppDidNotStart as refusal:  # an app may end over that
        return refusal.log
    with contextlib.suppress(NoResponse):
        await app.get("/health")
    await react(app)
    return app.log


async def react(app: App) -> None:
    """Lets the app do what it can; one that is leaving, or whose event loop is blocked, is not waited for."""
    with contextlib.suppress(OSError, TimeoutError):
        await asyncio.wait_for(app.flush(), 3)


async def still_accepts(app: App) -> bool:
    """Whether a process responds at the service's address."""
    try:
        await app.flush()
    except OSError:
        return False
    return True


async def goes_without_dropping(app: App, wire: Wire, signum: int) -> None:
    """Ends the service; none of its connections to the database may end without Terminate."""
    left = await app.stop(signum, within=5)
    app.process.kill()
    await wire.all_closed()
    expect(
        wire.closed,
        "Until it was asked to end, the service had not logged in to the database of DATABASE_URL.",
        because="A service that does not talk to the shop's database cannot serve the shop's customers.",
        section="What an un-awaited call returns",
    )
    dropped = [connection for connection in wire.closed if connection.close_reason != "terminate"]
    expect(
        not dropped,
        ("" if left else f"5 seconds after {signum.name} the service was still running, so it was killed. ")
        + f"{len(dropped)} of {len(wire.closed)} connections to the database ended without Terminate: only the socket "
        "was closed.",
        because="A service that drops its connections may do so in the middle of a statement. PostgreSQL does not look "
        "for its client while it works: it runs the statement to its end and keeps its locks, and a customer who needs "
        "the same row waits for a service that is gone.",
        section="Ending in time after SIGTERM",
    )


async def refused(launch, url: str | None, state: str) -> str:
    """The log of a start that must fail with this DATABASE_URL."""
    try:
        await launch(env={"DATABASE_URL": url})
    except AppDidNotStart as refusal:
        way = "" if refusal.code == 0 else "by itself, "
        expect(
            refusal.code is not None and refusal.code > 0,
            f"DATABASE_URL {state}. {refusal} It should end {way}with an exit code that is not 0.",
            because="A process manager takes exit code 0 for success, and a signal for a crash. The deploy goes on "
            "with a service that is not there."
            if refusal.code is not None
            else "The deploy waits for a service that neither starts nor says why.",
            section="Settings that fail early",
        )
        return refusal.log
    expect(
        False,
        f"DATABASE_URL {state}, and the service started and accepts requests.",
        because="The mistake is found by the first customers instead of by the deploy: the service has no database, "
        "or another one than it should have.",
        section="Settings that fail early",
    )
    raise AssertionError


def names_the_variable(log: str, state: str) -> None:
    """The log has a line with the variable's name, and no stack trace."""
    expect(
        "database_url" in log.lower(),
        f"DATABASE_URL {state}. The service ended, but no line of its log names the variable.",
        because="The person who is on duty at night reads the log and does not learn which setting to correct.",
        section="Settings that fail early",
    )
    expect(
        "Traceback" not in log,
        f"DATABASE_URL {state}. The service ended with a stack trace: its log has {len(log.splitlines())} lines.",
        because="A stack trace shows where the code was. The person who is on duty at night looks for a fault in the "
        "code, and the fault is a setting.",
        section="Settings that fail early",
    )


def keeps_the_password(log: str, story: str) -> None:
    """No line of the log holds a part of the password."""
    leaked = [line for line in log.splitlines() if any(part in readable(line) for part in ("s3cr3t", "w0rd"))]
    expect(
        not leaked,
        f"{story}, and the log holds the password or a part of it: {leaked[0].strip() if leaked else ''}",
        because="Many people and programs read logs. Anybody who finds a password there can log in to the shop's "
        "database.",
        section="Settings that fail early",
    )


def readable(line: str) -> str:
    """A line of a log, followed by what it says if it is percent-encoded, or if its words are Base64 or hexadecimal."""
    texts = [line, unquote(line), unquote(unquote(line))]
    for word in re.findall(r"[\w+/-]{8,}={0,2}", line):
        for decode in (base64.b64decode, base64.urlsafe_b64decode, binascii.unhexlify):
            with contextlib.suppress(ValueError):
                texts.append(decode(word).decode(errors="replace"))
    return "\n".join(texts)
