import asyncio

from alembic import context
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import create_async_engine

from app import models
from app.settings import load_settings

target_metadata = models.Book.metadata  # that of Base, filled by importing the models


def run(connection: Connection) -> None:
    context.configure(connection=connection, target_metadata=target_metadata, compare_server_default=True)
    with context.begin_transaction():
        context.run_migrations()


async def run_online() -> None:
    # not through alembic.ini, where a % in the password would be an interpolation
    engine = create_async_engine(str(load_settings().database_url))
    async with engine.connect() as connection:
        await connection.run_sync(run)
    await engine.dispose()


asyncio.run(run_online())
