from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field, PositiveInt


class BookIn(BaseModel):
    isbn: str = Field(min_length=10, max_length=17)
    title: str = Field(min_length=1)
    author_id: int
    price_cents: PositiveInt
    stock: int = Field(default=0, ge=0)


class BookOut(BookIn):
    model_config = ConfigDict(from_attributes=True)

    id: int
    revision: int
    created_at: datetime
    updated_at: datetime


class BookPatch(BaseModel):
    """What is left out stays as it is."""

    isbn: str = Field(default="", min_length=10, max_length=17)
    title: str = Field(default="", min_length=1)
    price_cents: PositiveInt = 1


class ReviewIn(BaseModel):
    customer_id: int
    rating: int = Field(ge=1, le=5)
    body: str = ""


class ReviewOut(ReviewIn):
    """A review, and how its book stands with it."""

    id: int
    book_id: int
    rating_count: int
    rating_average: float


class LineIn(BaseModel):
    book_id: int
    quantity: PositiveInt


class OrderIn(BaseModel):
    """Older clients send a `customer_id` as well."""

    customer_id: int | None = None
    lines: list[LineIn] = Field(min_length=1)


class OrderOut(BaseModel):
    id: int
    customer_id: int
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
    stock: int = Field(ge=0)


class Registration(BaseModel):
    email: str = Field(pattern=r"^[^@\s]+@[^@\s]+$")
    name: str = Field(min_length=1)
    password: str = Field(min_length=12)


class Login(BaseModel):
    email: str
    password: str


class Refresh(BaseModel):
    refresh_token: str


class Tokens(BaseModel):
    access_token: str
    refresh_token: str
    token_type: str = "bearer"


class Me(BaseModel):
    model_config = ConfigDict(from_attributes=True)

    id: int
    email: str
    name: str


class Dashboard(BaseModel):
    books: int
    customers: int
    orders: int
    revenue_cents: int
