"""Lesson 10: what it takes to import a module of the app."""

import asyncio

import pytest

from checks.kit.report import expect
from checks.kit.service.app import AppDidNotStart
from checks.lesson_10.baskets import USUAL, baskets
from checks.lesson_10.imports import NO_SETTINGS, ONLY_A_DATABASE
from checks.lesson_10.shopping import totals_of_report

ORDER = "A module that can be imported only second"
IMPORT = "What happens at import"
EVERY_SCRIPT = "Each script, each test and each migration that needs one function of the shop fails at its first line."
NOT_ALL = "A process that runs with half of its settings fails later, at the request of a customer."
TOGETHER = "test_importing_needs_no_settings"


@pytest.mark.start_early
async def test_each_module_can_be_imported_first(imports):
    """Each module of the app can be imported first in a new process, and then no endpoint is missing."""
    failed = await imports.first()
    expect(
        not failed,
        f"{len(failed)} of {len(imports.modules)} modules cannot be imported first: {some(failed)}.",
        because="The app starts only because its modules are imported in a lucky order. If you move a file, or a "
        "formatter sorts imports, the app breaks, and the traceback may name a module that nobody has touched.",
        section=ORDER,
    )


async def test_importing_needs_no_settings(imports):
    """Every module of the app can be imported where no variable is set, or only DATABASE_URL."""
    given = {"no variable": NO_SETTINGS, "only DATABASE_URL": ONLY_A_DATABASE}
    for which, failed in zip(given, await asyncio.gather(*map(imports.together, given.values())), strict=True):
        expect(
            not failed,
            f"With {which} set, {len(failed)} of {len(imports.modules)} modules cannot be imported: {some(failed)}.",
            because=EVERY_SCRIPT,
            section=IMPORT,
        )


async def test_importing_connects_to_nothing(gateway, imports, provider, wire):
    """An import opens no connection, neither to PostgreSQL nor to a service outside of the shop."""
    with wire.watching() as seen:
        failed = await imports.together({})
    opened, calls = seen.connections_opened, len(gateway.calls) + len(provider.calls)
    expect(
        not opened and not calls,
        "All modules were imported, with all settings there. Expected: nothing else happens. Connections to PostgreSQL "
        f"that were opened: {opened}. Calls of other services: {calls}.",
        because="A script that imports one function waits for the database, or fails with an error of the database. A "
        "test writes into the database of its developer.",
        section=IMPORT,
    )
    expect(
        not failed,
        f"With all settings, {len(failed)} of {len(imports.modules)} modules cannot be imported: {some(failed)}.",
        because=EVERY_SCRIPT,
        section=IMPORT,
    )


async def test_each_process_needs_its_own_settings_only(customer, gateway, launch, provider, testbed, workers):
    """A worker runs without the settings of the web server, the report with DATABASE_URL only."""
    app = await launch(env={"MAIL_URL": None})
    order = await customer.buy(app, baskets(customer.books, USUAL, 1)[0])
    worker = await workers.start(JWT_SECRET=None, PAYMENT_URL=None)
    sent = await workers.sent(worker, order.id)
    expect(
        sent,
        f"A worker was started with DATABASE_URL and MAIL_URL. It {'has ended and ' if worker.exit.done() else ''}has "
        f"not sent the mail about order {order.id}.",
        because="Each machine that runs a worker has to know the key with which logins are signed. A thief who gets "
        "into one of them can log in as any customer.",
        section=IMPORT,
    )
    found = await totals_of_report(testbed, JWT_SECRET=None, PAYMENT_URL=None, MAIL_URL=None)
    expect(
        order.id in found,
        f"The report ran with DATABASE_URL only. It has {len(found)} orders, and order {order.id} is not among them.",
        because="The accountants get no report unless they know the key with which logins are signed.",
        section=IMPORT,
    )


async def test_nothing_starts_without_its_settings(launch, testbed):
    """App, worker and report do not start where a setting of theirs is missing or makes no sense."""
    for wrong in (
        *({name: None} for name in ("DATABASE_URL", "JWT_SECRET", "PAYMENT_URL")),
        *({"JWT_SECRET": "too short"}, {"BULK_PERCENT": "91"}, {"BULK_PERCENT": "-1"}, {"BULK_FROM": "0"}),
        *({"PAYMENT_TIMEOUT": "-1"}, {"PAYMENT_URL": "localhost"}, {"DATABASE_CONNECTIONS": "0"}),
        *({"DATABASE_CONNECTIONS": "2", "WEB_CONCURRENCY": "3"},),
    ):
        said = None
        try:
            await launch(env=wrong)
        except AppDidNotStart as error:
            said = error.log
        expect(
            said is not None,
            f"The app started with {in_words(wrong)}. Expected: it refuses.",
            because=NOT_ALL,
            section=IMPORT,
        )
        expect_named(wrong, said, "The app")
    for command, wrong in (
        *(("app.worker", {name: None}) for name in ("MAIL_URL", "DATABASE_URL")),
        *(("app.worker", one) for one in ({"MAIL_URL": "localhost"}, {"MAIL_LEASE_SECONDS": "-1"})),
        ("app.worker", {"MAIL_RETRY_SECONDS": "-1"}),
        ("app.report", {"DATABASE_URL": None}),
    ):
        done = await testbed.command(command, env=wrong, apart=True)
        expect(
            done.code not in (0, None),
            f"{done}, with {in_words(wrong)}. Expected: an exit code that says that it failed.",
            because=NOT_ALL,
            section=IMPORT,
        )
        expect_named(wrong, done.output, f"`{command}`")


def expect_named(wrong, said, who):
    """A setting that is missing is named, in capitals or not."""
    for name in [name for name, value in wrong.items() if value is None]:
        expect(
            name.lower() in said.lower(),
            f"{who} did not start, with {in_words(wrong)}. What it printed does not name {name}.",
            because="The people who deploy the shop have to read its code to find out which variable is missing.",
            section=IMPORT,
        )


def in_words(env):
    return ", ".join(f"{name}={value}" if value else f"no {name}" for name, value in env.items())


def some(failed):
    """The first three, with their errors."""
    told = [f"{name} ({error})" for name, error in list(failed.items())[:3]]
    return "; ".join(told) + ("; and others" if len(failed) > len(told) else "")
