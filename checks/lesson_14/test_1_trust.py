"""Lesson 14: tests that somebody can rely on. Here: whether red and green mean anything."""

import pytest

from checks.kit.lessons.words import plural
from checks.kit.report import expect
from checks.lesson_14.judge import MAX_STATEMENTS, ORDERS

NOISE = "After a few false alarms the team starts the tests again until they are green. A real fault is overlooked."


@pytest.mark.patient
async def test_the_shop_passes(tests):
    """All tests pass on the shop as it is."""
    seen = await tests.as_it_is()
    await tests.expect_accepted([("on the shop as it is", seen.run)], because=NOISE, section="See it break")


@pytest.mark.patient
async def test_other_right_shops_pass(tests):
    """All tests pass on four other shops that keep the same promises and are written differently."""
    runs = [(f"on {app.about}", run) for app, run in await tests.other_shops()]
    await tests.expect_accepted(
        runs,
        because="Nobody can improve the shop: each change inside it makes tests red, although no promise is broken.",
        section="A test knows only what a customer can see",
    )


@pytest.mark.patient
async def test_any_order(tests):
    """The tests pass in the opposite order, and in a random order."""
    runs = await tests.orders()
    await tests.expect_accepted(
        [(f"in {called}", runs[order]) for order, called in ORDERS.items()],
        because="Somebody runs one test alone, or adds one, and other tests are red, although nothing is broken.",
        section="Each test makes what it needs",
    )


@pytest.mark.patient
async def test_two_runs_at_once(tests):
    """Two runs of the tests at the same time, with one DATABASE_URL, both pass."""
    why = {"because": NOISE, "section": "Two runs at the same time"}
    both, alike = await tests.two_at_once()
    await tests.expect_accepted([("one of two runs at the same time", seen.run) for seen in both], **why)
    expect(
        alike is None,
        f"The runs made the databases {' and '.join(alike or ())}. These names differ in the time only, so "
        "two runs that begin at the same moment share one database.",
        **why,
    )


@pytest.mark.patient
async def test_nothing_is_left(tests):
    """After a run, the database in DATABASE_URL is as before, and the run has left no other database."""
    why = {
        "because": "A developer works with the database in DATABASE_URL. After a run, a morning's work is gone, or the "
        "server has one more database that nobody drops.",
        "section": "The database of the tests",
    }
    seen = await tests.as_it_is_with_tests(**why)
    expect(
        not seen.changed and not seen.made,
        f"After a run of {plural(len(seen.run.tests), 'test')}, this differs in the developer's database: "
        f"{', '.join(seen.changed) or 'nothing'}. Databases that are left: {', '.join(seen.made) or 'none'}.",
        **why,
    )


@pytest.mark.patient
async def test_few_statements(tests):
    """A run sends at most 1,500 statements to the database."""
    why = {
        "because": "Tests that take minutes are run once a day, and then nobody knows which change broke the shop.",
        "section": "What isolation costs",
    }
    run = (await tests.as_it_is_with_tests(**why)).run
    sent = (
        f"A run of {plural(len(run.tests), 'test')} sent {run.statements:,} statements. Expected: at most "
        f"{MAX_STATEMENTS:,}."
    )
    expect(run.statements <= MAX_STATEMENTS, sent, **why)
