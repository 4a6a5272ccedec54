"""The `workbook` command as a learner types it, in a checkout of its own."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from checks.kit.catalogue import lessons


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory, copied: Callable[[Path], Path]) -> Path:
    return copied(tmp_path_factory.mktemp("checkout") / "bookshop")


def workbook(checkout: Path, *arguments: str, stdin: str = "", **environ: str) -> subprocess.CompletedProcess[str]:
    code = "import sys; sys.path.insert(0, '.'); from checks.kit.cli import main; main()"
    kept = {name: value for name, value in os.environ.items() if name != "DATABASE_URL"} | {"COLUMNS": "80"}
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(
        command, cwd=checkout, input=stdin, capture_output=True, text=True, env=kept | environ, timeout=170
    )


def grade(checkout: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", *arguments]
    return subprocess.run(command, cwd=checkout, capture_output=True, text=True, timeout=170)


def test_every_command_explains_itself_with_an_example(checkout: Path) -> None:
    for command in (
        "watch",
        "serve",
        "skip",
        "cost",
        "hint",
        "reset",
        "diff",
        "psql",
        "run",
        "doctor",
        "verify",
        "bench",
    ):
        done = workbook(checkout, command, "--help")
        assert done.returncode == 0
        assert re.search(rf"Examples?: workbook {command}", done.stdout), command


def test_the_map_follows_what_was_graded(checkout: Path) -> None:
    before = workbook(checkout).stdout
    assert "▸ 00  Start here" in before
    assert "Next: lessons/lesson_00/README.md" in before
    shutil.copytree(checkout / "solutions/lesson_00/app", checkout / "lessons/lesson_00/app", dirs_exist_ok=True)
    assert grade(checkout, "checks/lesson_00").returncode == 0
    after = workbook(checkout).stdout
    assert "✓ 00  Start here" in after
    assert "8/8" in after
    assert "Next: lessons/lesson_01/README.md" in after


def test_hints_come_one_at_a_time_and_end(checkout: Path) -> None:
    said = [workbook(checkout, "hint", "1", "dashboard_is_right").stdout for _ in range(4)]
    assert [len(re.findall(r"^\d\. ", text, re.M)) for text in said] == [1, 2, 3, 3]
    assert "2 more: workbook hint 1" in said[0]
    assert "workbook diff 1 --peek" in said[3]
    assert "No check with hints is called nonsense" in workbook(checkout, "hint", "1", "nonsense").stderr


def test_diff_waits_for_the_lesson_to_pass(checkout: Path) -> None:
    refused = workbook(checkout, "diff", "1")
    assert refused.returncode == 1
    assert "workbook diff 1 --peek" in refused.stderr
    peek = workbook(checkout, "diff", "1", "--peek").stdout
    assert "+++ solution/app/database.py" in peek
    assert "+    async with sessions() as session:" in peek


def test_reset_keeps_a_copy_and_restores_what_was_handed_out(checkout: Path) -> None:
    lesson = checkout / "lessons/lesson_01"
    original = (lesson / "app/books.py").read_text()
    (lesson / "app/books.py").write_text("mine\n")
    (lesson / "app/extra.py").write_text("mine too\n")
    (lesson / "README.md").unlink()
    assert workbook(checkout, "reset", "1", stdin="n\n").returncode == 1
    assert (lesson / "app/books.py").read_text() == "mine\n"
    done = workbook(checkout, "reset", "1", "--yes")
    assert done.returncode == 0
    assert (lesson / "app/books.py").read_text() == original
    assert (lesson / "README.md").exists()
    assert not (lesson / "app/extra.py").exists()
    [copy] = (checkout / ".workbook/kept").iterdir()
    assert (copy / "app/books.py").read_text() == "mine\n"
    assert (copy / "app/extra.py").read_text() == "mine too\n"
    assert copy.name in done.stdout


def test_reset_without_history_changes_nothing(checkout: Path) -> None:
    (checkout / ".git").rename(checkout / ".git-away")
    try:
        done = workbook(checkout, "reset", "1", "--yes")
        assert done.returncode == 1
        assert "nothing was changed" in done.stderr
        assert (checkout / "lessons/lesson_01/app/books.py").exists()
    finally:
        (checkout / ".git-away").rename(checkout / ".git")


def test_psql_opens_on_the_lessons_tables(checkout: Path) -> None:
    done = workbook(checkout, "psql", "1", stdin="SELECT count(*) AS filled FROM books;\n")
    assert done.returncode == 0, done.stderr
    assert "12" in done.stdout


def test_doctor_finds_what_the_lessons_need(checkout: Path) -> None:
    done = workbook(checkout, "doctor")
    assert done.returncode == 0, done.stdout
    assert "answers through the tap" in done.stdout
    broken = workbook(checkout, "doctor", DATABASE_URL="postgresql://nobody@127.0.0.1:1/none")
    assert broken.returncode == 1
    assert "✗ PostgreSQL: No PostgreSQL server answers at 127.0.0.1:1" in broken.stdout


def test_an_unknown_lesson_and_a_broken_manifest_get_one_sentence(checkout: Path) -> None:
    unknown = workbook(checkout, "serve", "77")
    there = ", ".join(str(lesson.number) for lesson in lessons())
    assert unknown.stderr.strip() == f"workbook: There is no lesson 77. Lessons: {there}."
    manifest = checkout / "lessons/lesson_01/lesson.toml"
    text = manifest.read_text()
    try:
        manifest.write_text(text.replace("minutes", "minuets"))
        broken = workbook(checkout, "hint", "1")
        assert "unknown key 'minuets'" in broken.stderr
        assert "Traceback" not in broken.stderr
    finally:
        manifest.write_text(text)


async def test_serve_shows_each_request_with_its_statements(checkout: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        refused = await asyncio.to_thread(workbook, checkout, "serve", "1", "--port", str(port))
        assert f"Port {port} is taken" in refused.stderr
    code = "import sys; sys.path.insert(0, '.'); from checks.kit.cli import main; main()"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, "serve", "1", "--target", "solutions", "--port", str(port),
        cwd=checkout, stdout=asyncio.subprocess.PIPE, env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )  # fmt: skip
    assert process.stdout is not None
    try:
        printed = ""
        async with asyncio.timeout(60):
            while "/docs" not in printed:
                printed += (await process.stdout.readline()).decode()
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
            assert (await client.get("/books/1")).status_code == 200
        async with asyncio.timeout(60):
            while "← 200 GET /books/1" not in printed:
                printed += (await process.stdout.readline()).decode()
        asked, answered = printed.index("→ GET /books/1"), printed.index("← 200 GET /books/1")
        assert asked < printed.index("SELECT books.id") < answered
        process.send_signal(signal.SIGINT)
        rest = (await asyncio.wait_for(process.stdout.read(), 60)).decode()
        assert "It left after" in rest
        assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
