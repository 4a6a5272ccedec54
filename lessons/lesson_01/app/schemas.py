from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, PositiveInt

# A value that does not fit into its column gets status 422 here. PostgreSQL would refuse it, which would become a 500.
Id = Annotated[int, Field(ge=1, le=2**63 - 1)]
MAX_INTEGER = 2**31 - 1
NO_NUL = r"^[^\x00]*$"


class BookIn(BaseModel):
    isbn: str = Field(min_length=10, max_length=17, pattern=NO_NUL)
    title: str = Field(min_length=1, pattern=NO_NUL)
    author_id: Id
    price_cents: PositiveInt = Field(le=MAX_INTEGER)
    stock: int = Field(default=0, ge=0, le=MAX_INTEGER)


class BookOut(BookIn):
    model_config = ConfigDict(from_attributes=True)

    id: int


class LineIn(BaseModel):
    book_id: Id
    quantity: PositiveInt = Field(le=MAX_INTEGER)


class OrderIn(BaseModel):
    customer_id: Id
    lines: list[LineIn] = Field(min_length=1)


class OrderOut(BaseModel):
    id: int
    customer_id: int
    total_cents: int


class Dashboard(BaseModel):
    books: int
    customers: int
    orders: int
    revenue_cents: int
