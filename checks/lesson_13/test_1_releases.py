"""Lesson 13: a deploy while the shop is open. Here: what the two releases do beside each other."""

from checks.kit.report import expect
from checks.lesson_13.fixtures import asked

DOWN = "Customers of the shop read an error page while the deploy is under way, and somebody is called at night."
BACK = "Something is wrong with the new release, and the old one does not work any more either. The shop is down."
DIFFERENT = "A customer is shown one discount and pays another, depending on which process takes the request."
SECTION = "A column with a new name"

DISAGREE = """
    SELECT code, to_jsonb(c) ->> 'percent' AS percent, to_jsonb(c) ->> 'discount_percent' AS discount_percent
      FROM coupons c
     WHERE to_jsonb(c) ->> 'percent' IS DISTINCT FROM to_jsonb(c) ->> 'discount_percent' ORDER BY id DESC LIMIT 3
"""
"""A column that is missing is NULL here."""


async def test_the_old_release_serves_after_0014(deploy):
    """After `alembic upgrade 0014`, all requests to the old release succeed, in a process that ran before."""
    old = await deploy.old()
    before = await deploy.failures(old, old=True)
    assert not before, before
    await deploy.upgrade("0014")
    expect_none(await deploy.failures(old, old=True), "the old release", "after `alembic upgrade 0014`", DOWN)


async def test_the_new_release_serves_in_each_phase(deploy):
    """All requests to the new release succeed: before the backfill, after it, and after `alembic upgrade head`."""
    await deploy.upgrade("0014")
    new = await deploy.new()
    await expect_new(deploy, new, "before the backfill")
    await deploy.backfill()
    await expect_new(deploy, new, "after the backfill")
    await deploy.upgrade("head")
    await expect_new(deploy, new, "after `alembic upgrade head`")


async def test_the_old_release_can_come_back(deploy):
    """After `alembic upgrade head`, all requests to the old release succeed, and it reads what the new one stored."""
    old = await deploy.old()
    await deploy.upgrade("0014")
    new = await deploy.new()
    await deploy.backfill()
    await deploy.failures(old, old=True)  # so its connections have prepared statements
    await deploy.upgrade("head")
    stored = await store(new)
    failed = await deploy.failures(old, old=True)
    expect_none(failed, "the old release", "after `alembic upgrade head`", BACK)
    for process, which in ((old, "a process that ran before"), (await deploy.old(), "one that starts now")):
        name = f"the old release ({which})"
        for path, fields in stored.items():
            response = await process.get(path)
            expect(
                response.ok and fields.items() <= response.json.items(),
                f"The new release has stored {fields}. A request for it to {name}: {response}",
                because="What customers did since the deploy is gone as soon as somebody rolls it back.",
                section=SECTION,
            )


async def test_both_columns_agree(deploy):
    """`discount_percent` and `percent` of a coupon are equal from the backfill on, whichever release writes it."""
    old = await deploy.old()
    withdrawn, *kept = [f"KEPT-{n}" for n in range(6)]
    for code in (withdrawn, *kept):
        await put(old, code, 11)
    await deploy.upgrade("0014")
    await put(old, kept[0], 12)
    await put(old, "NEW-1", 13)
    new = await deploy.new()
    [old_one] = await untouched(deploy)
    for code, percent in ((kept[0], 12), (kept[1], 11), ("NEW-1", 13), (old_one, None)):
        await expect_read(deploy, (old, new), code, percent, "before the backfill")
    await put(new, kept[2], 14)
    await put(new, "NEW-2", 15)
    await put(old, kept[2], 16)
    await put(old, kept[3], 17)
    await put(new, kept[3], 18)
    for code, percent in ((kept[2], 16), ("NEW-2", 15), (kept[3], 18)):
        await expect_read(deploy, (old, new), code, percent, "before the backfill")
    await changed_meanwhile(deploy, old, new, kept)
    await expect_equal(deploy, "after the backfill")
    await expect_written(deploy, old, new, kept, "after the backfill", 20)
    gone = await old.delete(f"/coupons/{withdrawn}")
    expect(gone.ok, f"Coupon {withdrawn} was withdrawn through the old release: {gone}", because=DOWN, section=SECTION)
    await deploy.upgrade("head")
    await expect_equal(deploy, "after `alembic upgrade head`")
    await expect_written(deploy, old, new, kept, "after `alembic upgrade head`", 40)


async def changed_meanwhile(deploy, old, new, filled):
    """Both releases change coupons while the backfill is about to write some, also coupons that have both values."""
    codes = [*await untouched(deploy, 2), filled[0], filled[2]]
    wanted = {code: (app, 71 + n) for n, (app, code) in enumerate(zip((old, new, old, new), codes, strict=True))}
    sent = []

    async def change():
        now = [app.start_request("PUT", f"/coupons/{code}", json={"percent": n}) for code, (app, n) in wanted.items()]
        sent.extend(now)
        return now

    await deploy.backfill_while("coupons", change)
    for request in sent:
        response = await request.task
        expect(response.ok, f"A coupon was changed during the backfill: {response}", because=DOWN, section=SECTION)
    if sent:
        for code, (_, percent) in wanted.items():
            await expect_read(deploy, (old, new), code, percent, "after the backfill")


async def expect_written(deploy, old, new, codes, when, percent):
    """Both releases change coupons, and make new ones."""
    for number, code in enumerate((*codes, f"LATE-{percent}", f"LATER-{percent}")):
        await put((old, new)[number % 2], code, percent + number)
        await expect_read(deploy, (old, new), code, percent + number, when)
        await put((new, old)[number % 2], code, percent + number + 1)
        await expect_read(deploy, (old, new), code, percent + number + 1, when)
    await expect_equal(deploy, f"{when}, when both releases had changed coupons")


async def expect_equal(deploy, when):
    different = await deploy.shop.rows(DISAGREE)
    expect(
        not different,
        f"The columns of these coupons, and perhaps of others, differ {when}: {different}.",
        because=DIFFERENT,
        section=SECTION,
    )


async def expect_read(deploy, releases, code, percent, when):
    if percent is None:
        percent = await deploy.shop.value("SELECT percent FROM coupons WHERE code = $1 AND active", code)
    for process in releases:
        response = await asked(process, "GET", f"/coupons/{code}")
        expect(
            response.ok and response["percent"] == percent,
            f"{when.capitalize()}, coupon {code} has {percent} percent. To {process.process.name}: {response}",
            because=DIFFERENT if response.ok else DOWN,
            section=SECTION,
        )


async def put(process, code, percent):
    response = await asked(process, "PUT", f"/coupons/{code}", json={"percent": percent})
    expect(
        response.ok and response["percent"] == percent,
        f"Coupon {code} was set to {percent} percent, by a request to {process.process.name}: {response}",
        because=DOWN,
        section=SECTION,
    )


async def untouched(deploy, number=1):
    """The codes of active coupons that nobody has changed."""
    rows = await deploy.shop.rows(
        "SELECT code FROM coupons WHERE active AND code LIKE 'CODE-%' ORDER BY id LIMIT $1", number
    )
    return [row["code"] for row in rows]


async def store(new):
    """What the new release stores: the path of each, and the fields that the old one must read there."""
    receipt = {"till": "NY-1", "sold_at": "2026-03-08T12:00:00+01:00", "cents": 900}
    stored = await new.post("/receipts", json={"receipts": [{**receipt, "currency": "USD"}, receipt]})
    coupon = await new.put("/coupons/ROLLBACK", json={"percent": 35})
    expect(
        stored.ok and coupon.ok,
        f"The new release was sent receipts and a coupon: {stored} {coupon}",
        because=DOWN,
        section="See it break",
    )
    kept = {key: receipt[key] for key in ("till", "cents")}
    return {"/coupons/ROLLBACK": {"percent": 35}} | {f"/receipts/{receipt}": kept for receipt in stored["ids"]}


async def expect_new(deploy, new, when):
    """All endpoints of the new release, and old receipts, which only it shows with a currency."""
    expect_none(await deploy.failures(new), "the new release", when, DOWN)
    for receipt in await deploy.shop.rows("SELECT id FROM receipts WHERE till LIKE 'Till %' ORDER BY id LIMIT 2"):
        response = await new.get(f"/receipts/{receipt['id']}")
        expect(
            response.ok and response["currency"] == "EUR" and response["stored_at"],
            f"The new release was asked for an old receipt, {when}. Expected: currency EUR, and stored_at. {response}",
            because=DOWN,
            section="See it break",
        )


def expect_none(failed, release, when, because):
    expect(
        not failed,
        f"Requests to {release} fail {when}. There are {len(failed)}, among them: {' '.join(failed[:3])}",
        because=because,
        section="See it break",
    )
