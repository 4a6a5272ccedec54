"""Settings come from the environment, secrets from files; without them the service does not start."""

import os
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import (
    AfterValidator,
    Field,
    HttpUrl,
    PositiveFloat,
    PositiveInt,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_settings import BaseSettings
from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError


def usable(text: str) -> str:
    """A URL that the engine can use. PostgresDsn would not do: it accepts drivers that SQLAlchemy does not have."""
    text = text.strip()
    try:
        url = make_url(text)
        dialect = url.get_dialect().get_async_dialect_cls(url)
    except (ArgumentError, ValueError):  # ValueError: the port is not a number
        raise ValueError("not a URL like postgresql+asyncpg://user:password@host:port/name") from None
    if dialect.name != "postgresql" or not dialect.is_async:
        raise ValueError("must begin with postgresql+asyncpg://, or with another async driver for PostgreSQL")
    if "@" in (url.host or "") or (url.port or 0) > 65535:
        raise ValueError("has a port out of range, or a password in which @ is not written as %40")
    return text


class Settings(BaseSettings):
    """`database_connections` is what the whole service may open, `web_concurrency` how many workers share it.

    uvicorn starts as many workers as WEB_CONCURRENCY says. Do not use its option `--workers` instead: the service
    would not know of it, and each worker would open as many connections as all together may.

    The service logs in as the role of `app_database_url`, which owns no table, so policies hold for it.

    From `bulk_from` copies on, an order has a discount of `bulk_percent`; see app/sales/pricing.py.

    A statement that takes `slow_statement_ms` is named in the log. Spans go to `otel_exporter_otlp_endpoint`, the base
    URL of a collector; without it there are none. A password may be tried `login_tries` times in `login_seconds`.
    """

    app_database_url: Annotated[str, AfterValidator(usable)]
    jwt_secret: SecretStr = Field(min_length=32)
    payment_url: HttpUrl
    payment_timeout: PositiveFloat = 5
    database_connections: PositiveInt = 20
    web_concurrency: PositiveInt = 1
    bulk_from: PositiveInt = 10
    bulk_percent: int = Field(default=10, ge=0, le=90)
    slow_statement_ms: PositiveInt = 500
    otel_exporter_otlp_endpoint: HttpUrl | None = None
    login_tries: PositiveInt = 5
    login_seconds: PositiveInt = 900

    @field_validator("web_concurrency")
    @classmethod
    def each_worker_has_a_connection(cls, workers: int, info: ValidationInfo) -> int:
        connections = info.data.get("database_connections", workers)
        if workers > connections:
            raise ValueError(f"{workers} workers cannot share {connections} connections")
        return workers

    @property
    def pool_size(self) -> int:
        """Connections for one worker."""
        return self.database_connections // self.web_concurrency


class WorkerSettings(BaseSettings):
    """What `python -m app.worker` needs. Times are in seconds.

    `direct_app_database_url` leads past PgBouncer, for the connection that listens.

    After a failed attempt, `mail_retry_seconds` pass before the next one. A mail that a worker has begun may be begun
    by another one after `mail_lease_seconds`, for the first one may have died.
    """

    app_database_url: Annotated[str, AfterValidator(usable)]
    direct_app_database_url: Annotated[str, AfterValidator(usable)]
    mail_url: HttpUrl
    mail_retry_seconds: PositiveFloat = 30
    mail_lease_seconds: PositiveFloat = 60


class ReportSettings(BaseSettings):
    """What `python -m app.report` and `app.backfill` need. They are about all shops, as the owner of the tables."""

    database_url: Annotated[str, AfterValidator(usable)]


class MigrationSettings(BaseSettings):
    """What Alembic needs. The URL leads past PgBouncer, as the owner of the tables."""

    direct_database_url: Annotated[str, AfterValidator(usable)]


Loaded = TypeVar("Loaded", bound=BaseSettings)


def secrets_folder() -> Path | None:
    """Where the platform puts a file for each secret, called like its setting. A variable of that name comes first."""
    folder = Path(os.environ.get("SECRETS_DIR", "/run/secrets"))
    return folder if folder.is_dir() else None


def load_settings(kind: type[Loaded]) -> Loaded:
    """Reads the settings, or ends the process with one line that names what is wrong."""
    try:
        return kind(_secrets_dir=secrets_folder())  # filled from the environment, and from the files
    except ValidationError as error:
        # names and reasons only: the value that is wrong may hold a password
        problems = "; ".join(f"{str(item['loc'][0]).upper()}: {item['msg']}" for item in error.errors())
        raise SystemExit(f"The service cannot start. {problems}") from None
