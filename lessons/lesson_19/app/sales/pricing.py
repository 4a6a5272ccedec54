"""What a copy costs. No other module computes a price."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Protocol

from fastapi import Depends, Request


class Priced(Protocol):
    """A book, as far as its price goes."""

    price_cents: int
    discount_percent: int


class Counted(Protocol):
    """A line of a basket, as far as the bulk discount goes."""

    quantity: int


@dataclass(frozen=True, slots=True)
class PriceRule:
    """A copy has the discount of its book, or the bulk discount of the basket if that is higher."""

    bulk_from: int
    bulk_percent: int

    def bulk_discount(self, basket: Iterable[Counted]) -> int:
        """In percent. All books of the basket count together; below `bulk_from` copies there is none."""
        return self.bulk_percent if sum(line.quantity for line in basket) >= self.bulk_from else 0


def price_cents(book: Priced, bulk_discount: int) -> int:
    """Cents for one copy: half a cent is rounded up, and no copy costs less than a cent."""
    percent = max(book.discount_percent, bulk_discount)
    return max(1, (book.price_cents * (100 - percent) + 50) // 100)


async def get_price_rule(request: Request) -> PriceRule:
    rule: PriceRule = request.state.price_rule
    return rule


CurrentPrices = Annotated[PriceRule, Depends(get_price_rule)]
