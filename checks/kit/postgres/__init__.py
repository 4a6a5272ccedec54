"""A live PostgreSQL, from one of four sources, and fresh databases on it."""

from checks.kit.postgres.address import Address
from checks.kit.postgres.errors import PostgresUnavailable
from checks.kit.postgres.find import find
from checks.kit.postgres.server import Database, Server

__all__ = ["Address", "Database", "PostgresUnavailable", "Server", "find"]
