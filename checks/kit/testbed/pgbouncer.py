"""A PgBouncer in front of one database, with the configuration that lesson.toml or a check gives it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import secrets
import shutil
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from checks.kit.lessons.errors import WorkbookError
from checks.kit.postgres.address import Address
from checks.kit.postgres.connect import Login
from checks.kit.postgres.errors import PostgresUnavailable

PLACES = ("/usr/sbin", "/usr/local/sbin", "/opt/homebrew/bin")
"""Where packages put the program and no shell looks."""

HOW_TO_INSTALL = "apt-get install pgbouncer   or   brew install pgbouncer"

PORT = 6432
"""It listens on a Unix socket in a folder of its own, so its port is a part of a name that only we use."""

START_TIMEOUT, STOP_TIMEOUT = 30.0, 10.0
"""Seconds until it accepts connections, and until it has ended; bounds for failures, not measurements."""

CONSOLE = "workbook"
"""The user who may give commands to PgBouncer."""

DEFAULTS = {
    "listen_addr": "",
    "listen_port": str(PORT),
    "unix_socket_dir": ".",
    "auth_type": "scram-sha-256",
    "auth_file": "users.txt",
    "admin_users": CONSOLE,
    # connections to the server are made again at once after a failure, for the sake of checks
    "server_login_retry": "0",
}

Options = Mapping[str, str]


def defaults(version: tuple[int, ...]) -> dict[str, str]:
    """Settings of a PgBouncer of this version, which the lesson's come on top of.

    One that can keep track of prepared statements does not: a lesson is the same whatever is installed.
    """
    return DEFAULTS | ({"max_prepared_statements": "0"} if version >= (1, 21) else {})


def find_pgbouncer() -> str | None:
    """The program, also where a package puts it and no shell looks; None if it is not installed."""
    return shutil.which("pgbouncer", path=os.pathsep.join([os.environ.get("PATH", ""), *PLACES]))


class PgBouncer:
    """A PgBouncer that runs, or that a check has stopped.

    `address` is where it listens, the same after a restart. `version` is that of the program: (1, 18).
    """

    def __init__(
        self,
        program: str,
        folder: Path,
        note_process: Callable[[int], None],
        owner: str,
        version: tuple[int, ...],
    ) -> None:
        self.version = version
        self._program = program
        self._folder = folder
        self._note_process = note_process
        self._owner = owner
        self._password = secrets.token_hex(16)
        self._process: asyncio.subprocess.Process | None = None
        self._log_of_start = 0  # characters
        self.address = Address(str(folder), PORT)

    @property
    def log(self) -> str:
        """What it has written since the first start."""
        return (self._folder / "log").read_text(encoding="utf-8", errors="replace")

    @property
    def log_after_start(self) -> str:
        """What it has written since it accepted connections for the first time: nothing, if nobody used it."""
        return self.log[self._log_of_start :]

    def configure(self, databases: Mapping[str, str], logins: Sequence[Login], options: Options) -> None:
        """Writes its files: databases by name with their connection strings, who may log in, and `[pgbouncer]`."""
        merged = {**defaults(self.version), **options}
        self.address = Address(merged["listen_addr"] or str(self._folder), int(merged["listen_port"]))
        lines = ["[databases]", *(f"{name} = {where}" for name, where in databases.items())]
        lines += ["[pgbouncer]", *(f"{name} = {value}" for name, value in merged.items())]
        users = [f'"{one.role}" "{one.password}"' for one in (*logins, Login(CONSOLE, self._password))]
        for name, text in (("pgbouncer.ini", lines), ("users.txt", users)):
            path = self._folder / name
            path.touch(mode=0o600)
            path.write_text("\n".join(text) + "\n", encoding="utf-8")

    async def start(self) -> None:
        """Starts it, and returns when it accepts connections. Raises WorkbookError with what it said if it does not."""
        # names within its own folder: as another user it could not go through the folders above
        command = [self._program, "pgbouncer.ini"]
        if sys.platform != "win32" and os.getuid() == 0:  # it refuses to be root
            command[1:1] = ["-u", self._owner]
            for path in (self._folder, *self._folder.iterdir()):
                shutil.chown(path, self._owner)
        with (self._folder / "log").open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *command, cwd=self._folder, stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip
        self._note_process(self._process.pid)
        ended = asyncio.ensure_future(self._process.wait())
        try:
            async with asyncio.timeout(START_TIMEOUT):
                while not ended.done() and not _accepts(self.address):  # it tells nobody when it does
                    await asyncio.wait([ended], timeout=0.01)
        except TimeoutError:
            await self.stop(kill=True)
        finally:
            if not ended.done():
                ended.cancel()
        if self._process is None or self._process.returncode is not None:
            raise WorkbookError(
                f"PgBouncer did not start. It said: {self.log[-600:].strip() or 'nothing'}\n"
                "See whether it starts by itself: pgbouncer --version"
            )
        self._log_of_start = self._log_of_start or len(self.log)

    async def stop(self, *, kill: bool = False) -> None:
        """Ends it, with all connections through it; with `kill` it has no time to say goodbye."""
        process, self._process = self._process, None
        if process is None or process.returncode is not None:
            return
        # since 1.23 it waits for its clients after SIGTERM; older ones have no immediate end by SIGQUIT
        at_once = signal.SIGTERM if self.version < (1, 23) else signal.SIGQUIT
        with contextlib.suppress(ProcessLookupError):  # it may end by itself meanwhile
            process.send_signal(signal.SIGKILL if kill else at_once)
        try:
            async with asyncio.timeout(STOP_TIMEOUT):
                await process.wait()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
        # or the next one finds the socket of a process that was killed
        (self._folder / f".s.PGSQL.{self.address.port}").unlink(missing_ok=True)

    async def restart(self, *, kill: bool = False) -> None:
        """Ends it and starts it again: all connections through it are gone."""
        await self.stop(kill=kill)
        await self.start()

    async def command(self, command: str) -> list[dict[str, Any]]:
        """Gives it a command on its console and returns the rows of the response: `await command("SHOW POOLS")`."""
        import psycopg
        from psycopg.rows import dict_row

        # a cursor that sends the text only: the console knows no parameters
        async with await psycopg.AsyncConnection.connect(
            host=self.address.host, port=self.address.port, dbname="pgbouncer", user=CONSOLE, password=self._password,
            autocommit=True, cursor_factory=psycopg.AsyncClientCursor, row_factory=dict_row,
        ) as console:  # fmt: skip
            cursor = await console.execute(command)
            return await cursor.fetchall() if cursor.description else []


@asynccontextmanager
async def pgbouncer(
    scratch: Path,
    databases: Mapping[str, str],
    logins: Sequence[Login],
    options: Options,
    note_process: Callable[[int], None],
    owner: str = "nobody",
) -> AsyncIterator[PgBouncer]:
    """A PgBouncer that runs while the block lasts, with its files in a folder of `scratch`.

    `owner` is as whom it runs if we are root. See PgBouncer.configure for the rest. Raises PostgresUnavailable if it is
    not installed.
    """
    program = find_pgbouncer()
    if program is None:
        raise PostgresUnavailable(f"PgBouncer is needed here and is not installed. Next: {HOW_TO_INSTALL}")
    with TemporaryDirectory(prefix="pgbouncer-", dir=scratch) as folder:
        made = PgBouncer(program, Path(folder), note_process, owner, await _version_of(program))
        try:
            made.configure(databases, logins, options)
            await made.start()
            yield made
        finally:
            await made.stop(kill=True)


async def _version_of(program: str) -> tuple[int, ...]:
    """(1, 18); empty if it does not say."""
    asking = await asyncio.create_subprocess_exec(
        program, "--version", stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    said, _ = await asking.communicate()
    found = re.search(rb"PgBouncer (\d+)\.(\d+)", said)
    return (int(found[1]), int(found[2])) if found else ()


def _accepts(address: Address) -> bool:
    family = socket.AF_INET if address.socket_path is None else socket.AF_UNIX
    with socket.socket(family) as probe:
        return probe.connect_ex(address.socket_path or (address.host, address.port)) == 0
