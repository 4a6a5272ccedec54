"""How the kit runs the command of an image: which signals reach it, what it finds, and how it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path

import pytest

from checks.kit.lessons.paths import ROOT
from checks.kit.service.inside.container import NOT_FOUND, ContainerSpec

HANDLES = "import signal as s; s.signal(s.SIGTERM, lambda *_: exit(7)); print('ready', flush=True); s.pause()"


@contextmanager
def container(folder: Path, command: list[str], **fields: object) -> Iterator[subprocess.Popen[str]]:
    """The command in a container whose image has the files of a folder below /srv."""
    files = [[path.name, f"/srv/{path.name}"] for path in folder.iterdir() if path.is_file()]
    spec = ContainerSpec(**{"files": files, "workdir": "/srv", "programs": ["sh", "cat"], "command": command, **fields})
    scratch = folder / "tmp"
    scratch.mkdir(exist_ok=True)
    process = subprocess.Popen(
        [sys.executable, "-m", "checks.kit.service.inside.container", json.dumps(asdict(spec))],
        cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(scratch), "JWT_SECRET": "key"},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):  # it has ended already
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def output(folder: Path, command: list[str], **fields: object) -> tuple[int, str]:
    with container(folder, command, **fields) as process:
        said, _ = process.communicate(timeout=60)
        return process.returncode, said


def test_a_signal_reaches_the_first_process_that_handles_it(tmp_path: Path) -> None:
    with container(tmp_path, ["python", "-c", HANDLES]) as process:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        process.terminate()
        assert process.wait(60) == 7


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells which signals a process handles")
def test_a_signal_does_not_reach_a_shell_nor_what_it_has_started(tmp_path: Path) -> None:
    with container(tmp_path, ["sh", "-c", f'python -c "{HANDLES}"; true']) as process:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        process.terminate()
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(1)


def test_secrets_are_files_and_paths_lead_into_the_copy(tmp_path: Path) -> None:
    (tmp_path / "say.sh").write_text("cat /run/secrets/jwt_secret /srv/note\n")
    (tmp_path / "note").write_text("in the image")
    code, said = output(tmp_path, ["sh", "/srv/say.sh"], secrets={"jwt_secret": "JWT_SECRET"})
    assert (code, said) == (0, "key\nin the image")


def test_a_container_has_its_own_folders_for_temporary_files(tmp_path: Path) -> None:
    (tmp_path / "lock.py").write_text("import tempfile\nprint('/tmp/migrate.lock', tempfile.gettempdir())\n")
    command = ["sh", "-c", "echo /var/lock/migrate; python lock.py"]
    first, second = (output(tmp_path, command)[1].split() for _ in range(2))
    assert len(first) == 3 and not {*first} & {*second}
    assert all("container-" in place for place in first), first


def test_a_variable_of_this_process_is_there_only_if_it_is_passed(tmp_path: Path) -> None:
    command = ["sh", "-c", "echo ${JWT_SECRET:-none} $COLOR"]
    assert output(tmp_path, command, env={"COLOR": "blue"}) == (0, "none blue\n")


def test_a_program_that_the_image_lacks(tmp_path: Path) -> None:
    code, said = output(tmp_path, ["/usr/bin/curl", "--version"])
    assert code == NOT_FOUND and "/usr/bin/curl" in said


def test_the_exit_code_is_that_of_an_engine(tmp_path: Path) -> None:
    assert output(tmp_path, ["sh", "-c", "exit 3"])[0] == 3
    assert output(tmp_path, ["python", "-c", "import os; os.kill(os.getpid(), 9)"])[0] == 128 + 9
