"""Lesson 12: what PostgreSQL can do for the shop. Here: coupons, at most one active coupon for each code."""

from urllib.parse import quote

import asyncpg

from checks.kit.report import expect
from checks.lesson_12.at_once import both_before_either_writes, stored_first, while_another_program_writes

TWO = "The discount depends on which row comes first. When marketing withdraws one coupon, the other one stays active."
COUNTED = "Marketing pays its partners by this number."
SECTION = "A unique index on some of the rows"
CONFLICT = "ON CONFLICT has to name the condition of the index"

STORED = "SELECT percent, times_set, active FROM coupons WHERE code = $1 ORDER BY id"
CROWD = 5
"""Requests at the same moment. They wait for the same row, and on a busy machine a longer queue exceeds its time."""

OTHER = "INSERT INTO coupons (code, percent, active) VALUES ($1, 5, $2)"


async def test_a_code_has_one_active_coupon(apps, shop, wire):
    """A code has at most one active coupon, also after requests at the same moment, and other programs add none."""
    await stock(shop)
    codes = ["SPRING", "SPRING", "50% off's", "50% off's"]
    for turn, code in enumerate(codes):
        path = f"/coupons/{quote(code, safe='')}"
        if turn == 1:
            await apps[0].delete(path)
        responses = await both_before_either_writes(
            wire,
            shop,
            lambda path=path: apps[0].start_request("PUT", path, json={"percent": 10}),
            lambda path=path: apps[1].start_request("PUT", path, json={"percent": 20}),
        )
        rows = [row for row in await shop.rows(STORED, code) if row["active"]]
        expect(
            len(rows) == 1,
            f"Two processes set the coupon {code} at the same moment. Active coupons of this code: {rows}.",
            because=TWO,
            section=SECTION,
        )
        for response in responses:
            expect(
                response.status == 200 and response["code"] == code and response["percent"] in (10, 20),
                f"Two processes set the coupon {code} at the same moment: {response}",
                because="Setting a coupon has failed, only because somebody else did the same.",
                section=CONFLICT,
            )
        crowd = await apps.at_once([("PUT", path, {"json": {"percent": 30 + n}}) for n in range(CROWD)])
        shown = await apps[turn % 2].get(path)
        expect(
            {response.status for response in [*crowd, shown]} == {200} and shown["percent"] in range(30, 30 + CROWD),
            f"{CROWD} requests set the coupon {code}, to 30 percent and more, at the same moment. They have status "
            f"{sorted({response.status for response in crowd})}. Then: {shown}",
            because="Setting a coupon fails when others do the same, or customers get a coupon that nobody has set.",
            section=CONFLICT,
        )
    for what, values in (("an active coupon AUTUMN", ("AUTUMN", True)), ("a withdrawn one SPRING", ("SPRING", False))):
        expect(
            not await refused(shop, OTHER, *values),
            f"The database refuses {what}, which another program adds.",
            because="Marketing cannot bring its old coupons into the shop.",
            section=SECTION,
        )
    for what, sql, values in (
        ("INSERT of a second active coupon SPRING", OTHER, ("SPRING", True)),
        (
            "UPDATE that makes a withdrawn coupon SPRING active",
            "UPDATE coupons SET active = true WHERE code = $1 AND NOT active",
            ("SPRING",),
        ),
    ):
        expect(
            await refused(shop, sql, *values),
            f"Another program succeeds with an {what}. Now there are {await shop.rows(STORED, 'SPRING')}.",
            because=TWO,
            section=SECTION,
        )
    response = await while_another_program_writes(
        wire, shop, lambda: apps[0].start_request("PUT", "/coupons/MAY", json={"percent": 10}), OTHER, "MAY", True
    )
    rows = [row for row in await shop.rows(STORED, "MAY") if row["active"]]
    expect(
        len(rows) == 1,
        f"Another program had added an active coupon MAY, and not committed yet, when PUT /coupons/MAY was sent: "
        f"{response}. Active coupons of this code: {rows}.",
        because=TWO,
        section=SECTION,
    )


async def test_each_put_of_a_coupon_counts(apps, shop, wire):
    """`times_set` is how often the active coupon was set, also by requests at the same moment."""
    await stock(shop)
    for code, percent in (("SPRING", 10), ("Spring", 90)):
        path, expected = f"/coupons/{code}", 0
        for turn in range(3):
            response, expected = await apps[turn % 2].put(path, json={"percent": percent}), expected + 1
            expect_count(response, expected, f"The coupon {code} was set {expected} times, one after the other")
        pair = await both_before_either_writes(
            wire,
            shop,
            lambda path=path: apps[0].start_request("PUT", path, json={"percent": 20}),
            lambda path=path: apps[1].start_request("PUT", path, json={"percent": 20}),
        )
        expected += successes(pair)
        response = await apps[0].get(path)
        expect_count(response, expected, f"The coupon {code} was set {expected} times, also at the same moment")
        expected += successes(await apps.at_once([("PUT", path, {"json": {"percent": 20}})] * CROWD))
        for app in (apps[0], apps[1]):
            response = await app.get(path)
            expect_count(response, expected, f"The coupon {code} was set {expected} times, also in a crowd")
    responses = await both_before_either_writes(
        wire,
        shop,
        lambda: apps[0].start_request("PUT", "/coupons/MAY", json={"percent": 10}),
        lambda: apps[1].start_request("PUT", "/coupons/MAY", json={"percent": 20}),
    )
    made = successes(responses)
    counts = [row["times_set"] for row in await shop.rows(STORED, "MAY")]
    expect(
        len(counts) > 1 or counts == [made],  # two rows are what another check is about
        f"There was no coupon MAY. Two processes set it at the same moment, and {made} of them got status 200. "
        f"Its times_set is {counts}; expected: {made}.",
        because=COUNTED,
        section=CONFLICT,
    )


async def test_a_withdrawn_coupon_stays(app, shop, wire):
    """A code can be used again after its coupon was withdrawn, and coupons that were withdrawn keep their rows."""
    await stock(shop)
    await stored_first(app, wire, "PUT", "/coupons/SUMMER", {"percent": 10}, SECTION)
    others = await shop.rows("SELECT * FROM coupons ORDER BY id")
    expected = []
    for turn in range(3):
        for percent in range(10 + turn, 12 + 2 * turn):
            await app.put("/coupons/SPRING", json={"percent": percent})
        shown = await app.get("/coupons/SPRING")
        expect(
            shown.status == 200 and shown["percent"] == percent,
            f"The coupon SPRING was set to {percent} percent. {shown}",
            because="Customers get another discount than the one that was announced.",
            section=SECTION,
        )
        gone = await app.delete("/coupons/SPRING")
        expected.append({"percent": 11 + 2 * turn, "times_set": 2 + turn, "active": False})
        found = await shop.rows(STORED, "SPRING")
        expect(
            gone.status == 204 and found == expected,
            f"The coupon SPRING was set and withdrawn, {turn + 1} times: {gone}. Its rows are {found}; "
            f"expected: {expected}.",
            because="Nobody can tell any more what an order of that time was entitled to, or the code is used up.",
            section=SECTION,
        )
        for response in (await app.get("/coupons/SPRING"), await app.delete("/coupons/SPRING")):
            expect(
                response.status == 404,
                f"The coupon SPRING was withdrawn. {response}",
                because="A coupon that was withdrawn is still given to customers.",
                section=SECTION,
            )
    again = await app.put("/coupons/SPRING", json={"percent": 5})
    expect(
        again.status == 200 and again["times_set"] == 1,
        f"The coupon SPRING was withdrawn three times, and set again: {again}. Expected: status 200, and times_set 1.",
        because="A code cannot be used for a new campaign, or the new count includes an old campaign.",
        section=SECTION,
    )
    found = await shop.rows("SELECT * FROM coupons WHERE code <> 'SPRING' ORDER BY id")
    expect(
        found == others,
        f"Coupons of other codes were {others}, and are {found}.",
        because="Customers lose coupons of another campaign.",
        section=SECTION,
    )


async def stock(shop):
    """Coupons of other codes: one that is active, and one that was withdrawn."""
    for code, active in (("spring", True), ("WINTER", False)):
        await shop.execute(OTHER, code, active, step=f"there is a coupon {code}, active: {active}")


async def refused(shop, sql, *values):
    try:
        await shop.execute(sql, *values)
    except asyncpg.PostgresError:
        return True
    return False


def successes(responses):
    """How many of these requests have set the coupon; that all of them do is what another check is about."""
    return sum(response.status == 200 for response in responses)


def expect_count(response, expected, what):
    expect(
        response.status == 200 and response["times_set"] == expected,
        f"{what}. {response}. Expected: status 200, and times_set {expected}.",
        because=COUNTED,
        section=CONFLICT,
    )
