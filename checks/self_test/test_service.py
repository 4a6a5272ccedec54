"""Apps as processes: ready when they say so, their log kept, their process group always gone."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import psutil
import pytest

from checks.kit.service import AppDidNotStart, Journal, NoAnswer, UnexpectedAnswer, open_launcher, running, sweep
from checks.kit.service.launcher import Launcher

HELLO = """
import os, subprocess, sys
from fastapi import FastAPI
from fastapi.responses import PlainTextResponse
app = FastAPI()
print("printed at import")

@app.get("/env")
async def env(): return dict(os.environ)

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

@app.get("/eat")
async def eat(): return len(bytearray(8 << 30))
"""


@pytest.fixture(params=["warm", "spawned"])
async def launcher(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[tuple[Launcher, Path]]:
    journal = Journal(tmp_path / "run")
    launcher = open_launcher(journal, {"WORKBOOK_SPAWN": "1"} if request.param == "spawned" else {})
    yield launcher, journal.scratch
    launcher.close()
    journal.close()


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
    async with running(launcher[0], folder, launcher[1], env={"DATABASE_URL": "x"}) as app:
        env = (await app.get("/env")).json
        assert env["DATABASE_URL"] == "x"
        assert "PYTEST_CURRENT_TEST" not in env
        pid, child = (await app.get("/pid"))["pid"], (await app.get("/child"))["pid"]
        assert "printed at import" in app.log
    await until_gone(pid, child)
    assert not list(folder.rglob("__pycache__")), "nothing is written below the learner's folder"


async def test_answers_that_are_not_as_promised_get_a_sentence(
    launcher: tuple[Launcher, Path], app_of: Callable[[str], Path]
) -> None:
    async with running(launcher[0], app_of(HELLO), launcher[1], env={}) as app:
        with pytest.raises(UnexpectedAnswer, match="GET /text → 200 no json is not JSON"):
            _ = (await app.get("/text")).json
        with pytest.raises(UnexpectedAnswer, match="has no field 'id'"):
            _ = (await app.get("/pid"))["id"]
        boom = await app.get("/boom")
        assert boom.status == 500
        assert "RuntimeError: on purpose" in app.log
        with pytest.raises(NoAnswer, match="closed the connection"):
            await app.get("/exit")
        assert await asyncio.wait_for(asyncio.shield(app.process.exit), 10) == 7


async def test_memory_is_limited(launcher: tuple[Launcher, Path], app_of: Callable[[str], Path]) -> None:
    if sys.platform != "linux":
        pytest.skip("only Linux enforces RLIMIT_AS")
    async with running(launcher[0], app_of(HELLO), launcher[1], env={}) as app:
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
        async with running(launcher[0], app_of(source), launcher[1], env={}):
            pass
    assert refusal.value.code == code
    assert said in refusal.value.log


async def test_two_workers_share_one_address(launcher: tuple[Launcher, Path], app_of: Callable[[str], Path]) -> None:
    async with running(launcher[0], app_of(HELLO), launcher[1], env={}, workers=2) as app:
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
    async with running(launcher[0], app_of(HELLO), launcher[1], env={}) as app:
        left = await app.stop()
        assert left is not None
        assert left.code == -signal.SIGTERM
    async with running(launcher[0], app_of(stubborn), launcher[1], env={}) as app:
        assert await app.stop(within=0.5) is None
        pid = app.process.pid
    await until_gone(pid)


GRADER = """
import asyncio, sys
from pathlib import Path
from checks.kit.service import Journal, open_launcher, running
async def main():
    journal = Journal(Path(sys.argv[1]))
    launcher = open_launcher(journal, {"WORKBOOK_SPAWN": "1"} if sys.argv[3] == "spawned" else {})
    async with running(launcher, Path(sys.argv[2]), journal.scratch, env={}) as app:
        child = (await app.get("/child"))["pid"]
        print(app.process.pid, child, journal.scratch, flush=True)
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
        await until_gone(int(pid), int(child))  # the nursery saw its grader go
    sweep(records)
    await until_gone(int(pid), int(child))
    assert not Path(scratch).exists()
    assert not list(records.glob("*.run"))


def test_a_sweep_leaves_living_runs_alone(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.add(os.getpid())
    (tmp_path / "999999999.run").write_text(f"999999999 {time.time()}\n{tmp_path}/elsewhere\n{os.getpid()} 1.0\n")
    assert sweep(tmp_path) == 0
    assert journal.scratch.exists()
    assert [path.stem.partition("-")[0] for path in tmp_path.glob("*.run")] == [str(os.getpid())]
    journal.close()
