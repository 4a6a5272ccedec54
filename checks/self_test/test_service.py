"""Apps as processes: ready when they say so, their log kept, their process group always gone."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from checks.kit.lessons.errors import explained
from checks.kit.lessons.paths import ROOT, STATE
from checks.kit.service.app import AppDidNotStart, NoResponse, Response, UnexpectedResponse, running
from checks.kit.service.choose import open_launcher
from checks.kit.service.launcher import ForkServerEnded, Launcher
from checks.kit.service.process import Workspace
from checks.kit.service.process_start import ProcessStart
from checks.kit.service.run_record import RunRecord, clean_up_dead_runs

HELLO = """
import os, subprocess, sys
from fastapi import FastAPI
from fastapi.responses import PlainTextResponse
app = FastAPI()
print("printed at import")

@app.get("/env")
async def env(): return dict(os.environ)

@app.get("/hash")
async def hashed(): return {"hash": hash("text")}

@app.get("/pid")
async def pid(): return {"pid": os.getpid()}

@app.get("/text")
async def text(): return PlainTextResponse("no json")

@app.get("/boom")
async def boom(): raise RuntimeError("on purpose")

@app.get("/exit")
async def leave(): os._exit(7)

@app.get("/child")
async def child():
    return {"pid": subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]).pid}

@app.get("/daemon")
async def daemon():
    command = [sys.executable, "-c", "import time; time.sleep(600)"]
    return {"pid": subprocess.Popen(command, start_new_session=True).pid}

@app.get("/eat")
async def eat(): return len(bytearray(8 << 30))
"""


@pytest.fixture(params=["warm", "spawned"])
async def launcher(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[tuple[Launcher, Path]]:
    run_record = RunRecord(tmp_path / "run")
    launcher = open_launcher(run_record, {"WORKBOOK_SPAWN": "1"} if request.param == "spawned" else {})
    yield launcher, run_record.scratch
    launcher.close()
    run_record.close()


@pytest.fixture
def app_of(tmp_path: Path) -> Callable[[str], Path]:
    def write(source: str) -> Path:
        folder = tmp_path / "lesson"
        (folder / "app").mkdir(parents=True, exist_ok=True)
        (folder / "app" / "main.py").write_text(source)
        return folder

    return write


def gone(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


async def until_gone(*pids: int) -> None:
    async with asyncio.timeout(30):
        while not all(gone(pid) for pid in pids):
            await asyncio.sleep(0.01)


async def test_an_app_runs_with_its_own_environment_and_ends_with_its_children(
    launcher: tuple[Launcher, Path], app_of: Callable[[str], Path]
) -> None:
    folder = app_of(HELLO)
    async with running(Workspace(launcher[0], folder, launcher[1]), {"DATABASE_URL": "x"}) as app:
        env = (await app.get("/env")).json
        assert env["DATABASE_URL"] == "x"
        assert "PYTEST_CURRENT_TEST" not in env
        pid, child = (await app.get("/pid"))["pid"], (await app.get("/child"))["pid"]
        assert "printed at import" in app.log
    await until_gone(pid, child)
    assert not list(folder.rglob("__pycache__")), "nothing is written below the learner's folder"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lets a process adopt orphans")
async def test_an_app_has_the_time_zone_of_its_environment(
    launcher: tuple[Launcher, Path], app_of: Callable[[str], Path]
) -> None:
    zone = 'import datetime, fastapi\napp = fastapi.FastAPI()\n@app.get("/")\ndef zone(): return ZONE\n'
    folder = app_of(zone.replace("ZONE", "datetime.datetime(2026, 1, 1).astimezone().isoformat()"))
    for env, said in (({"TZ": "Asia/Kolkata"}, "+05:30"), ({"TZ": "America/Bogota"}, "-05:00")):
        async with running(Workspace(launcher[0], folder, launcher[1]), env) as app:
            assert (await app.get("/")).json.endswith(said)


async def test_a_session_of_its_own_hides_no_process(tmp_path: Path, app_of: Callable[[str], Path]) -> None:
    run_record = RunRecord(tmp_path / "run")
    launcher = open_launcher(run_record, {})
    workspace = Workspace(launcher, app_of(HELLO), run_record.scratch)
    async with running(workspace, {}) as app:
        first = (await app.get("/daemon"))["pid"]
    await until_gone(first)  # no app was left
    async with running(workspace, {}) as app:
        second = (await app.get("/daemon"))["pid"]
        launcher.close()
        await until_gone(second)
        app.process._process.ended(0)
    run_record.close()


async def test_a_fork_server_that_was_killed_is_started_again(tmp_path: Path, app_of: Callable[[str], Path]) -> None:
    run_record = RunRecord(tmp_path / "run")
    launcher = open_launcher(run_record, {})
    workspace = Workspace(launcher, app_of(HELLO), run_record.scratch)
    async with running(workspace, {}) as app:
        os.kill(psutil.Process(app.process.pid).ppid(), signal.SIGKILL)
        assert await asyncio.wait_for(asyncio.shield(app.process.exit), 30) == -signal.SIGKILL
    assert launcher.lost
    await until_gone(app.process.pid)
    async with running(workspace, {}) as app:
        assert (await app.get("/pid")).ok
    launcher.close()
    run_record.close()


def test_a_fork_server_whose_grader_is_killed_says_nothing(tmp_path: Path) -> None:
    """The end of a socket in which something is unread is an error for the other side."""
    code = (
        "import json, os, signal, socket, sys\n"
        "from checks.kit.service.prestart import start_fork_server\n"
        "control, fork_server = start_fork_server('json')\n"
        "spec = {'folder': sys.argv[1], 'log': sys.argv[1] + '/log', 'command': ['platform']}\n"
        "control.sendall(json.dumps({'id': 1, 'spec': spec}).encode() + b'\\n')\n"
        "control.recv(1, socket.MSG_PEEK)\n"
        "control.close()\n"
        "sys.exit(fork_server.wait())\n"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.slow
async def test_an_app_that_kills_its_parent_is_told(tmp_path: Path, app_of: Callable[[str], Path]) -> None:
    run_record = RunRecord(tmp_path / "run")
    launcher = open_launcher(run_record, {})
    source = app_of(
        "import os, pathlib, signal, time\npathlib.Path('pid').write_text(str(os.getpid()))\n"
        "os.kill(os.getppid(), signal.SIGKILL)\ntime.sleep(600)"
    )
    with pytest.raises((AppDidNotStart, ForkServerEnded)):
        async with running(Workspace(launcher, source, run_record.scratch), {}):
            pass
    assert launcher.lost
    launcher.close()
    run_record.close()
    await until_gone(int((source / "pid").read_text()))


async def test_answers_that_are_not_as_promised_get_a_sentence(
    launcher: tuple[Launcher, Path], app_of: Callable[[str], Path]
) -> None:
    async with running(Workspace(launcher[0], app_of(HELLO), launcher[1]), {}) as app:
        with pytest.raises(UnexpectedResponse, match="GET /text → 200 no json is not JSON"):
            _ = (await app.get("/text")).json
        with pytest.raises(UnexpectedResponse, match="has no field 'id'"):
            _ = (await app.get("/pid"))["id"]
        boom = await app.get("/boom")
        assert boom.status == 500
        assert "RuntimeError: on purpose" in app.log
        with pytest.raises(NoResponse, match="closed the connection"):
            await app.get("/exit")
        assert await asyncio.wait_for(asyncio.shield(app.process.exit), 10) == 7


def test_a_response_repeats_another_one_by_status_and_body() -> None:
    def response(status: int, text: str) -> Response:
        return Response("POST /orders", status, {}, text)

    first = response(201, '{"id": 1, "total": 2}')
    assert response(201, '{"total":2,"id":1}').repeats(first)
    assert not response(200, first.text).repeats(first)
    assert not response(201, '{"id": 2, "total": 2}').repeats(first)
    assert response(204, "").repeats(response(204, ""))
    assert not response(502, "away").repeats(response(502, "gone"))


async def test_memory_is_limited(launcher: tuple[Launcher, Path], app_of: Callable[[str], Path]) -> None:
    if sys.platform != "linux":
        pytest.skip("only Linux enforces RLIMIT_AS")
    async with running(Workspace(launcher[0], app_of(HELLO), launcher[1]), {}) as app:
        assert (await app.get("/eat")).status == 500
        assert "MemoryError" in app.log


@pytest.mark.parametrize(
    ("source", "code", "said"),
    [
        ("raise SystemExit('set DATABASE_URL')", 1, "set DATABASE_URL"),
        ("def broken(:", 1, "SyntaxError"),
        ("import sys; sys.exit(4)", 4, ""),
        ("app = None", None, ""),
        ("import no_such_module", 1, "ModuleNotFoundError"),
        (
            "from contextlib import asynccontextmanager\nfrom fastapi import FastAPI\n@asynccontextmanager\n"
            "async def lifespan(app):\n    raise RuntimeError('no database')\n    yield\n"
            "app = FastAPI(lifespan=lifespan)",
            3,
            "no database",
        ),
    ],
)
async def test_an_app_that_does_not_start_says_why(
    launcher: tuple[Launcher, Path], app_of: Callable[[str], Path], source: str, code: int | None, said: str
) -> None:
    if source == "app = None":
        source = "raise BaseException('odd')"
        code, said = 1, "odd"
    with pytest.raises(AppDidNotStart) as refusal:
        async with running(Workspace(launcher[0], app_of(source), launcher[1]), {}):
            pass
    assert refusal.value.code == code
    assert said in refusal.value.log


async def test_an_app_has_the_hash_seed_that_it_was_given(
    launcher: tuple[Launcher, Path], app_of: Callable[[str], Path]
) -> None:
    workspace, hashes = Workspace(launcher[0], app_of(HELLO), launcher[1]), []
    for seed in ("1", "1", "2"):
        async with running(workspace, {"PYTHONHASHSEED": seed}) as app:
            hashes.append((await app.get("/hash"))["hash"])
            assert (await app.get("/env"))["PYTHONHASHSEED"] == seed
            assert await app.stop() is not None
    assert hashes[0] == hashes[1] != hashes[2]


async def test_two_workers_share_one_address(launcher: tuple[Launcher, Path], app_of: Callable[[str], Path]) -> None:
    async with running(Workspace(launcher[0], app_of(HELLO), launcher[1]), {}, workers=2) as app:
        pids = {app.process.pid}
        async with asyncio.timeout(60):
            while len(pids) < 3:  # the one that supervises, and two that answer
                pids |= {answer["pid"] for answer in await asyncio.gather(*(app.get("/pid") for _ in range(20)))}
    await until_gone(*pids)


async def test_sigterm_is_told_apart_from_staying(
    launcher: tuple[Launcher, Path], app_of: Callable[[str], Path]
) -> None:
    stubborn = "import signal\nfrom fastapi import FastAPI\napp = FastAPI()\n@app.on_event('shutdown')\n"
    stubborn += "async def never():\n    import asyncio\n    await asyncio.Event().wait()\n"
    async with running(Workspace(launcher[0], app_of(HELLO), launcher[1]), {}) as app:
        left = await app.stop()
        assert left is not None
        assert left.code == -signal.SIGTERM
    async with running(Workspace(launcher[0], app_of(stubborn), launcher[1]), {}) as app:
        assert await app.stop(within=0.5) is None
        pid = app.process.pid
    await until_gone(pid)


GRADER = """
import asyncio, sys
from pathlib import Path
from checks.kit.service.app import running
from checks.kit.service.choose import open_launcher
from checks.kit.service.process import Workspace
from checks.kit.service.run_record import RunRecord
async def main():
    run_record = RunRecord(Path(sys.argv[1]))
    launcher = open_launcher(run_record, {"WORKBOOK_SPAWN": "1"} if sys.argv[3] == "spawned" else {})
    async with running(Workspace(launcher, Path(sys.argv[2]), run_record.scratch), {}) as app:
        child = (await app.get("/child"))["pid"]
        print(app.process.pid, child, run_record.scratch, flush=True)
        await asyncio.Event().wait()
asyncio.run(main())
"""


@pytest.mark.parametrize("how", ["warm", "spawned"])
async def test_a_killed_run_leaves_nothing_for_the_next(
    app_of: Callable[[str], Path], tmp_path: Path, how: str
) -> None:
    records = tmp_path / "run"
    grader = subprocess.Popen(
        [sys.executable, "-c", GRADER, str(records), str(app_of(HELLO)), how], stdout=subprocess.PIPE, text=True
    )
    assert grader.stdout is not None
    pid, child, scratch = (await asyncio.to_thread(grader.stdout.readline)).split()
    grader.send_signal(signal.SIGKILL)
    grader.wait()
    grader.stdout.close()
    if how == "warm":
        await until_gone(int(pid), int(child))  # the fork server saw its grader go
    clean_up_dead_runs(records)
    await until_gone(int(pid), int(child))
    assert not Path(scratch).exists()
    assert not list(records.glob("*.run"))


def test_a_sweep_leaves_living_runs_alone(tmp_path: Path) -> None:
    run_record = RunRecord(tmp_path)
    run_record.add(os.getpid())
    [path] = tmp_path.glob("*.run")
    # as if the clock had been set, and the number had gone to another process in a container
    path.write_text(path.read_text().replace(str(os.getpid()), "999999999"))
    (tmp_path / "999999998.run").write_text(f"999999998 {os.getpid()}\n{tmp_path}/elsewhere\n{os.getpid()} 1.0\n")
    assert clean_up_dead_runs(tmp_path) == 0
    assert run_record.scratch.exists()
    assert list(tmp_path.glob("*.run")) == [path]
    run_record.close()
    assert not list(tmp_path.glob("*.run"))


@pytest.mark.parametrize("boot", ["this one", "an earlier one"])
def test_a_sweep_kills_nobody_who_has_the_number_of_a_process_of_ours(tmp_path: Path, boot: str) -> None:
    stranger = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
    try:
        start = ProcessStart.of(stranger.pid)
        assert start is not None
        ours = replace(start, moment=start.moment - 1) if boot == "this one" else replace(start, boot="earlier")
        (tmp_path / "1.run").write_text(f"1 {ours}\n{tmp_path}/elsewhere\n{stranger.pid} {ours}\n")
        assert clean_up_dead_runs(tmp_path) == 0
        assert stranger.poll() is None
        (tmp_path / "1.run").write_text(f"1 {ours}\n{tmp_path}/elsewhere\n{stranger.pid} {start}\n")
        assert clean_up_dead_runs(tmp_path) == 1
    finally:
        stranger.kill()
        stranger.wait()


def test_a_record_that_cannot_be_written_leaves_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    (tmp_path / "run" / "lock").mkdir(parents=True)
    with pytest.raises(IsADirectoryError):
        RunRecord(tmp_path / "run")
    assert not list((tmp_path / "tmp").iterdir())


@pytest.mark.parametrize(
    ("number", "said"),
    [(errno.EACCES, "sudo chown -R $USER"), (errno.EROFS, "Copy it: cp -R"), (errno.ENOSPC, "The disk is full")],
)
def test_a_folder_of_ours_that_cannot_be_written_gets_a_sentence(number: int, said: str) -> None:
    STATE.mkdir(exist_ok=True)
    assert said in explained(OSError(number, os.strerror(number), str(STATE / "run" / "1.run")))


def test_an_error_that_is_not_about_our_folder_is_not_explained(tmp_path: Path) -> None:
    assert not explained(PermissionError(errno.EACCES, "Permission denied", str(tmp_path / "x")))
    assert not explained(OSError("without a number"))


async def test_the_scratch_folder_is_made_again_when_it_was_cleaned_away(
    launcher: tuple[Launcher, Path], app_of: Callable[[str], Path]
) -> None:
    workspace = Workspace(launcher[0], app_of(HELLO), launcher[1])
    launcher[1].rmdir()
    async with running(workspace, {}) as app:
        assert (await app.get("/pid")).ok


async def test_a_second_save_within_a_second_is_what_runs(launcher: tuple[Launcher, Path], tmp_path: Path) -> None:
    """Python takes compiled files by size and whole second of their source."""
    folder, second = tmp_path / "lesson", time.time_ns() // 10**9 * 10**9
    (folder / "app").mkdir(parents=True)
    source = folder / "app" / "main.py"
    workspace = Workspace(launcher[0], folder, launcher[1], pycache=tmp_path / "pycache")
    codes = []
    for code, later in ((3, 0), (4, 999_000_000)):
        source.write_text(f"raise SystemExit({code})")
        os.utime(source, ns=(second + later, second + later))
        for _ in range(2):  # the second time it is compiled already
            with pytest.raises(AppDidNotStart) as refusal:
                async with running(workspace, {}):
                    pass
            codes.append(refusal.value.code)
        for compiled in (tmp_path / "pycache").rglob("main.*.pyc"):
            os.utime(compiled, ns=(second + 500_000_000, second + 500_000_000))
    assert codes == [3, 3, 4, 4]
