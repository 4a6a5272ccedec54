"""Baskets of books, and what the ticket says about their prices."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from checks.kit.testbed.shop import Shop

SEED = 10
"""Of the random baskets: the same on each run. A verdict names it, so that a basket can be made again."""

PRICES = (1, 5, 10, 15, 995, 1005, 1250, 4999)
"""List prices in cents. Many have half a cent after a discount, some of them above an even cent, some above an odd."""

DISCOUNTS = (90, 10, 15, 0, 5, 50, 33, 0)
"""The books' own discounts in percent, higher and lower than the bulk discounts below."""


@dataclass(frozen=True, slots=True)
class Rule:
    """The bulk discount, as the settings say."""

    bulk_from: int
    bulk_percent: int

    @property
    def env(self) -> dict[str, str | None]:
        return {"BULK_FROM": str(self.bulk_from), "BULK_PERCENT": str(self.bulk_percent)}

    def price(self, book: Book, copies: int) -> int:
        """Cents for one copy in a basket of so many."""
        percent = max(book.discount, self.bulk_percent) if copies >= self.bulk_from else book.discount
        hundredths = book.price * (100 - percent)
        return max(1, hundredths // 100 + (hundredths % 100 >= 50))

    def __str__(self) -> str:
        return f"BULK_FROM={self.bulk_from} and BULK_PERCENT={self.bulk_percent}"


USUAL, OTHER = Rule(10, 10), Rule(4, 35)
"""The settings that an app has by itself, and others."""


@dataclass(frozen=True, slots=True)
class Book:
    """A book as it is on the shelf now."""

    id: int
    title: str
    price: int
    discount: int


@dataclass(frozen=True, slots=True)
class Basket:
    """Copies of books, in the order of the request. One book may be in several lines."""

    lines: tuple[tuple[Book, int], ...]

    @property
    def body(self) -> dict[str, list[dict[str, int]]]:
        """What `POST /quotes` and `POST /orders` take."""
        return {"lines": [{"book_id": book.id, "quantity": quantity} for book, quantity in self.lines]}

    def prices(self, rule: Rule) -> list[tuple[str, int, int]]:
        """Title, quantity and cents for one copy of each line, sorted."""
        copies = sum(quantity for _, quantity in self.lines)
        return sorted((book.title, quantity, rule.price(book, copies)) for book, quantity in self.lines)

    def in_order(
        self, lines: Sequence[tuple[str, int, int]], said: Sequence[tuple[str, int, int]]
    ) -> list[tuple[str, int, int]]:
        """Lines of an order of this basket, in the order of the request; as in `said` where it leaves a choice."""
        left, sorted_lines = list(lines), []
        for number, (book, quantity) in enumerate(self.lines):
            alike = [line for line in left if line[:2] == (book.title, quantity)]
            alike.sort(key=lambda line: line not in said[number : number + 1])
            for line in alike[:1]:
                left.remove(line)
                sorted_lines.append(line)
        return sorted_lines + left

    def total(self, rule: Rule) -> int:
        return total_of(self.prices(rule))

    def __str__(self) -> str:
        """`3 copies at 995 cents with 5 % off, 1 copy at 10 cents`."""
        return ", ".join(
            f"{quantity} {'copy' if quantity == 1 else 'copies'} at {book.price} cents"
            + (f" with {book.discount} % off" if book.discount else "")
            for book, quantity in self.lines
        )


def total_of(prices: Sequence[tuple[str, int, int]]) -> int:
    return sum(quantity * cents for _, quantity, cents in prices)


async def shelve(shop: Shop, ids: Sequence[int], *, change: int = 0) -> list[Book]:
    """Gives the books prices and discounts; with another `change`, other ones."""
    step = len(ids) // 2 + 1 if change else 0
    for number, book in enumerate(ids):
        await shop.execute(
            "UPDATE books SET price_cents = $2, discount_percent = $3 WHERE id = $1",
            book,
            PRICES[number % len(PRICES)] + change,
            DISCOUNTS[(number + step) % len(DISCOUNTS)],
        )
    return await books_of(shop, ids)


async def books_of(shop: Shop, ids: Sequence[int]) -> list[Book]:
    """The books as they are stored, in the order of `ids`."""
    rows = await shop.rows("SELECT id, title, price_cents, discount_percent FROM books WHERE id = ANY($1)", list(ids))
    found: Mapping[int, Book] = {
        row["id"]: Book(row["id"], row["title"], row["price_cents"], row["discount_percent"]) for row in rows
    }
    return [found[one] for one in ids]


def baskets(books: Sequence[Book], rule: Rule, count: int = 9) -> list[Basket]:
    """So many baskets: some at the limits of the rule, the others random."""
    half = rule.bulk_from // 2
    limits = [
        ((books[4], rule.bulk_from),),
        ((books[4], rule.bulk_from - 1),),
        ((books[3], half), (books[5], rule.bulk_from - half)),  # together, and neither line by itself
        ((books[6], half), (books[6], rule.bulk_from - half)),  # one book in two lines
        ((books[0], 1), (books[2], 3), (books[7], rule.bulk_from + 1)),
        tuple((book, 1) for book in books[: rule.bulk_from - 1]),
    ]
    random = Random(f"{SEED} {rule}")
    made = [Basket(lines) for lines in limits]
    while len(made) < count:
        chosen = random.choices(books, k=random.randint(1, 8))
        made.append(Basket(tuple((book, random.randint(1, 6)) for book in chosen)))
    return made[:count]
