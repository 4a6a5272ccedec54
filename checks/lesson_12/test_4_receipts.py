"""Lesson 12: what PostgreSQL can do for the shop. Here: receipts of the tills, in batches."""

from datetime import datetime
from uuid import UUID

from checks.kit.report import expect
from checks.kit.wire import committing
from checks.lesson_12.at_once import both_before_either_writes, stored_first
from checks.lesson_12.days import batch, in_another_zone

MOST = 20
PATIENCE = (
    "Each wait is a way to the database and back. A till does not wait for 2,000 of them: it gives up and tries again."
)
BATCHES = "A key that the database makes costs a statement for each row"
KEYS = "Keys in order and keys in no order"
MOMENTS = "A time without a zone is not a moment"

MORNING = "2026-01-05T09:00:00Z"

STORED = "SELECT till, cents FROM receipts WHERE id = $1"


async def test_a_batch_takes_few_round_trips(app, shop, wire):
    """`POST /receipts` stores all receipts of a batch or none, and waits for the database at most 20 times."""
    first = batch("2026-01-05T09:00:00+01:00")  # its request opens a connection, which takes round trips of its own
    await stored_first(app, wire, "POST", "/receipts", first, BATCHES)
    for size in (1, 300, 300, 2000):
        sent = batch(*[f"2026-01-05T{n % 24:02}:{n % 60:02}:00+01:00" for n in range(size)])
        sent["receipts"][-1] = sent["receipts"][0]  # two customers have bought the same
        before = await shop.count("receipts")
        with wire.watching() as seen:
            response, visible = await seen_at_each_commit(app, shop, wire, sent)
        expect(
            response.status == 201 and len(set(response["ids"])) == size,
            f"A batch of {size} receipts: {response}. Expected: status 201, and {size} different ids.",
            because="A till does not know what became of its receipts.",
            section=BATCHES,
        )
        expect(
            seen.round_trips <= MOST,
            f"For a batch of {size} receipts the app waited for the database {seen.round_trips:,} times. "
            f"Expected: at most {MOST}.",
            because=PATIENCE,
            section=BATCHES,
        )
        parts = sorted({count - before for count in visible} - {0, size})
        expect(
            not parts,
            f"While a batch of {size} receipts was stored, others saw {parts} of its rows, between two transactions.",
            because="A report counts a part of the sales. If the process ends now, the rest is never stored.",
            section=BATCHES,
        )
        added = await shop.count("receipts") - before
        expect(
            added == size,
            f"A batch of {size} receipts has added {added} rows.",
            because="Sales are missing, or count twice.",
            section=BATCHES,
        )
        for place in {0, 1, size // 2, size - 1} & set(range(size)):
            key, one = response["ids"][place], sent["receipts"][place]
            [row] = await shop.rows(STORED, UUID(key)) or [None]
            expect(
                row == {"till": one["till"], "cents": one["cents"]},
                f"Receipt {place} of the batch was {one}. The row with id {place} of the response is {row}.",
                because="A till that cancels a sale cancels that of somebody else.",
                section=BATCHES,
            )
    await shop.execute(
        "ALTER TABLE receipts ADD CONSTRAINT ck_of_tomorrow CHECK (till <> 'Till 1500') NOT VALID",
        step="the database will refuse receipts of Till 1500",
    )
    before = await shop.count("receipts")
    refused = await app.post("/receipts", json=sent)
    added = await shop.count("receipts") - before
    expect(
        refused.status >= 400 and added == 0,
        f"The database refuses one receipt of 2,000: {refused}. Rows that were added: {added}.",
        because="The till sends the batch again after an error, and the receipts that were stored count twice.",
        section=BATCHES,
    )


async def test_new_keys_are_greater(apps, shop, wire):
    """Each key of a batch is a UUID that is greater than all keys that were stored before the batch was sent."""
    greatest, of = UUID(int=0), "none"
    for turn, size in enumerate((1, 100, 1, 1, 50, 1, 1, 1)):
        app = apps[turn % 2]
        response = await app.post("/receipts", json=batch(*[MORNING] * size))
        expect(
            response.status == 201,
            f"Batch {turn + 1}, with {size} receipts, through process {turn % 2 + 1}: {response}",
            because="A till cannot send its receipts.",
            section=KEYS,
        )
        keys = sorted(UUID(key) for key in response["ids"])
        expect(
            len(set(keys)) == size and keys[0] > greatest,
            f"The lowest key of batch {turn + 1}, with {size} receipts, is {keys[0]}. The greatest key before was "
            f"{greatest}, in {of}.",
            because="An index adds keys in no order all over its pages. With the receipts of years, a page is read "
            "from the disk for each new one, and the tills wait.",
            section=KEYS,
        )
        greatest, of = keys[-1], f"batch {turn + 1}"
        await app.get(f"/receipts/{greatest}")
    found = await shop.value("SELECT count(*) FROM receipts WHERE id > $1", greatest)
    expect(
        found == 0,
        f"PostgreSQL has {found} keys that are greater than the last one, {greatest}.",
        because="The response names other keys than the table.",
        section=KEYS,
    )
    sends = [lambda app=app: app.start_request("POST", "/receipts", json=batch(*[MORNING] * 20)) for app in apps[:2]]
    responses = await both_before_either_writes(wire, shop, *sends)
    expect(
        [response.status for response in responses] == [201, 201]
        and len({key for response in responses for key in response["ids"]}) == 40,
        f"Two processes stored a batch of 20 receipts at the same moment. Expected: status 201 twice, and 40 different "
        f"keys. {responses[0]} {responses[1]}",
        because="The tills of two branches send their receipts in the evening, and one of them is refused.",
        section=KEYS,
    )


async def test_a_receipt_keeps_its_moment(launch, shop):
    """`GET /receipts/{receipt_id}` returns the moment that was sent, with an offset from UTC."""
    moments = (
        "2026-03-08T21:30:00-04:00",
        "2025-11-02T01:30:00-04:00",
        "2025-11-02T01:30:00-05:00",
        "2026-01-01T00:15:00+05:45",
        "2026-07-01T12:00:00Z",
        "2025-12-31T23:59:59.999999+14:00",
        "1999-12-31T12:00:00.000001-12:00",
        "2099-07-01T23:00:00-09:30",
    )
    for zone in (None, "Asia/Kolkata", "America/Bogota"):
        app = await in_another_zone(launch, shop, zone)
        sent = batch(*moments)
        response = await app.post("/receipts", json=sent)
        expect(
            response.status == 201,
            f"A till has sent receipts of {len(moments)} moments. {response}",
            because="A till cannot send its receipts.",
            section=MOMENTS,
        )
        for key, moment in zip(response["ids"], moments, strict=True):
            read = await app.get(f"/receipts/{key}")
            found = datetime.fromisoformat(read["sold_at"])
            expect(
                found.tzinfo is not None and found == datetime.fromisoformat(moment),
                f"A receipt was sold at {moment}. {read}"
                + (f" The time zone of the server is {zone}." if zone else ""),
                because="A customer may return a book for some days, and is told that it was bought earlier.",
                section=MOMENTS,
            )


async def seen_at_each_commit(app, shop, wire, body):
    """The response to a batch, and how many receipts others saw each time that the app wanted to commit."""
    visible = []
    async with wire.hold(committing) as commits:
        request = app.start_request("POST", "/receipts", json=body)
        while await commits.wait_for_or(request.task):
            visible.append(await shop.count("receipts"))
            commits.release_one()
    return await request, visible
