import os
from urllib.parse import urlsplit


def database_url() -> str:
    url = os.environ.get("DATABASE_URL", "")
    if not urlsplit(url).scheme.startswith("postgresql"):
        raise SystemExit("DATABASE_URL must be set to postgresql+asyncpg://user:password@host:port/name")
    return url
