"""Lesson 12: what PostgreSQL can do for the shop. Here: what was sold on a day."""

from datetime import UTC, date, datetime, timedelta

import pytest

from checks.kit.report import expect
from checks.lesson_12.days import CASES, NOTES, as_sent, batch, in_another_zone, moments, sales, window
from checks.lesson_12.pages import FEW, expect_few_pages, watched

WRONG_DAY = "Branches are paid by the sales of the day. Some of these sales are on the day before, or on the day after."
SECTION = "A day is a different stretch of time in each zone"


async def test_a_day_is_a_day_of_its_zone(launch, shop):
    """`GET /reports/daily` counts each receipt on the day that it was in the zone at that moment."""
    early = app = await launch()
    instants = sorted({one for zone, days in CASES.items() for day in days for one in moments(zone, day)})
    sold = []
    for at in range(0, len(instants), 100):
        part = instants[at : at + 100]
        body = batch(*[as_sent(one, number) for number, one in enumerate(part)])
        sold += [(one, receipt["cents"]) for one, receipt in zip(part, body["receipts"], strict=True)]
        await send(app, body)
    for server in (None, "Asia/Kolkata"):
        app = app if server is None else await in_another_zone(launch, shop, server)
        for zone, days in CASES.items():
            expected = sales(zone, sold)
            for day in days:
                for first, last in (window(day, 1), window(day, 5), window(day, 31)):
                    response = await app.get("/reports/daily", params=asked(first, last, zone))
                    found = response.json if response.status == 200 else response
                    right = [line(first + timedelta(days=n), expected) for n in range((last - first).days + 1)]
                    wrong = [] if found == right else difference(found, right)
                    expect(
                        found == right,
                        f"The report from {first} to {last} in {zone}{said(server, zone)}: {'; '.join(wrong)}.",
                        because=WRONG_DAY,
                        section=SECTION,
                    )
    late = batch("2026-03-08T12:00:00Z", "2026-03-08T12:00:00Z")
    for receipt in late["receipts"]:
        receipt["cents"] = 2**31 - 1  # a receipt may be as much; two of them are more than 32 bits hold
    await send(early, late)
    sold += [(datetime(2026, 3, 8, 12, tzinfo=UTC), receipt["cents"]) for receipt in late["receipts"]]
    day = date(2026, 3, 8)
    response = await app.get("/reports/daily", params=asked(day, day, "America/New_York"))
    right = [line(day, sales("America/New_York", sold))]
    expect(
        response.status == 200 and response.json == right,
        f"Two more receipts of 2,147,483,647 cents each came in through another process, after this one had read the "
        f"report. Expected: {right}. {response}",
        because="Receipts come late, and the sales of that day never become complete.",
        section=SECTION,
    )


async def test_an_unknown_zone_is_refused(app):
    """`GET /reports/daily` returns 422 for an unknown zone, also if there are no receipts to convert."""
    day, empty = date(2026, 3, 8), date(1995, 3, 8)
    for on, when in ((day, "before there are receipts"), (day, "on a day with receipts"), (empty, "on a day without")):
        for zone in ("Mars/Olympus", "Europe", "../UTC", ""):
            response = await app.get("/reports/daily", params=asked(on, on, zone))
            expect(
                response.status == 422,
                f"A report in {zone!r}, which is no zone, {when}: {response}",
                because="Somebody mistypes a zone, and reads that nothing was sold, or that the service has failed.",
                section=SECTION,
            )
        if on == day:
            await send(app, batch("2026-03-08T12:00:00Z"))


@pytest.mark.start_early
async def test_a_daily_report_reads_few_pages(large, app, wire, explain):
    """`GET /reports/daily` of one day reads few pages of 50,000 receipts, in any zone."""
    for zone, day in (
        ("Europe/Berlin", "2017-07-14"),
        ("America/New_York", "2019-11-03"),
        ("Pacific/Kiritimati", "2016-02-29"),
        ("Asia/Kathmandu", "2011-12-31"),
    ):
        on = date.fromisoformat(day)
        response, seen = await watched(app, wire, "/reports/daily", asked(on, on, zone))
        expect(
            response.status == 200 and response.json[0]["receipts"] > 0,
            f"The shop has about 8 receipts of each day of sixteen years. {response}",
            because=WRONG_DAY,
            section=SECTION,
        )
        await expect_few_pages(
            explain,
            seen,
            "receipts",
            f"The report of {day} in {zone}",
            because="The report of one day takes as long as that of all years together, and longer each month.",
            section=FEW["receipts"],
        )


async def send(app, body):
    """Sends receipts, without which a report has nothing to say."""
    response = await app.post("/receipts", json=body)
    expect(
        response.status == 201,
        f"A till has sent {len(body['receipts'])} receipts, for the report to count them: {response}",
        because="The report cannot count sales that the shop has refused.",
        section="A time without a zone is not a moment",
    )


def asked(first, last, zone):
    return {"first": str(first), "last": str(last), "zone": zone}


def line(day, expected):
    receipts, cents = expected.get(day, (0, 0))
    return {"day": str(day), "receipts": receipts, "cents": cents}


def difference(found, right):
    """The first days that are wrong."""
    if not isinstance(found, list) or [one.get("day") for one in found] != [one["day"] for one in right]:
        return [f"expected the days {right[0]['day']} to {right[-1]['day']}, each once, in this order; got {found}"]
    return [f"expected {want}, got {have}" for have, want in zip(found, right, strict=True) if have != want][:2]


def said(server, zone):
    note = f" ({NOTES[zone]})" if zone in NOTES else ""
    return note + (f", with {server} as the time zone of the server" if server else "")
