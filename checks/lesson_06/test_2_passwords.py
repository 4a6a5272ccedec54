"""Lesson 06: a pen-test report, finding by finding. Here: how passwords are stored."""

from checks.kit.report import expect, plural
from checks.lesson_06.hashes import shortened, weakness
from checks.lesson_06.people import ANNA, BEN, PASSWORD, WRONG, log_in, registered, sha256

OLD_PASSWORD = "Grüße aus der Buchhandlung"
THEFT = "A thief of the table has the hashes. If a hash works as a password, the thief has to guess nothing."


async def test_finding_5_passwords_are_hashed_with_argon2id(app, shop):
    """The database holds Argon2id hashes with at least the parameters that OWASP asks for, each with its own salt."""
    for who in (ANNA, BEN | {"password": PASSWORD}):
        await registered(app, who)
    hashes = [row["password_hash"] for row in await stored_hashes(shop)]
    expect(
        len(hashes) == 2,
        f"Two customers have registered, each with 201. The table customers has {plural(len(hashes), 'row')}.",
        because="Customers who were told that they are registered cannot log in.",
        section="Password hashes, fast and slow",
    )
    weak = [weakness(hashed) for hashed in hashes if weakness(hashed)]
    expect(
        not weak,
        f"Two customers have registered. A stored hash: {weak[0] if weak else ''}.",
        because="With a fast hash a thief of the table tries billions of passwords a second. OWASP asks for Argon2id "
        "with 19 MiB, two passes and one lane, or a setting that it rates as equivalent.",
        section="Password hashes, fast and slow",
    )
    expect(
        len(set(hashes)) == 2,
        f"Two customers have registered with the same password, and both are stored as {shortened(hashes[0])}.",
        because="With equal salts one guess is a guess for every customer, and equal passwords can be seen.",
        section="Password hashes, fast and slow",
    )
    plain = await shop.tables_with(PASSWORD) + await shop.tables_with(sha256(PASSWORD))
    expect(
        not plain,
        f"The password, or its SHA-256, is in the table {', '.join(plain)}.",
        because="A strong hash protects nothing while the password, or a fast hash of it, is stored elsewhere.",
        section="Password hashes, fast and slow",
    )


async def test_finding_6_old_hashes_are_replaced(app, shop, wire):
    """A customer whose password is stored in the old way logs in, and has an Argon2id hash from then on."""
    old = sha256(OLD_PASSWORD)
    for who in (ANNA, BEN):
        await shop.add("customers", email=who["email"], name=who["name"], password_hash=old)
    await shop.add("customers", email="empty@example.com", name="No password", password_hash="")
    wrong = await log_in(app, ANNA, WRONG)
    expect(
        wrong.status == 401,
        f"Anna's password is stored in the old way. With a wrong password: {wrong}. Expected: 401.",
        because="An old account must be as closed as a new one.",
        section="Password hashes, fast and slow",
    )
    together = await two_logins_that_read_the_same(app, wire, ANNA | {"password": OLD_PASSWORD})
    statuses = sorted(login.status for login in together)
    expect(
        statuses == [200, 200],
        f"Anna's password is stored in the old way. Two of her devices logged in at the same moment, both with the "
        f"right password {OLD_PASSWORD!r}: {statuses[0]} and {statuses[1]}. Expected: 200 twice.",
        because="Customers who registered last year must not have to ask for a new password.",
        section="Password hashes, fast and slow",
    )
    again = await log_in(app, ANNA, OLD_PASSWORD)
    expect(
        again.status == 200,
        f"Anna's password was stored in the old way, and she has logged in. With the same password once more: {again}. "
        "Expected: 200.",
        because="A customer whose hash was replaced must not be locked out by it.",
        section="Password hashes, fast and slow",
    )
    anna, ben = [row["password_hash"] for row in await stored_hashes(shop, ANNA, BEN)]
    expect(
        not weakness(anna),
        f"Anna, whose password was stored in the old way, has logged in. Her hash now: {weakness(anna)}.",
        because="The login is the moment at which the service sees the password. A hash that is not replaced then "
        "stays as easy to crack as it is.",
        section="Password hashes, fast and slow",
    )
    attempts = (
        (ANNA, old, "Anna's old hash as the password, after it was replaced"),
        (ANNA, anna, "Anna's new hash as the password"),
        (BEN, old, "Ben's old hash as the password"),
        (BEN, old.upper(), "Ben's old hash in capitals as the password"),
    )
    for who, password, what in attempts:
        response = await log_in(app, who, password)
        expect(
            response.status in (401, 422),
            f"A login with {what}: {response.status}. Expected: 401.",
            because=THEFT,
            section="Password hashes, fast and slow",
        )
    for email, password in ((BEN["email"], ""), ("empty@example.com", ""), ("empty@example.com", OLD_PASSWORD)):
        response = await app.post("/auth/login", json={"email": email, "password": password})
        whose = "an account without a password hash" if email.startswith("empty") else "Ben's account"
        expect(
            response.status in (401, 422),
            f"A login to {whose} with {'some' if password else 'an empty'} password: {response}. Expected: 401.",
            because="Customers from before there were passwords have an empty hash. Nobody may log in as one of them, "
            "and an error of the service would tell who they are.",
            section="Password hashes, fast and slow",
        )
    last = await log_in(app, BEN, OLD_PASSWORD)
    expect(
        last.status == 200 and ben != anna,
        f"Ben had the same old hash as Anna. After Anna's login his was {shortened(ben)}, and he logs in: {last}. "
        "Expected: his old hash or one with a salt of its own, and 200.",
        because="One customer's login must not change another customer's account.",
        section="Password hashes, fast and slow",
    )


async def two_logins_that_read_the_same(app, wire, who):
    """Two logins at the same moment: the first SELECTs of both are held until both have arrived."""
    async with wire.hold(lambda statement: statement.data and not statement.changes) as reads:
        login = {"email": who["email"], "password": who["password"]}
        requests = [app.start_request("POST", "/auth/login", json=login) for _ in range(2)]
        await reads.count_within(2, 1.5)  # less than the app's own time limits
    return [await request for request in requests]


async def stored_hashes(shop, *people):
    """The rows of customers, by e-mail; of these people, if some are named."""
    rows = await shop.rows("SELECT lower(email) AS email, password_hash FROM customers ORDER BY lower(email)")
    emails = [who["email"] for who in people] or [row["email"] for row in rows]
    return [row for row in rows if row["email"] in emails]
