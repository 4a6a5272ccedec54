from alembic import context
from sqlalchemy import create_engine

from app import models
from app.settings import load_settings

engine = create_engine(str(load_settings().database_url).replace("+asyncpg", "+psycopg"))
with engine.connect() as connection:
    context.configure(connection=connection, target_metadata=models.Book.metadata, compare_server_default=True)
    with context.begin_transaction():
        context.run_migrations()
