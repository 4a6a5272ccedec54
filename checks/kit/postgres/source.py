"""Which server to use, and how to reach it as its administrator."""

from __future__ import annotations

import socket
import ssl
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

from checks.kit.postgres.address import Address
from checks.kit.postgres.errors import PostgresUnavailable

_TLS_REQUEST = struct.pack("!ii", 8, 80877103)
PROBE_TIMEOUT = 10
"""Seconds for a connection to the server and its word on TLS."""

_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")


@dataclass(frozen=True, slots=True)
class Source:
    """A server that was found, and how to log in as its administrator.

    `name` says in a few words which it is. `maintenance` is the database to connect to for everything that concerns
    the whole server. `release` is called when the run is over. `binaries` is the folder of its psql and pgbench.
    `is_ours` is true for a server of our own making: nobody else has anything on it, and its administrator may do
    everything.
    """

    name: str
    address: Address
    user: str
    password: str = field(repr=False)
    maintenance: str
    release: Callable[[], None] = lambda: None
    binaries: Path | None = None
    is_ours: bool = False


def from_url(url: str, name: str, advice: str) -> Source:
    """A source from a URL as libpq, SQLAlchemy or asyncpg write it; asks the server whether it offers TLS.

    `name` is what a message calls the URL, such as DATABASE_URL; `advice` is the next command to type when the server
    cannot be reached. Raises PostgresUnavailable for a URL that cannot be used or a server that does not respond.
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        raise PostgresUnavailable(
            f"{name} cannot be read as a URL. Write the special characters of user and password as %40 "
            "for @, %2F for /, %5B for [, %25 for %."
        ) from None
    if parts.scheme.partition("+")[0] not in ("postgresql", "postgres"):
        raise PostgresUnavailable(
            f"{name} begins with {parts.scheme or 'nothing'}://, not with postgresql://. "
            "Set it to postgresql://user:password@host:5432/database"
        )
    options = dict(parse_qsl(parts.query))
    try:
        port = int(options.get("port") or parts.port or 5432)
    except ValueError:
        port = 0
    if not 0 < port < 65536:
        raise PostgresUnavailable(
            f"{name} has no usable port. Write one server as host:5432, and : or / in the password as %3A or %2F."
        )
    # what the query says wins over the part before it; without a database it is the user's name, as with libpq
    host = options.get("host") or _host(parts) or "localhost"
    user = unquote(parts.username or "") or options.get("user") or "postgres"
    password = unquote(parts.password or "") or options.get("password", "")
    maintenance = unquote(parts.path.removeprefix("/")) or options.get("dbname") or user
    return Source(name, _address(host, port, options, name, advice), user, password, maintenance)


def _host(parts: SplitResult) -> str:
    """As it is written: `hostname` would turn a socket's folder, %2Fvar%2Frun, into small letters."""
    host = parts.netloc.rpartition("@")[2]
    return (parts.hostname or "") if host.startswith("[") else unquote(host.partition(":")[0])


def _address(host: str, port: int, options: dict[str, str], name: str, advice: str) -> Address:
    mode = options.get("sslmode") or options.get("ssl") or "prefer"
    if mode not in _MODES:
        raise PostgresUnavailable(f"{name} has sslmode={mode}. It may be one of: {', '.join(_MODES)}")
    plain = Address(host, port)
    if plain.socket_path is not None:
        if not Path(plain.socket_path).exists():
            raise PostgresUnavailable(f"{name} names {plain.socket_path}, where no server listens. {advice}")
        return plain
    offered = _offers_tls(host, port, name, advice)
    if mode in ("disable", "allow") or (mode == "prefer" and not offered):
        return plain
    if not offered:
        raise PostgresUnavailable(
            f"{name} asks for TLS (sslmode={mode}), and the server at {host}:{port} does not offer it. "
            "Switch TLS on there, or write sslmode=disable if the network is yours alone."
        )
    return Address(host, port, _tls(mode, options, name), host)


def _offers_tls(host: str, port: int, name: str, advice: str) -> bool:
    try:
        with socket.create_connection((host, port), timeout=PROBE_TIMEOUT) as probe:
            probe.sendall(_TLS_REQUEST)
            return probe.recv(1) == b"S"  # S or N; an ancient server would send an error, which begins with E
    except (OSError, UnicodeError) as error:
        raise PostgresUnavailable(
            f"No PostgreSQL server responds at {host}:{port}, which {name} names ({error}). {advice}"
        ) from None


def _tls(mode: str, options: dict[str, str], name: str) -> ssl.SSLContext:
    """As libpq: `prefer` and `require` encrypt without asking for whom; verify-* check the certificate.

    verify-ca checks who signed it, verify-full also the host's name in it.
    """
    root = options.get("sslrootcert")
    try:
        context = ssl.create_default_context(cafile=root if root and root != "system" else None)
    except OSError as error:
        raise PostgresUnavailable(
            f"{name} names sslrootcert={root}, which cannot be read ({error}). Name the file of the server's CA."
        ) from None
    context.check_hostname = mode == "verify-full"
    if not (mode.startswith("verify") or (mode == "require" and root)):  # require with a CA is verify-ca
        context.verify_mode = ssl.CERT_NONE
    return context
