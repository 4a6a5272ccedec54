"""Where the service finds what it needs."""

DATABASE_URL = "postgresql+asyncpg://bookshop:bookshop@localhost:5432/bookshop"
