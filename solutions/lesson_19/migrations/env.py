import asyncio

from alembic import context
from sqlalchemy import Connection, NullPool, text
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine

from app import models
from app.settings import MigrationSettings, load_settings

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


ONE_AT_A_TIME = 20_180_018
"""The number of the advisory lock: any number that nothing else uses."""


async def wait_for_turn(connection: AsyncConnection) -> None:
    """Returns when no other process migrates this database. The lock belongs to the session, and ends with it.

    pg_advisory_lock would wait inside of a statement, whose snapshot CREATE INDEX CONCURRENTLY of the other process
    waits for: a deadlock. So this asks again and again, and between two questions no transaction is open.
    """
    while not await connection.scalar(text("SELECT pg_try_advisory_lock(:number)"), {"number": ONE_AT_A_TIME}):
        await connection.commit()
        await asyncio.sleep(0.2)
    await connection.commit()


async def run_online() -> None:
    # Not through alembic.ini, where a % in the password would begin an interpolation.
    # While a statement waits for a lock, all later requests wait behind it. So it gives up, and nothing has happened.
    # Past PgBouncer, which would drop this setting, and let a migration wait until it has a connection to give.
    engine = create_async_engine(
        load_settings(MigrationSettings).direct_database_url,
        poolclass=NullPool,
        connect_args={"server_settings": {"lock_timeout": "500"}},  # milliseconds
    )
    try:
        async with engine.connect() as connection:
            await wait_for_turn(connection)
            await connection.run_sync(run)
    finally:
        await engine.dispose()


asyncio.run(run_online())
