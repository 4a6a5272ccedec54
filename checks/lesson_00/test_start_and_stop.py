"""Lesson 00: the service starts from its environment, tells the truth about its database, and leaves in time."""

import pytest

from checks.kit.report import expect
from checks.kit.service import App, AppDidNotStart


async def test_it_starts_and_answers(app):
    """The service starts, and `/health` answers 200 while the database is there."""
    answer = await app.get("/health")
    expect(
        answer.status == 200,
        f"{answer}",
        because="Everything else in this lesson asks a running service. Its log says what went wrong.",
        read="See it break",
    )


async def test_health_asks_the_database(app, wire):
    """Every `/health` reaches the database that `DATABASE_URL` names."""
    with wire.watching() as seen:
        await app.get("/health")
        await app.get("/health")
    asked = len(seen.data_statements)
    expect(
        asked >= 2,
        f"Two requests to /health brought {asked} statements to the database of DATABASE_URL.",
        because="A health check that does not ask says ok for ever. Either the service talks to another database "
        "than the one it was given, or it never sends the question: look at what calling an async function returns.",
        read="What an un-awaited call returns",
    )


async def test_health_tells_when_the_database_is_gone(app, wire):
    """`/health` answers 503 while the database refuses connections, and 200 again afterwards."""
    await app.get("/health")
    async with wire.refusing():
        await wire.cut()
        answer = await app.get("/health")
    expect(
        answer.status == 503,
        f"With every connection cut and new ones refused, {answer}",
        because="The load balancer keeps sending customers to a service that says it is well. 503 takes it out.",
        read="What an un-awaited call returns",
    )
    again = await app.get("/health")
    expect(
        again.status == 200,
        f"With the database back, {again}",
        because="A service that has to be restarted after each fail-over wakes somebody up each time.",
        read="What an un-awaited call returns",
    )


@pytest.mark.slow
async def test_it_leaves_when_asked(app):
    """After SIGTERM the service is gone within 5 seconds."""
    await app.get("/health")
    left = await app.stop(within=5)
    expect(
        left is not None and left.code != -9,
        "5 seconds after SIGTERM the service was still running; the deploy would now kill it hard."
        if left is None
        else "SIGTERM was sent, and the service ended by SIGKILL: somebody killed it hard.",
        because="Shutdown waits for something that does not end. What does a cancelled task see, and who catches it?",
        read="Leaving in time",
    )


@pytest.mark.slow
async def test_every_connection_says_goodbye(app, wire):
    """On the way out every database connection is closed with a farewell, none is dropped."""
    await app.get("/health")
    await app.get("/health")
    await app.stop(within=5)
    app.process.kill()
    await wire.all_closed()
    expect(
        wire.closed,
        "No connection reached the database of DATABASE_URL.",
        because=GOODBYE,
        read="Leaving in time",
    )
    dropped = [connection for connection in wire.closed if connection.farewell != "terminate"]
    expect(
        not dropped,
        f"{len(dropped)} of {len(wire.closed)} connections ended without Terminate: the socket just closed.",
        because=GOODBYE,
        read="Leaving in time",
    )


async def test_without_database_url_it_does_not_start(launch):
    """Without `DATABASE_URL` the service ends at once: exit code not 0, one line that names the variable."""
    log = await refused(launch, None)
    names_it_in_one_line(log, "was missing")


async def test_with_a_malformed_database_url_it_does_not_start(launch):
    """With a `DATABASE_URL` that is no PostgreSQL URL it ends in the same way."""
    log = await refused(launch, "localhost/bookshop")
    names_it_in_one_line(log, "was 'localhost/bookshop'")


async def test_the_password_stays_out_of_the_log(launch):
    """A malformed `DATABASE_URL` does not put its password into the log."""
    log = await refused(launch, "postgresql://b:s3cr3t@:x/b")
    expect(
        "s3cr3t" not in log,
        "The log of the failed start holds the password of DATABASE_URL.",
        because="Logs travel to places where passwords must not. Name the variable and the reason, not the value.",
        read="Settings that fail early",
    )


GOODBYE = (
    "PostgreSQL finds out about a dropped connection only when it next touches the socket; until then its locks "
    "and its slot stay taken, and its log fills with 'unexpected EOF'. Whoever opens the engine disposes of it."
)


async def refused(launch, url: str | None) -> str:
    """The log of a start that must fail with this DATABASE_URL."""
    try:
        app: App = await launch(env={"DATABASE_URL": url})
    except AppDidNotStart as refusal:
        expect(
            refusal.code is not None and refusal.code > 0,
            f"{refusal} To the process manager that is no refusal.",
            because="Only a process that ends by itself, with an exit code that is not 0, stops a roll-out.",
            read="Settings that fail early",
        )
        return refusal.log
    expect(
        False,
        f"The service started and accepts requests although DATABASE_URL was {url!r}.",
        because="It would run against whatever is written in its code, or fail at the first customer instead of "
        "at the deploy. Settings belong to the environment and are checked before the first request.",
        read="Settings that fail early",
    )
    return app.log


def names_it_in_one_line(log: str, what: str) -> None:
    """The reason is one line with the variable's name, not a stack trace."""
    named = [line for line in log.splitlines() if "database_url" in line.lower()]
    expect(
        named,
        f"DATABASE_URL {what}; the service ended, but no line of its log names the variable.",
        because="Whoever reads this at three in the morning should know what to set.",
        read="Settings that fail early",
    )
    expect(
        "Traceback" not in log,
        f"DATABASE_URL {what}; the log answers with a stack trace of {len(log.splitlines())} lines.",
        because="A stack trace says where the code was; a missing setting is not a bug in the code. Say it in a line.",
        read="Settings that fail early",
    )
