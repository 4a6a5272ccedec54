"""A live PostgreSQL, from one of four sources, and fresh databases on it."""

from checks.kit.postgres.address import Address
from checks.kit.postgres.connect import Login
from checks.kit.postgres.database import Database
from checks.kit.postgres.errors import PostgresUnavailable
from checks.kit.postgres.find import find
from checks.kit.postgres.server import Server

__all__ = ["Address", "Database", "Login", "PostgresUnavailable", "Server", "find"]
