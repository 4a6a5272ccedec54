"""Lesson 14: tests that somebody can rely on. Here: whether they notice a shop that breaks a promise."""

import pytest


@pytest.mark.patient
async def test_notices_what_is_not_stored(tests):
    """The tests notice when an order is not stored, its price changes later, or a gift has no mail."""
    await tests.expect_caught(
        "stored",
        because="A customer has a confirmation of an order that is not stored, pays another price, or gets no mail.",
        section="A test that asks the database",
    )


@pytest.mark.patient
async def test_notices_what_is_not_refused(tests):
    """The tests notice when orders of others can be read, no secret is needed, or a refused order is half stored."""
    await tests.expect_caught(
        "refused",
        because="Strangers read orders or make tokens, or a refused order takes books, and all tests are green.",
        section="A test that asks the database",
    )


@pytest.mark.patient
async def test_notices_what_fails_at_the_commit(tests):
    """The tests notice when an order that fails at its COMMIT is confirmed, or leaves something behind."""
    await tests.expect_caught(
        "at the commit",
        because="A customer waits for a parcel that nobody sends, or the shop cannot sell copies that it has.",
        section="What each way of isolation cannot see",
    )


@pytest.mark.patient
async def test_notices_what_two_do_at_once(tests):
    """The tests notice when two requests at once both sell the last copy, use the same key or move the same credit."""
    await tests.expect_caught(
        "at once",
        because="The fault shows only when many customers order at once. Then books are sold twice, or credit is lost.",
        section="Two requests at the same moment",
    )


@pytest.mark.patient
async def test_notices_a_wrong_payment(tests):
    """The tests notice when a refused payment gives no copies back, or a payment that is tried again has a new key."""
    await tests.expect_caught(
        "payments",
        because="A customer pays twice, or the copies of a refused order are missing in the stock.",
        section="A payment provider in the tests",
    )


@pytest.mark.patient
async def test_notices_a_missing_migration(tests):
    """The tests notice when the migrations lack a constraint or a trigger that the shop relies on."""
    await tests.expect_caught(
        "migrations",
        because="Production has the tables of the migrations. There a customer may owe more than the credit allows.",
        section="Tables from the migrations",
    )
