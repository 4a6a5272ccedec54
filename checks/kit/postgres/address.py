"""Where a PostgreSQL server listens."""

from __future__ import annotations

import ssl
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Address:
    """A place to open a socket to; no user, password or database.

    `host` is a name or an IP address, or an absolute path: the folder of the server's Unix socket.
    `tls` is the context to use after SSLRequest, or None for a plain connection.
    `server_name` is what the certificate must name when `tls` verifies it.
    """

    host: str
    port: int
    tls: ssl.SSLContext | None = None
    server_name: str | None = None

    @property
    def socket_path(self) -> str | None:
        """Path of the Unix socket, or None for TCP."""
        return f"{self.host}/.s.PGSQL.{self.port}" if self.host.startswith("/") else None
