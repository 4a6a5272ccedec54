import asyncio
import os

from alembic import context
from sqlalchemy import Connection, NullPool
from sqlalchemy.ext.asyncio import create_async_engine

from app import models

target_metadata = models.Book.metadata  # the metadata of Base; importing the models has filled it


def run(connection: Connection) -> None:
    context.configure(
        connection=connection,
        target_metadata=target_metadata,
        compare_server_default=True,
        transaction_per_migration=True,  # the locks of one revision are released before the next one begins
    )
    with context.begin_transaction():
        context.run_migrations()


async def run_online() -> None:
    # Not through alembic.ini, where a % in the password would begin an interpolation. And not through the settings
    # of the service: a migration needs the URL and nothing else.
    # While a statement waits for a lock, all later requests wait behind it. So it gives up, and nothing has happened.
    # Past PgBouncer, which would drop this setting, and let a migration wait until it has a connection to give.
    engine = create_async_engine(
        os.environ["DIRECT_DATABASE_URL"],
        poolclass=NullPool,
        connect_args={"server_settings": {"lock_timeout": "500"}},  # milliseconds
    )
    try:
        async with engine.connect() as connection:
            await connection.run_sync(run)
    finally:
        await engine.dispose()


asyncio.run(run_online())
