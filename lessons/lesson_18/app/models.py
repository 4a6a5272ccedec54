from __future__ import annotations

from datetime import date, datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Computed,
    DateTime,
    Enum,
    ForeignKey,
    ForeignKeyConstraint,
    Identity,
    Index,
    PrimaryKeyConstraint,
    UniqueConstraint,
    func,
)
from sqlalchemy import text as sql
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column, relationship

from app.base import Base


class Shop(Base):
    """A shop that we host. Its visitors come to `host`."""

    __tablename__ = "shops"

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    name: Mapped[str]
    host: Mapped[str] = mapped_column(unique=True)


class OfShop:
    """What belongs to a shop. A new row belongs to the shop in which the transaction is; see app/tenancy.py."""

    shop_id: Mapped[int] = mapped_column(ForeignKey("shops.id"), server_default=sql("current_shop()"), index=True)


class Author(OfShop, Base):
    __tablename__ = "authors"
    __table_args__ = (UniqueConstraint("shop_id", "id"),)

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    name: Mapped[str]

    books: Mapped[list[Book]] = relationship(
        back_populates="author",
        primaryjoin="Author.id == foreign(Book.author_id)",
        order_by="Book.title, Book.id",
        lazy="raise",
    )


class Book(OfShop, Base):
    __tablename__ = "books"
    __table_args__ = (
        UniqueConstraint("shop_id", "isbn", name="uq_books_isbn"),
        ForeignKeyConstraint(
            ["shop_id", "author_id"], ["authors.shop_id", "authors.id"], name="fk_books_author_id_authors"
        ),
        CheckConstraint("price_cents > 0", name="price_positive"),
        CheckConstraint("stock >= 0", name="stock_not_negative"),
        CheckConstraint("discount_percent BETWEEN 0 AND 90", name="discount_in_range"),
        Index("ix_books_for_sale", "title", postgresql_where=sql("stock > 0")),
        Index("ix_books_created_at_id", "created_at", "id"),
        Index("ix_books_title_key", "title_key"),
        Index("ix_books_attributes", "attributes", postgresql_using="gin"),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    isbn: Mapped[str]
    title: Mapped[str]
    subtitle: Mapped[str | None]
    sort_title: Mapped[str] = mapped_column(server_default="")
    title_key: Mapped[str] = mapped_column(Computed("lower(btrim(title))", persisted=True))
    author_id: Mapped[int] = mapped_column(BigInteger)
    price_cents: Mapped[int]
    discount_percent: Mapped[int] = mapped_column(server_default="0")
    published_on: Mapped[date | None]
    stock: Mapped[int] = mapped_column(server_default="0")
    rating_count: Mapped[int] = mapped_column(server_default="0")
    rating_sum: Mapped[int] = mapped_column(server_default="0")
    revision: Mapped[int] = mapped_column(server_default="1")
    attributes: Mapped[dict[str, Any]] = mapped_column(JSONB, server_default=sql("'{}'"))
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())
    updated_at: Mapped[datetime] = mapped_column(
        DateTime(timezone=True), server_default=func.now(), onupdate=func.now()
    )

    author: Mapped[Author] = relationship(
        back_populates="books", primaryjoin="Author.id == foreign(Book.author_id)", lazy="raise"
    )
    reviews: Mapped[list[Review]] = relationship(order_by="Review.id", lazy="raise")


class Customer(OfShop, Base):
    __tablename__ = "customers"
    __table_args__ = (
        UniqueConstraint("shop_id", "id"),
        UniqueConstraint("shop_id", "email", name="uq_customers_email"),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    email: Mapped[str]
    name: Mapped[str]
    credit_cents: Mapped[int] = mapped_column(server_default="500000")
    password_hash: Mapped[str] = mapped_column(server_default="")
    active: Mapped[bool] = mapped_column(server_default=sql("true"))

    orders: Mapped[list[Order]] = relationship(back_populates="customer", order_by="Order.id", lazy="raise")
    reviews: Mapped[list[Review]] = relationship(
        primaryjoin="Customer.id == foreign(Review.customer_id)", order_by="Review.id", lazy="raise"
    )


class RefreshToken(OfShop, Base):
    """`token` is how the service recognizes the token. All tokens that came from one login have one `family`."""

    __tablename__ = "refresh_tokens"

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    customer_id: Mapped[int] = mapped_column(ForeignKey("customers.id"))
    family: Mapped[UUID]
    token: Mapped[str] = mapped_column(unique=True)
    expires_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    used_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    revoked_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))


class LoginTries(OfShop, Base):
    """How often a password of an account was tried, in the time that ends at `ends_at`. See app/tries.py."""

    __tablename__ = "login_tries"
    __table_args__ = (PrimaryKeyConstraint("shop_id", "account", name="pk_login_tries"),)

    account: Mapped[str]
    tries: Mapped[int]
    ends_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))


class Review(OfShop, Base):
    __tablename__ = "reviews"
    __table_args__ = (
        CheckConstraint("rating BETWEEN 1 AND 5", name="rating_in_range"),
        UniqueConstraint("book_id", "customer_id"),
        ForeignKeyConstraint(
            ["shop_id", "customer_id"],
            ["customers.shop_id", "customers.id"],
            name="fk_reviews_customer_id_customers",
        ),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    book_id: Mapped[int] = mapped_column(ForeignKey("books.id", ondelete="CASCADE"))
    customer_id: Mapped[int] = mapped_column(BigInteger)
    rating: Mapped[int]
    body: Mapped[str] = mapped_column(server_default="")


class OrderStatus(StrEnum):
    pending = "pending"
    paid = "paid"
    shipped = "shipped"
    cancelled = "cancelled"


class Order(OfShop, Base):
    """`public_id` is in the link with which a customer's friends follow the order."""

    __tablename__ = "orders"
    __table_args__ = (Index("uq_orders_public_id", "public_id", unique=True),)

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    customer_id: Mapped[int] = mapped_column(ForeignKey("customers.id"))
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())
    status: Mapped[OrderStatus] = mapped_column(
        Enum(OrderStatus, name="order_status"), server_default=OrderStatus.pending
    )
    public_id: Mapped[UUID] = mapped_column(server_default=func.gen_random_uuid())

    customer: Mapped[Customer] = relationship(back_populates="orders", lazy="raise")
    lines: Mapped[list[OrderLine]] = relationship(order_by="OrderLine.id", lazy="raise")


class OrderLine(OfShop, Base):
    __tablename__ = "order_lines"
    __table_args__ = (CheckConstraint("quantity > 0", name="quantity_positive"),)

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    order_id: Mapped[int] = mapped_column(ForeignKey("orders.id"))
    book_id: Mapped[int] = mapped_column(ForeignKey("books.id"))
    quantity: Mapped[int]
    price_cents: Mapped[int]

    book: Mapped[Book] = relationship(lazy="raise")


class PaymentStatus(StrEnum):
    pending = "pending"
    accepted = "accepted"
    refused = "refused"


class Payment(OfShop, Base):
    """An attempt to charge a card. `key` is the Idempotency-Key of the call; pending: its outcome is not known."""

    __tablename__ = "payments"
    __table_args__ = (CheckConstraint("amount_cents > 0", name="amount_positive"),)

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    order_id: Mapped[int] = mapped_column(ForeignKey("orders.id"), index=True)
    key: Mapped[UUID] = mapped_column(unique=True)
    card_token: Mapped[str]
    amount_cents: Mapped[int] = mapped_column(BigInteger)
    status: Mapped[PaymentStatus] = mapped_column(
        Enum(PaymentStatus, name="payment_status"), server_default=PaymentStatus.pending
    )
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())


class Gift(OfShop, Base):
    """The giver is the customer of the order."""

    __tablename__ = "gifts"

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    order_id: Mapped[int] = mapped_column(ForeignKey("orders.id"), unique=True)
    recipient_id: Mapped[int] = mapped_column(ForeignKey("customers.id"))
    message: Mapped[str]


class Invoice(OfShop, Base):
    """What a customer is asked to pay, as it was sent. It does not change with the books."""

    __tablename__ = "invoices"

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    order_id: Mapped[int] = mapped_column(ForeignKey("orders.id"), unique=True)
    lines: Mapped[list[dict[str, Any]]] = mapped_column(JSONB)
    total_cents: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())


class Transfer(OfShop, Base):
    """Credit that went from one customer to another."""

    __tablename__ = "transfers"
    __table_args__ = (CheckConstraint("cents > 0", name="cents_positive"),)

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    sender_id: Mapped[int] = mapped_column(ForeignKey("customers.id"))
    recipient_id: Mapped[int] = mapped_column(ForeignKey("customers.id"))
    cents: Mapped[int]
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())


class Wish(OfShop, Base):
    """A book on a customer's wish list."""

    __tablename__ = "wishes"
    __table_args__ = (UniqueConstraint("customer_id", "book_id"),)

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    customer_id: Mapped[int] = mapped_column(ForeignKey("customers.id"))
    book_id: Mapped[int] = mapped_column(ForeignKey("books.id", ondelete="CASCADE"))
    added_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())


class IdempotencyKey(OfShop, Base):
    """A key that a customer has sent with an order, and what the response to it was."""

    __tablename__ = "idempotency_keys"
    __table_args__ = (UniqueConstraint("customer_id", "key"),)

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    customer_id: Mapped[int] = mapped_column(ForeignKey("customers.id"))
    key: Mapped[str]
    request_hash: Mapped[str] = mapped_column(server_default="")
    response: Mapped[dict[str, Any] | None] = mapped_column(JSONB)
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())


class Mail(OfShop, Base):
    """A confirmation that is to be sent, or was. `status` is pending, processing, sent or failed.

    A trigger sends a notification on the channel `outbox` for each new row, with the row's id.
    """

    __tablename__ = "outbox"
    __table_args__ = (
        CheckConstraint("status IN ('pending', 'processing', 'sent', 'failed')", name="status_known"),
        Index("ix_outbox_due_at", "due_at", postgresql_where=sql("status IN ('pending', 'processing')")),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    order_id: Mapped[int] = mapped_column(ForeignKey("orders.id"))
    recipient: Mapped[str]
    total_cents: Mapped[int] = mapped_column(BigInteger)
    status: Mapped[str] = mapped_column(server_default="pending")
    attempts: Mapped[int] = mapped_column(server_default="0")
    due_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())
    error: Mapped[str] = mapped_column(server_default="")


class Coupon(OfShop, Base):
    """`times_set` counts how often it was set while it was active. One that was withdrawn is not active any more.

    A trigger copies `percent` to `discount_percent`, whichever release writes it. The next release reads only the copy.
    """

    __tablename__ = "coupons"
    __table_args__ = (
        CheckConstraint("percent BETWEEN 1 AND 90", name="percent_in_range"),
        Index("uq_coupons_code_active", "shop_id", "code", unique=True, postgresql_where=sql("active")),
    )

    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    code: Mapped[str]
    percent: Mapped[int]
    discount_percent: Mapped[int]
    active: Mapped[bool] = mapped_column(server_default=sql("true"))
    times_set: Mapped[int] = mapped_column(server_default="1")


class Receipt(OfShop, Base):
    """A sale at a till of a branch. Receipts come late and in no order."""

    __tablename__ = "receipts"
    __table_args__ = (
        CheckConstraint("cents > 0", name="cents_positive"),
        CheckConstraint("currency ~ '^[A-Z]{3}$'", name="currency_code"),
        Index("ix_receipts_sold_at", "sold_at"),
    )

    id: Mapped[UUID] = mapped_column(primary_key=True)
    till: Mapped[str]
    sold_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    cents: Mapped[int]
    currency: Mapped[str] = mapped_column(server_default="EUR")
    stored_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())
