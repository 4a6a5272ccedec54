from datetime import date, datetime
from typing import Annotated, Any
from uuid import UUID

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PositiveInt,
    StringConstraints,
)

from app.models import OrderStatus


def storable(text: str) -> str:
    """Rejects what would fail later: PostgreSQL stores no NUL, and UTF-8 has no lone surrogates."""
    if "\0" in text or any("\ud800" <= character <= "\udfff" for character in text):
        raise ValueError("a character is not allowed")
    return text


Storable = Annotated[str, AfterValidator(storable)]
Email = Annotated[Storable, StringConstraints(to_lower=True, max_length=254)]
Password = Annotated[Storable, StringConstraints(max_length=1000)]

# A value that does not fit into its column gets status 422 here. PostgreSQL would refuse it, which would become a 500.
Id = Annotated[int, Field(ge=1, le=2**63 - 1)]
MAX_INTEGER = 2**31 - 1
MAX_DISCOUNT = 90
NO_NUL = r"^[^\x00]*$"


class BookIn(BaseModel):
    isbn: str = Field(min_length=10, max_length=17, pattern=NO_NUL)
    title: str = Field(min_length=1, pattern=NO_NUL)
    subtitle: str | None = Field(default=None, pattern=NO_NUL)
    author_id: Id
    price_cents: PositiveInt = Field(le=MAX_INTEGER)
    discount_percent: int = Field(default=0, ge=0, le=MAX_DISCOUNT)
    published_on: date | None = None
    stock: int = Field(default=0, ge=0, le=MAX_INTEGER)


BookList = Annotated[list[BookIn], Field(min_length=1, max_length=1000)]


PublishersList = Annotated[list[Any], Field(min_length=1, max_length=1000)]
"""Each line should be a BookIn. A bad line must not make the whole list fail, so lines are checked one by one."""


class ImportedLine(BaseModel):
    """What became of a line, counted from 1. Either it is a book now, or there is a reason why not."""

    line: int
    book_id: int | None = None
    reason: str | None = None


class ImportReport(BaseModel):
    stored: int
    lines: list[ImportedLine]


class BookOut(BaseModel):
    """A book as it is stored. Its values were checked when they were written, not here."""

    model_config = ConfigDict(from_attributes=True)

    id: int
    isbn: str
    title: str
    subtitle: str | None
    author_id: int
    price_cents: int
    discount_percent: int
    published_on: date | None
    stock: int
    revision: int
    created_at: datetime
    updated_at: datetime


class BookPage(BaseModel):
    """`next` is the cursor of the next page, if there is one."""

    books: list[BookOut]
    next: str | None


class BookPatch(BaseModel):
    """A field that is left out stays as it is."""

    isbn: str | None = Field(default=None, min_length=10, max_length=17, pattern=NO_NUL)
    title: str | None = Field(default=None, min_length=1, pattern=NO_NUL)
    subtitle: str | None = Field(default=None, pattern=NO_NUL)
    author_id: Id | None = None
    price_cents: PositiveInt | None = Field(default=None, le=MAX_INTEGER)
    discount_percent: int | None = Field(default=None, ge=0, le=MAX_DISCOUNT)
    published_on: date | None = None


class ReviewIn(BaseModel):
    customer_id: Id
    rating: int = Field(ge=1, le=5)
    body: str = Field(default="", pattern=NO_NUL)


class ReviewOut(ReviewIn):
    """A review, and the rating of its book with this review counted in."""

    id: int
    book_id: int
    rating_count: int
    rating_average: float


class LineIn(BaseModel):
    book_id: Id
    quantity: PositiveInt = Field(le=MAX_INTEGER)


class OrderIn(BaseModel):
    """Older clients send a `customer_id` as well."""

    customer_id: Id | None = None
    lines: list[LineIn] = Field(min_length=1)


class OrderOut(BaseModel):
    id: int
    customer_id: int
    total_cents: int
    status: OrderStatus


class QuoteIn(BaseModel):
    lines: list[LineIn] = Field(min_length=1)


class SoldLine(BaseModel):
    """Copies of a book, and what each of them costs."""

    title: str
    quantity: int
    price_cents: int


class QuoteOut(BaseModel):
    lines: list[SoldLine]
    total_cents: int


class InvoiceOut(QuoteOut):
    model_config = ConfigDict(from_attributes=True)

    order_id: int


class CheckoutIn(BaseModel):
    """The provider gave the client `card_token` in exchange for the card's number, which the shop never sees."""

    lines: list[LineIn] = Field(min_length=1)
    card_token: Storable = Field(min_length=1, max_length=200)


class Charge(BaseModel):
    """What the payment provider is asked for."""

    model_config = ConfigDict(from_attributes=True)

    id: int
    order_id: int
    key: UUID
    card_token: str
    amount_cents: int


class Recipient(BaseModel):
    email: Email = Field(pattern=r"^[^@\s]+@[^@\s]+$")
    name: Storable = Field(min_length=1, max_length=200)


class GiftIn(BaseModel):
    recipient: Recipient
    lines: list[LineIn] = Field(min_length=1)
    message: Storable = Field(max_length=500)


class GiftOut(BaseModel):
    id: int
    order_id: int
    recipient_id: int
    total_cents: int


class Listed(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: int
    title: str
    price_cents: int


class AuthorOut(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: int
    name: str
    books: list[Listed]


class Opinion(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: int
    rating: int
    body: str


class PageEntry(Listed):
    author: str
    reviews: list[Opinion]


class Page(BaseModel):
    total: int
    books: list[PageEntry]


class OrderEntry(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: int
    created_at: datetime


class Account(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: int
    name: str
    orders: list[OrderEntry]
    reviews: list[Opinion]


class HistoryLine(BaseModel):
    title: str
    author: str
    quantity: int
    price_cents: int


class HistoryEntry(OrderEntry):
    lines: list[HistoryLine]


class Sales(BaseModel):
    author: str
    revenue_cents: int


class Counted(BaseModel):
    stock: int = Field(ge=0, le=MAX_INTEGER)


class Registration(BaseModel):
    email: Email = Field(pattern=r"^[^@\s]+@[^@\s]+$")
    name: Storable = Field(min_length=1, max_length=200)
    password: Password = Field(min_length=12)


class Login(BaseModel):
    email: Email
    password: Password


class Refresh(BaseModel):
    refresh_token: Storable


class Tokens(BaseModel):
    access_token: str
    refresh_token: str
    token_type: str = "bearer"


class Me(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: int
    email: str
    name: str


class TransferIn(BaseModel):
    recipient_id: Id
    cents: PositiveInt = Field(le=MAX_INTEGER)


class TransferOut(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: int
    sender_id: int
    recipient_id: int
    cents: int


class WishOut(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    book_id: int
    added_at: datetime


class Dashboard(BaseModel):
    books: int
    customers: int
    orders: int
    revenue_cents: int


class FailedMail(BaseModel):
    """A confirmation that was given up."""

    model_config = ConfigDict(from_attributes=True)

    order_id: int
    attempts: int
    error: str
