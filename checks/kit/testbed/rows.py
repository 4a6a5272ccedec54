"""The texts, ids and order of the rows that `Shop.seed` inserts: a world that is not friendly, and a plain one.

Nothing here is random: the same call makes the same rows on every machine.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

STARTS = {
    "authors": 310_007,
    "books": 120_011,
    "customers": 530_017,
    "reviews": 740_023,
    "orders": 250_031,
    "order_lines": 620_041,
}
"""The first id of each table, far enough from the others that an id of one is never an id of another."""

ELSEWHERE = 810_047
"""The first id of tables that are not in STARTS."""

# The first and the third are equal, so that three books have a tie. No list is sorted, with or without regard to case.
TITLES = (
    "The Wind over the Marsh",
    "An Atlas of Rain",
    "The Wind over the Marsh",
    'Reading "Ulysses" Aloud',
    "100% Cotton",
    "zebras and The Moon",
    "Bathe the Dog",
    "It's Not the End",
    "Łódź – 漢字 – Ὀδύσσεια 📚",
    "the lower Case",
    r"C:\new\table_name",
    "20 Letters, Unsent",
    "An Atlas of Rain",
    "ÆGIS",
    "Mud; Then Snow",
)
AUTHORS = (
    "Ödön Kiss",
    "Ann O'Hara",
    'Jo "The Pen" Bell',
    "van den Berg, Mia",
    "Željko Đurić",
    "Bo 50% Lind",
    "李 雷",
    "ann ohara",
)
CUSTOMERS = (
    "Zoë D'Arcy",
    "Ann Lee",
    "Zoë D'Arcy",
    "ann lee",
    '"Bob" Ng',
    "Łukasz 99%",
    r"Kim \ Sons",
    "Ann Lee",
)
OPINIONS = (
    "Couldn't put it down.",
    '"A classic", they say.',
    "",
    "100 % worth it 📖",
    "Couldn't put it down.",
    r"Chapters 3\4 are missing",
    "nothing for me",
)


TYPES = {
    "id": "bigint",
    "name": "text",
    "isbn": "text",
    "title": "text",
    "author_id": "bigint",
    "price_cents": "integer",
    "stock": "integer",
    "email": "text",
    "book_id": "bigint",
    "customer_id": "bigint",
    "rating": "integer",
    "body": "text",
    "order_id": "bigint",
    "quantity": "integer",
    "shop_id": "bigint",
}
"""The columns that are filled; all others keep their defaults."""

TABLES = ("authors", "books", "customers", "reviews", "orders")
ALWAYS = TABLES[:3]
"""Tables that hold a row of others even where no row of them was asked for."""

Row = dict[str, object]


@dataclass(frozen=True, slots=True)
class Ids:
    """The ids of rows, in the order of their insertion."""

    authors: list[int] = field(default_factory=list)
    books: list[int] = field(default_factory=list)
    customers: list[int] = field(default_factory=list)
    reviews: list[int] = field(default_factory=list)
    orders: list[int] = field(default_factory=list)

    def of(self, table: str) -> list[int]:
        """Those of the table with this name."""
        ids: list[int] = getattr(self, table)
        return ids


@dataclass(frozen=True, slots=True)
class Seeded(Ids):
    """The ids of the rows that `shop.seed` was asked for, in the order of their insertion; they are not sorted.

    `ids.others` holds those of the rows of others, in lists of the same names.
    """

    others: Ids = field(default_factory=Ids)


@dataclass(frozen=True, slots=True)
class World:
    """How rows look. The texts are used in turn; `starts` are the first ids, 1 where there is none.

    `shuffled`: rows are inserted neither in the order of their ids nor in the reversed one. `elsewhere` is the first
    id of tables that get no rows; None leaves them alone. `shop` is the shop to which all rows belong, in a lesson in
    which there are several: no two of them have the same ISBN or e-mail address.
    """

    titles: tuple[str, ...]
    authors: tuple[str, ...]
    customers: tuple[str, ...]
    opinions: tuple[str, ...]
    starts: Mapping[str, int]
    shuffled: bool
    elsewhere: int | None
    shop: int | None = None

    def of_shop(self, shop: int) -> World:
        """The same for one shop of several. Its ids begin elsewhere, so that no two shops share one."""
        starts = {table: self.starts.get(table, 1) + 1000 * shop for table in STARTS}
        return replace(self, starts=starts, shop=shop)

    def rows(
        self, counts: Mapping[str, int], *, stock: int, lines: int, others: Collection[str]
    ) -> tuple[Seeded, dict[str, list[Row]]]:
        """The ids, and for each table its rows in the order of insertion. `others`: tables with a row of others."""
        ids = Seeded()
        rows: dict[str, list[Row]] = {}
        for table in TABLES:
            count, other = counts[table], table in others
            # the row of others is neither the first nor the last one, where there are enough of them
            place = (count + 1) // 3 if other else -1
            rows[table] = []
            for position, number in enumerate(self._ids(table, count + other)):
                owner: Ids = ids.others if position == place else ids
                row = {"id": number} | self._columns(table, len(owner.of(table)), owner, owner is not ids, stock)
                row |= self._of_shop
                owner.of(table).append(number)
                rows[table].append(row)
        pairs = [(ids, n // lines, n) for n in range(len(ids.orders) * lines)] + [(ids.others, 0, 0)] * len(
            ids.others.orders
        )
        rows["order_lines"] = [
            {
                "id": number,
                "order_id": owner.orders[order],
                "book_id": owner.books[n % len(owner.books)],
                "quantity": 1,
                "price_cents": 1000 if owner is ids else OTHERS_PRICE,
                **self._of_shop,
            }
            for number, (owner, order, n) in zip(self._ids("order_lines", len(pairs)), pairs, strict=True)
        ]
        return ids, rows

    def last_ids(self, rows: Mapping[str, list[Row]]) -> dict[str, int]:
        """After which id the sequence of each table goes on."""
        return {table: self.starts.get(table, 1) + len(made) - 1 for table, made in rows.items() if made or self.starts}

    @property
    def _of_shop(self) -> Row:
        return {} if self.shop is None else {"shop_id": self.shop}

    def _ids(self, table: str, count: int) -> list[int]:
        first = self.starts.get(table, 1)
        return [first + n for n in (shuffled(count) if self.shuffled else range(count))]

    def _columns(self, table: str, n: int, owner: Ids, other: bool, stock: int) -> Row:
        """The columns of a row that is the n-th of its owner, from 0."""
        match table:
            case "authors":
                return {"name": OTHERS_NAME if other else text(self.authors, n)}
            case "books":
                return {
                    "isbn": OTHERS_ISBN if other else f"978{self.shop or 0:05}{n:05}",
                    "title": text(self.titles, n),
                    "author_id": owner.authors[n % len(owner.authors)],
                    "price_cents": OTHERS_PRICE if other else 1000 + n,
                    "stock": stock,
                }
            case "customers":
                return {
                    "email": OTHERS_EMAIL
                    if other
                    else f"reader{n}@{f'shop{self.shop}.' if self.shop else ''}example.com",
                    "name": text(self.customers, n),
                }
            case "reviews":
                return {
                    "book_id": owner.books[n % len(owner.books)],
                    # so that few customers review a book twice, which some lessons forbid
                    "customer_id": owner.customers[(n + n // len(owner.books)) % len(owner.customers)],
                    "rating": 1 + n % 5,
                    "body": text(self.opinions, n),
                }
            case _:
                return {"customer_id": owner.customers[n % len(owner.customers)]}


OTHERS_NAME = "A. N. Other"
OTHERS_ISBN = "9780099999990"
OTHERS_EMAIL = "somebody.else@example.com"
OTHERS_PRICE = 1999

UNFRIENDLY = World(TITLES, AUTHORS, CUSTOMERS, OPINIONS, STARTS, shuffled=True, elsewhere=ELSEWHERE)
"""For checks: equal titles and names, quotes, percent signs, backslashes, any alphabet, ids that say nothing."""

PLAIN = World(("Book",), ("Author",), ("Reader",), ("Opinion",), {}, shuffled=False, elsewhere=None)
"""For people: Book 0, Book 1 and so on, with ids from 1."""


def text(texts: tuple[str, ...], number: int) -> str:
    """The text of the row with this number, from 0. From the second turn on it ends with the number of the turn."""
    if len(texts) == 1:
        return f"{texts[0]} {number}"
    turn, place = divmod(number, len(texts))
    return f"{texts[place]} {turn + 1}".strip() if turn else texts[place]


def shuffled(count: int) -> list[int]:
    """The numbers from 0 to count - 1: neither sorted nor reversed, as far as two or fewer can be that."""
    if count < 5:  # without the second one, which is that of others, they are still not sorted
        return [*range(count)][-1:] + [*range(count)][:-1]
    step = next(step for step in range(round(count * 0.618), count) if math.gcd(step, count) == 1)
    return [(1 + n * step) % count for n in range(count)]
