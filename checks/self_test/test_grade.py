"""`workbook grade` from end to end: a class of sixty, killed in the middle, graded again, and on a cluster."""

from __future__ import annotations

import importlib.util
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

from checks.kit.lessons.lesson import find_lesson
from checks.kit.lessons.paths import ROOT
from checks.kit.service import sandbox
from checks.self_test import roster

WAY, WHY_NOT = sandbox.detect()
DASK = importlib.util.find_spec("distributed") is not None
LESSONS = "0-3"
LEARNERS = 60
OF_ONE_RUN = {
    "seconds",
    "execution_time",
    "made",
    "graded",
    "steps",
    "evidence",
    "places",
    "output",
    "happened",
    "because",
    "section",
}
"""Times, and the evidence of a run: where connections race, another statement or request may come first the next time,
and a verdict may quote another response, and give the reason that goes with it."""


def run(*arguments: str | Path, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(_command(*arguments), cwd=ROOT, env=os.environ | environ, capture_output=True, text=True)


def _command(*arguments: str | Path) -> list[str]:
    code = "import sys; sys.argv[0] = 'workbook'; from checks.kit.cli import main; main()"
    return [sys.executable, "-c", code, "grade", *map(str, arguments)]


Place = tuple[str | int, ...]


def results(out: Path, files: list[Path]) -> dict[Place, object]:
    """What a run found: each verdict, point and reason, by its place in these files."""
    return {
        (str(file), *place): value
        for file in files
        for place, value in _leaves(json.loads((out / file).read_text(encoding="utf-8")))
    }


def _leaves(value: object) -> Iterator[tuple[Place, object]]:
    if isinstance(value, dict | list):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            if key not in OF_ONE_RUN:
                yield from (((key, *place), leaf) for place, leaf in _leaves(item))
    else:
        yield (), value


def assert_same_results(first: Path, second: Path, files: list[Path] | None = None) -> None:
    """Fails with what differs, and only that: the reports of a class are long. Without `files`, all are compared."""
    if files is None:
        found = {path.relative_to(out) for out in (first, second) for path in out.glob("gradescope/*/results.json")}
        files = [Path("results.json"), *sorted(found)]
    before, after = results(first, files), results(second, files)
    assert before
    differences = sorted(before.items() ^ after.items(), key=str)
    assert not differences, "\n".join(f"{key}: {str(value)[:2000]}" for key, value in differences)


def passed(out: Path) -> roster.Expected:
    """As roster.Expected: for each learner, the checks that passed in each lesson that was submitted."""
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
    lessons = [find_lesson(number) for number in range(4)]
    return folder, roster.write(folder, LEARNERS, lessons, seed=1)


@pytest.fixture(scope="module")
def graded(room: tuple[Path, roster.Expected]) -> Path:
    """The results of a run that was killed when a good part was done, and without_untouched again."""
    folder, _ = room
    out = folder / "first"
    arguments = (folder / "submissions", "--lessons", LESSONS, "--out", out)
    doomed = subprocess.Popen(_command(*arguments), cwd=ROOT, stdout=subprocess.DEVNULL, start_new_session=True)
    while len(list(out.glob("cache/*.json"))) < LEARNERS // 4:
        assert doomed.poll() is None, "it ended by itself"
        time.sleep(0.05)
    os.killpg(doomed.pid, signal.SIGKILL)
    doomed.wait()
    assert not (out / "results.json").exists()
    kept = len(list(out.glob("cache/*.json")))
    done = run(*arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{LEARNERS - kept} lessons to grade; {kept} have not changed" in done.stdout
    return out


@pytest.mark.slow
@pytest.mark.skipif(not WAY, reason=WHY_NOT)
def test_everybody_gets_what_they_must(room: tuple[Path, roster.Expected], graded: Path) -> None:
    assert passed(graded) == room[1]


@pytest.mark.slow
@pytest.mark.skipif(not WAY, reason=WHY_NOT)
def test_a_second_run_finds_the_same(room: tuple[Path, roster.Expected], graded: Path) -> None:
    some, second = room[0] / "some", room[0] / "second"  # a third of the class, for the time it takes
    some.mkdir()
    for submission in sorted((room[0] / "submissions").iterdir())[::3]:
        if submission.is_dir():
            shutil.copytree(submission, some / submission.name, symlinks=True)
        else:
            shutil.copy(submission, some)
    done = run(some, "--lessons", LESSONS, "--out", second)
    assert done.returncode == 0, done.stdout + done.stderr
    files = [path.relative_to(second) for path in sorted(second.glob("gradescope/*/results.json"))]
    assert len(files) == LEARNERS // 3
    assert_same_results(second, graded, files)


@pytest.mark.slow
@pytest.mark.skipif(not WAY, reason=WHY_NOT)
def test_what_has_not_changed_is_not_graded_again(room: tuple[Path, roster.Expected], graded: Path) -> None:
    before = {path.name: path.read_bytes() for path in graded.iterdir() if path.is_file()}
    again = run(room[0] / "submissions", "--lessons", LESSONS, "--out", graded)
    assert f"0 lessons to grade; {LEARNERS} have not changed" in again.stdout
    assert {path.name: path.read_bytes() for path in graded.iterdir() if path.is_file()} == before

    submissions = room[0] / "changed"
    shutil.copytree(room[0] / "submissions", submissions)
    [some, *_] = submissions.glob("*/lessons/lesson_*/NOTES.txt")
    some.write_text("I changed my mind.\n", encoding="utf-8")
    once_more = run(submissions, "--lessons", LESSONS, "--out", graded)
    assert f"1 lesson to grade; {LEARNERS - 1} have not changed" in once_more.stdout


@pytest.fixture
def few(tmp_path: Path) -> Path:
    """Six submissions of lesson 00."""
    roster.write(tmp_path, 6, [find_lesson(0)], seed=2)
    return tmp_path / "submissions"


@pytest.mark.slow
@pytest.mark.skipif(not WAY, reason=WHY_NOT)
def test_an_interruption_leaves_nothing_running(few: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    process = subprocess.Popen(
        _command(few, "--out", out), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    while not list(out.glob("cache/*.json")):
        assert process.poll() is None
        time.sleep(0.05)
    family = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in stdout + stderr
    assert "are graded; to continue, run the same command again." in stdout
    assert "This run was interrupted" in (out / "index.html").read_text(encoding="utf-8")
    read = json.loads((out / "results.json").read_text(encoding="utf-8"))
    assert 0 < read["waiting"] < 6
    assert read["waiting"] == sum(learner["waiting"] == [0] for learner in read["learners"])
    _, alive = psutil.wait_procs(family, timeout=30)
    assert not [each for each in alive if each.is_running() and each.status() != psutil.STATUS_ZOMBIE]


@pytest.mark.slow
def test_an_untouched_lesson_is_not_submitted_and_a_copy_is_noted(tmp_path: Path) -> None:
    submissions, out = tmp_path / "submissions", tmp_path / "out"
    submissions.mkdir()
    for name in ("Ada", "Bea"):
        shutil.copytree(ROOT / "solutions" / "lesson_00", submissions / name / "lessons" / "lesson_00")
    shutil.copytree(ROOT / "lessons" / "lesson_00", submissions / "Cleo" / "lessons" / "lesson_00")
    (submissions / "Dora.rar").write_bytes(b"Rar!")
    done = run(submissions, "--lessons", "0", "--out", out)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 submissions, 1 lesson to grade" in done.stdout
    assert "Submitted nothing that can be graded: Cleo, Dora" in done.stdout
    learners = json.loads((out / "results.json").read_text(encoding="utf-8"))["learners"]
    assert [learner["passed"] for learner in learners] == [8, 8, 0, 0]
    assert [learner["for_instructor"] for learner in learners] == [
        ["lesson_00 has the same files as solutions/lesson_00, Bea."],
        ["lesson_00 has the same files as solutions/lesson_00, Ada."],
        *([], []),
    ]
    assert [learner["notes"] for learner in learners] == [
        *([], []),
        ["Unchanged, so counted as not submitted: lesson_00."],
        ["It is a .rar file. Ask for a folder, a .zip, a .tar.gz or a git .bundle."],
    ]


@pytest.mark.slow
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
    assert passed(out)["Ada"]["0"] == sorted(entry.name for entry in find_lesson(0).checks)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["no/such/folder"], "no/such/folder"),
        (["{few}", "--lessons", "99"], "99"),
        (["{few}", "--lessons", "one"], "write numbers and ranges, such as 0-3,5"),
        (["{few}", "--lessons", "3-1"], "write numbers and ranges"),
        (["{few}", "--lessons", "0-99999999"], "99999999"),
        (["{few}", "--out", "/dev/null/grades"], "Name another folder"),
        (["{few}", "--roster", "no/such/class.csv"], "--roster no/such/class.csv cannot be read"),
        (["{few}", "--due", "tomorrow"], "write a day or a time"),
        (["{few}", "--out", "{few}/grades"], "Name a folder elsewhere"),
        pytest.param(
            ["{few}", "--scheduler", "tcp://127.0.0.1:1"],
            "dask scheduler" if DASK else "uv sync --extra cluster",
            marks=pytest.mark.cluster,  # half a minute, until Dask gives up
        ),
    ],
)
def test_bad_input_is_a_sentence(few: Path, tmp_path: Path, arguments: list[str], message: str) -> None:
    given = [argument.replace("{few}", str(few)) for argument in arguments]
    done = run(*given, *([] if "--out" in given else ["--out", tmp_path / "out"]))
    assert done.returncode == 1
    assert done.stderr.startswith("workbook: ")
    assert message in done.stderr
    assert "Traceback" not in done.stderr


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Callable[..., str]]:
    """A scheduler and two Dask workers on this machine, with one grading worker each, started with `environ`."""
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


@pytest.mark.cluster
@pytest.mark.skipif(not WAY, reason=WHY_NOT)
def test_a_worker_without_a_sandbox_refuses(few: Path, tmp_path: Path, cluster: Callable[..., str]) -> None:
    (tmp_path / "bin").mkdir()
    done = run(few, "--lessons", "0", "--out", tmp_path / "out", "--scheduler", cluster(PATH=str(tmp_path / "bin")))
    assert done.returncode == 1
    assert "cannot grade. This run grades in sandboxes, and this machine has none" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.cluster
@pytest.mark.skipif(not WAY, reason=WHY_NOT)
def test_a_cluster_finds_the_same(few: Path, tmp_path: Path, cluster: Callable[..., str]) -> None:
    local, remote = tmp_path / "local", tmp_path / "remote"
    assert run(few, "--lessons", "0", "--out", local).returncode == 0
    done = run(few, "--lessons", "0", "--out", remote, "--scheduler", cluster())
    assert done.returncode == 0, done.stdout + done.stderr + (tmp_path / "dask.log").read_text()
    assert_same_results(remote, local)
