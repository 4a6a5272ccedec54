"""`workbook grade` from end to end: a class of sixty, killed in the middle, graded again, and on a cluster."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from checks.kit import catalogue
from checks.kit.catalogue import ROOT
from checks.kit.service import sandbox
from checks.self_test import roster

WAY, WHY_NOT = sandbox.way()
LESSONS = "0-3"
LEARNERS = 60
OF_ONE_RUN = {"seconds", "execution_time", "did", "wire", "places", "log", "output", "happened"}
"""Times, and the evidence of a run: which statement or request comes first, where connections race, is another one
the next time, and so is the answer that a verdict quotes."""


def run(*arguments: str | Path, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(_command(*arguments), cwd=ROOT, env=os.environ | environ, capture_output=True, text=True)


def _command(*arguments: str | Path) -> list[str]:
    code = "import sys; sys.argv[0] = 'workbook'; from checks.kit.cli import main; main()"
    return [sys.executable, "-c", code, "grade", *map(str, arguments)]


Place = tuple[str | int, ...]


def results(out: Path) -> dict[Place, object]:
    """What a run found: each verdict, point and reason, by its place in results.json and the Gradescope files."""
    files = [out / "results.json", *sorted(out.glob("gradescope/*/results.json"))]
    return {
        (str(path.relative_to(out)), *place): value
        for path in files
        for place, value in _leaves(json.loads(path.read_text(encoding="utf-8")))
    }


def _leaves(value: object) -> Iterator[tuple[Place, object]]:
    if isinstance(value, dict | list):
        for key, one in value.items() if isinstance(value, dict) else enumerate(value):
            if key not in OF_ONE_RUN:
                yield from (((key, *place), leaf) for place, leaf in _leaves(one))
    else:
        yield (), value


def alike(one: Path, other: Path) -> None:
    """Fails with what differs, and only that: the reports of a class are long."""
    here, there = results(one), results(other)
    assert here
    assert not here.items() ^ there.items()


def passed(out: Path) -> roster.Expected:
    """As roster.Expected: for each learner, the checks that passed in each lesson that was handed in."""
    report = json.loads((out / "results.json").read_text(encoding="utf-8"))
    return {
        learner["learner"]: {
            str(lesson["lesson"]): sorted(r["name"] for r in lesson["report"]["results"] if r["outcome"] == "passed")
            for lesson in learner["lessons"]
            if lesson["report"]
        }
        for learner in report["learners"]
    }


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, roster.Expected]:
    folder = tmp_path_factory.mktemp("class")
    lessons = [catalogue.lesson(number) for number in range(4)]
    return folder, roster.write(folder, LEARNERS, lessons, seed=1)


@pytest.fixture(scope="module")
def graded(room: tuple[Path, roster.Expected]) -> Path:
    """The results of a run that was killed when a good part was done, and begun again."""
    folder, _ = room
    out = folder / "first"
    arguments = (folder / "hand-ins", "--lessons", LESSONS, "--out", out)
    doomed = subprocess.Popen(_command(*arguments), cwd=ROOT, stdout=subprocess.DEVNULL, start_new_session=True)
    while len(list(out.glob("units/*.json"))) < LEARNERS // 4:
        assert doomed.poll() is None, "it ended by itself"
        time.sleep(0.05)
    os.killpg(doomed.pid, signal.SIGKILL)
    doomed.wait()
    assert not (out / "results.json").exists()
    kept = len(list(out.glob("units/*.json")))
    done = run(*arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{LEARNERS - kept} lessons to grade; {kept} have not changed" in done.stdout
    return out


@pytest.mark.skipif(not WAY, reason=WHY_NOT)
def test_everybody_gets_what_they_must(room: tuple[Path, roster.Expected], graded: Path) -> None:
    assert passed(graded) == room[1]


@pytest.mark.skipif(not WAY, reason=WHY_NOT)
def test_a_second_run_finds_the_same(room: tuple[Path, roster.Expected], graded: Path) -> None:
    second = room[0] / "second"
    done = run(room[0] / "hand-ins", "--lessons", LESSONS, "--out", second)
    assert done.returncode == 0, done.stdout + done.stderr
    alike(second, graded)


@pytest.mark.skipif(not WAY, reason=WHY_NOT)
def test_what_has_not_changed_is_not_graded_again(room: tuple[Path, roster.Expected], graded: Path) -> None:
    before = {path.name: path.read_bytes() for path in graded.iterdir() if path.is_file()}
    again = run(room[0] / "hand-ins", "--lessons", LESSONS, "--out", graded)
    assert f"0 lessons to grade; {LEARNERS} have not changed" in again.stdout
    assert {path.name: path.read_bytes() for path in graded.iterdir() if path.is_file()} == before

    hand_ins = room[0] / "changed"
    shutil.copytree(room[0] / "hand-ins", hand_ins)
    [some, *_] = hand_ins.glob("*/lessons/lesson_*/NOTES.txt")
    some.write_text("I changed my mind.\n", encoding="utf-8")
    once_more = run(hand_ins, "--lessons", LESSONS, "--out", graded)
    assert f"1 lesson to grade; {LEARNERS - 1} have not changed" in once_more.stdout


@pytest.fixture
def few(tmp_path: Path) -> Path:
    """Hand-ins of six, of lesson 00."""
    roster.write(tmp_path, 6, [catalogue.lesson(0)], seed=2)
    return tmp_path / "hand-ins"


@pytest.mark.skipif(not WAY, reason=WHY_NOT)
def test_an_interruption_leaves_nothing_running(few: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    process = subprocess.Popen(
        _command(few, "--out", out), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    while not list(out.glob("units/*.json")):
        assert process.poll() is None
        time.sleep(0.05)
    family = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGINT)
    said, complained = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in said + complained
    assert "are kept. To go on: the same command again." in said
    _, alive = psutil.wait_procs(family, timeout=30)
    assert not [one for one in alive if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]


def test_who_did_nothing_has_handed_in_nothing_and_who_copied_is_noted(tmp_path: Path) -> None:
    hand_ins, out = tmp_path / "hand-ins", tmp_path / "out"
    hand_ins.mkdir()
    for name in ("Ada", "Bea"):
        shutil.copytree(ROOT / "solutions" / "lesson_00", hand_ins / name / "lessons" / "lesson_00")
    shutil.copytree(ROOT / "lessons" / "lesson_00", hand_ins / "Cleo" / "lessons" / "lesson_00")
    (hand_ins / "Dora.rar").write_bytes(b"Rar!")
    done = run(hand_ins, "--lessons", "0", "--out", out)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 hand-ins, 1 lesson to grade" in done.stdout
    assert "Nothing that could be graded came from Cleo, Dora" in done.stdout
    learners = json.loads((out / "results.json").read_text(encoding="utf-8"))["learners"]
    assert [learner["passed"] for learner in learners] == [8, 8, 0, 0]
    assert [learner["notes"] for learner in learners] == [
        ["lesson_00 has the same files as solutions/lesson_00, Bea."],
        ["lesson_00 has the same files as solutions/lesson_00, Ada."],
        ["As handed out, so counted as not handed in: lesson_00."],
        ["It is a .rar file. Ask for a folder, a .zip or a git .bundle."],
    ]


def test_without_a_sandbox_it_grades_with_limits_only_and_says_so(few: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    no_tools = tmp_path / "bin"
    no_tools.mkdir()
    [(tool)] = [shutil.which("git")]
    assert tool
    (no_tools / "git").symlink_to(tool)
    (no_tools / "sh").symlink_to("/bin/sh")
    honest = tmp_path / "honest"
    honest.mkdir()
    shutil.copytree(ROOT / "solutions" / "lesson_00", honest / "Ada" / "lessons" / "lesson_00")
    done = run(honest, "--lessons", "0", "--out", out, PATH=str(no_tools))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "limits only: bubblewrap is not installed" in done.stdout
    assert "limits only" in (out / "index.html").read_text(encoding="utf-8")
    assert passed(out)["Ada"]["0"] == sorted(entry.name for entry in catalogue.lesson(0).checks)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["no/such/folder"], "no/such/folder"),
        (["{few}", "--lessons", "99"], "99"),
        (["{few}", "--lessons", "one"], "write numbers and ranges, such as 0-3,5"),
        (["{few}", "--lessons", "3-1"], "write numbers and ranges"),
        (["{few}", "--lessons", "0-99999999"], "99999999"),
        (["{few}", "--out", "/dev/null/grades"], "Name another folder"),
        (["{few}", "--out", "{few}/grades"], "Name a folder elsewhere"),
        (["{few}", "--scheduler", "tcp://127.0.0.1:1"], "dask scheduler"),
    ],
)
def test_bad_input_is_a_sentence(few: Path, tmp_path: Path, arguments: list[str], said: str) -> None:
    given = [argument.replace("{few}", str(few)) for argument in arguments]
    done = run(*given, *([] if "--out" in given else ["--out", tmp_path / "out"]))
    assert done.returncode == 1
    assert done.stderr.startswith("workbook: ")
    assert said in done.stderr
    assert "Traceback" not in done.stderr


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Callable[..., str]]:
    """A scheduler and two workers on this machine, each with a desk of its own; `environ` is for the workers."""
    pytest.importorskip("distributed", reason="Dask is an extra: uv sync --extra cluster")
    started: list[subprocess.Popen[bytes]] = []

    def start(**environ: str) -> str:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            address = f"tcp://127.0.0.1:{probe.getsockname()[1]}"
        dask = [sys.executable, "-m", "dask"]
        options = ["--no-dashboard"]
        scheduler = [*dask, "scheduler", "--host", address, *options]
        worker = [*dask, "worker", address, "--nthreads", "1", "--local-directory", str(tmp_path), *options]
        for command in (scheduler, worker, worker):
            with (tmp_path / "dask.log").open("ab") as log:
                started.append(subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log, env=os.environ | environ))
        return address

    yield start
    for process in reversed(started):
        process.send_signal(signal.SIGINT)
    for process in started:
        process.wait(timeout=60)


@pytest.mark.skipif(not WAY, reason=WHY_NOT)
def test_a_worker_without_a_sandbox_refuses(few: Path, tmp_path: Path, cluster: Callable[..., str]) -> None:
    (tmp_path / "bin").mkdir()
    done = run(few, "--lessons", "0", "--out", tmp_path / "out", "--scheduler", cluster(PATH=str(tmp_path / "bin")))
    assert done.returncode == 1
    assert "cannot grade. This run grades in sandboxes, and here there is none" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(not WAY, reason=WHY_NOT)
def test_a_cluster_finds_the_same(few: Path, tmp_path: Path, cluster: Callable[..., str]) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    assert run(few, "--lessons", "0", "--out", here).returncode == 0
    done = run(few, "--lessons", "0", "--out", there, "--scheduler", cluster())
    assert done.returncode == 0, done.stdout + done.stderr + (tmp_path / "dask.log").read_text()
    alike(there, here)
