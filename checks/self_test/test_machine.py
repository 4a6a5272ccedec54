"""Machines that cannot carry a run: each ends in one sentence that says what to do."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from checks.kit.grading.run_check import explain
from checks.kit.lessons.errors import WorkbookError, explained
from checks.kit.lessons.paths import ROOT
from checks.kit.report.model import Outcome
from checks.kit.service import machine
from checks.self_test.commands import ENVIRON, LIMIT, WORKBOOK, as_user, copy_workbook

ON_LINUX = pytest.mark.skipif(sys.platform != "linux", reason="network namespaces and this limit are Linux's")
COMMANDS = {
    "pytest": ["-m", "pytest", "checks/lesson_00", "-k", "password"],
    "serve": [*WORKBOOK[1:], "serve", "0"],
    "run": [*WORKBOOK[1:], "run", "0", "true"],
}
"""What is given to Python."""


LIMITED = """
import os, resource, sys
resource.setrlimit(resource.RLIMIT_NPROC, (int(sys.argv[1]), int(sys.argv[1])))
os.execv(sys.argv[2], sys.argv[2:])
"""
"""ulimit -u, which is not in every shell, and then another program."""


def run(prefix: list[str], arguments: list[str], folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    command = [*prefix, sys.executable, *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, env=ENVIRON, timeout=LIMIT)


def is_one_sentence(done: subprocess.CompletedProcess[str], *parts: str) -> None:
    printed = done.stdout + done.stderr
    assert done.returncode not in (0, 3), printed
    assert all(part in printed for part in parts), printed
    assert "Traceback" not in printed
    assert "Error:" not in printed.replace("ERROR:", "")
    assert len(printed.strip().splitlines()) == 1, printed


@pytest.fixture
def without_network() -> list[str]:
    """The beginning of a command that then has no network, not even the loopback interface."""
    prefix = ["unshare", "--net"] if os.geteuid() == 0 else ["unshare", "--user", "--map-root-user", "--net"]
    if shutil.which("unshare") is None or subprocess.run([*prefix, "true"], capture_output=True).returncode:
        pytest.skip("unshare may not make a network here")
    return prefix


@ON_LINUX
@pytest.mark.parametrize("name", COMMANDS)
def test_without_a_loopback_interface(without_network: list[str], name: str) -> None:
    is_one_sentence(run(without_network, COMMANDS[name]), "The loopback interface is off", "sudo ip link set lo up")


@ON_LINUX
def test_a_loopback_interface_is_enough(without_network: list[str]) -> None:
    if shutil.which("ip") is None:
        pytest.skip("ip, of the package iproute2, is not installed: nothing switches the interface on")
    prefix = [*without_network, "sh", "-c", 'ip link set lo up; exec "$@"', "sh"]
    done = run(prefix, ["-c", "from checks.kit.service.machine import has_loopback; print(has_loopback())"])
    assert done.stdout == "True\n", done.stderr


@pytest.fixture
def ordinary_user(folder: Path) -> Iterator[tuple[list[str], Path]]:
    """The beginning of a command that then runs as an ordinary user, and a checkout of that user's.

    The kernel does not hold root to the limit, so root takes an account that has no processes yet.
    """
    copy_workbook(checkout := folder / "workbook")
    if os.geteuid() != 0:
        yield [], checkout
        return
    import pwd

    busy = {path.stat().st_uid for path in Path("/proc").glob("[0-9]*") if path.exists()}
    account = next((one.pw_uid for one in pwd.getpwall() if 0 < one.pw_uid < 65534 and one.pw_uid not in busy), None)
    if account is None:
        pytest.skip("every account here has processes already, which count for the limit")
    for path in (checkout, *checkout.rglob("*")):
        os.chown(path, account, -1, follow_symlinks=False)
    yield as_user(account), checkout


@ON_LINUX
def test_too_few_processes_are_allowed(ordinary_user: tuple[list[str], Path]) -> None:
    prefix, checkout = ordinary_user
    for limit in (2, 40):  # not even the first one starts; some do
        limited = [*prefix, sys.executable, "-c", LIMITED, str(limit)]
        for arguments in COMMANDS.values():
            done = run(limited, arguments, checkout)
            is_one_sentence(done, f"You may have {limit} processes and threads", "ulimit -u 2000")
    assert not (checkout / ".workbook").exists(), "nothing has begun"


def test_an_ordinary_limit_is_not_even_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "task_limit", lambda: 30_000)
    monkeypatch.setattr(machine, "count_tasks", lambda: pytest.fail("it takes a while"))
    machine.check_machine()


@ON_LINUX
def test_tasks_are_counted_with_threads() -> None:
    code = "import threading, sys; e = threading.Event()\nfor _ in range(5): threading.Thread(target=e.wait).start()\n"
    code += "print(flush=True); sys.stdin.read(); e.set()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        count = machine.count_tasks()
        other.communicate(b"")
    assert count >= 1 + 6, "this process, and the other one with its threads"


def test_a_limit_that_is_reached_on_the_way_is_said() -> None:
    assert "raise ulimit -u" in explained(BlockingIOError(11, os.strerror(11)))
    assert explained(BlockingIOError(11, "write could not complete without blocking")) == ""


def test_no_sockets_at_all_is_no_loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*arguments: object) -> socket.socket:
        raise PermissionError

    monkeypatch.setattr(socket, "socket", refused)
    with pytest.raises(WorkbookError, match="loopback"):
        machine.check_machine()


OTHER = "raise SystemExit('somebody else\\'s package checks was imported')"


@pytest.fixture
def another_checks(tmp_path: Path) -> str:
    """A folder for PYTHONPATH with a package of the same name as ours."""
    (tmp_path / "checks").mkdir()
    (tmp_path / "checks" / "__init__.py").write_text(OTHER)
    return str(tmp_path)


@pytest.mark.parametrize("name", ["workbook", "pytest"])
def test_another_package_named_checks_in_pythonpath(another_checks: str, name: str, tmp_path: Path) -> None:
    """As the installed commands start: not from the checkout, whose folder would come first."""
    program = Path(sys.executable).with_name(name)
    if not program.exists():
        pytest.skip(f"{name} is not installed beside {sys.executable}")
    arguments = ["hint", "0"] if name == "workbook" else [ROOT / "checks/lesson_00", "--collect-only", "-q"]
    done = subprocess.run(
        [program, *arguments], cwd=tmp_path.parent, capture_output=True, text=True,
        env=ENVIRON | {"PYTHONPATH": another_checks},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "health" in done.stdout


@pytest.mark.parametrize("ours", [True, False])
def test_the_kernel_of_a_notebook(another_checks: str, ours: bool, tmp_path: Path) -> None:
    """Of the workbook's Python, and of one that has nothing installed."""
    code = "import checks.kit.lessons.lesson as lesson; print(lesson.find_lesson(1).name)"
    # a kernel has its notebook's folder first in sys.path, as here
    isolation = [] if ours else ["-S"]
    done = subprocess.run(
        [sys.executable, *isolation, "-c", code], cwd=ROOT / "notebooks", capture_output=True, text=True,
        env=ENVIRON | {"PYTHONPATH": another_checks},
    )  # fmt: skip
    if ours:
        assert done.stdout == "lesson_01\n", done.stderr
    else:
        assert done.returncode == 1
        assert "which does not have the workbook's packages. Choose" in done.stderr
        assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(("load", "cores", "said"), [(9.9, 2, ""), (24.3, 2, "24 processes"), (6.0, 1, "there is one")])
def test_a_busy_machine_is_named_where_a_check_waited_in_vain(
    load: float, cores: int, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "getloadavg", lambda: (load, 0.0, 0.0))
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    outcome, finding = explain(TimeoutError())
    assert outcome is Outcome.FAILED
    assert said in finding.because
    assert ("busy" in finding.because) == bool(said)
