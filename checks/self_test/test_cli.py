"""The `workbook` command as a learner types it, in a checkout of its own."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from checks.kit.cli.main import app
from checks.kit.lessons.errors import WorkbookError
from checks.kit.lessons.lesson import all_lessons, find_lesson
from checks.kit.lessons.patches import read_tree
from checks.kit.lessons.progress import Progress
from checks.kit.lessons.targets import lesson_folder
from checks.self_test.commands import WORKBOOK, pytest_run, read_until, workbook


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory, copied: Callable[[Path], Path]) -> Path:
    return copied(tmp_path_factory.mktemp("checkout") / "bookshop")


def test_every_command_explains_itself_with_an_example() -> None:
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
        "dev verify",
        "dev carry",
        "dev matrix",
        "dev variant new",
        "dev variant open",
        "dev variant save",
        "dev variant diff",
        "dev handed-out",
        "dev bench",
        "dev drivers",
        "dev new-lesson",
        "dev flaky",
        "dev notebook",
        "dev vocabulary",
    ):
        done = CliRunner().invoke(app, [*command.split(), "--help"])
        assert done.exit_code == 0
        assert re.search(rf"Examples?: workbook {command}", done.output), command


def test_the_map_follows_what_was_graded(checkout: Path) -> None:
    shutil.copytree(checkout / "lessons/lesson_01", checkout / "lessons/lesson_01_backup")  # not a second lesson 01
    before = workbook(checkout).stdout
    assert before.count("01  Sessions") == 1
    assert "▸ 00  Start here" in before
    assert "Next: lessons/lesson_00/README.md" in before
    shutil.copytree(checkout / "solutions/lesson_00/app", checkout / "lessons/lesson_00/app", dirs_exist_ok=True)
    part = pytest_run("checks/lesson_00", "-k", "password", checkout=checkout)
    assert part.returncode == 0
    assert "Next" not in part.stdout
    assert "1 of 8 checks pass, 7 not run\nRun all of them: pytest checks/lesson_00\n" in part.stdout
    assert "▸ 00  Start here" in workbook(checkout).stdout
    assert "does not pass yet" in workbook(checkout, "diff", "0").stderr
    assert pytest_run("checks/lesson_00", checkout=checkout).returncode == 0
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
    (lesson / ".#books.py").symlink_to("nowhere")  # as emacs marks a file that it edits
    commit(checkout, "mine")  # what was handed out is not what the last commit has
    changes = workbook(checkout, "diff", "1", "--mine").stdout
    assert "+++ yours/app/books.py" in changes and "+mine too" in changes
    assert workbook(checkout, "reset", "1", stdin="n\n").returncode == 1
    assert (lesson / "app/books.py").read_text() == "mine\n"
    done = workbook(checkout, "reset", "1", "--yes")
    assert done.returncode == 0
    assert (lesson / "app/books.py").read_text() == original
    assert (lesson / "README.md").exists()
    assert not (lesson / "app/extra.py").exists()
    assert not (lesson / ".#books.py").is_symlink()
    [copy] = (checkout / ".workbook/kept").iterdir()
    assert (copy / "app/books.py").read_text() == "mine\n"
    assert (copy / "app/extra.py").read_text() == "mine too\n"
    assert copy.name in done.stdout


def test_reset_restores_a_lesson_that_is_gone_in_a_copy_without_git(checkout: Path) -> None:
    (checkout / ".git").rename(checkout / ".git-away")
    before = read_tree(checkout / "lessons/lesson_02")
    shutil.rmtree(checkout / "lessons/lesson_02")
    try:
        assert "Restore the lesson with: workbook reset 2" in workbook(checkout, "hint", "2").stderr
        assert workbook(checkout, "reset", "2", "--yes").returncode == 0
        assert read_tree(checkout / "lessons/lesson_02") == before
    finally:
        (checkout / ".git-away").rename(checkout / ".git")


def test_reset_inside_another_repository_restores_files_that_are_empty(checkout: Path) -> None:
    (checkout / ".git").rename(checkout / ".git-away")
    git(checkout.parent, "init", "-q")
    lesson = checkout / "lessons/lesson_02"
    before = read_tree(lesson)
    try:
        for name in before:
            (lesson / name).write_bytes(b"")
        git(checkout.parent, "add", str(lesson))
        git(checkout.parent, "commit", "-q", "-m", "empty")
        assert workbook(checkout, "reset", "2", "--yes").returncode == 0
        assert read_tree(lesson) == before
    finally:
        shutil.rmtree(checkout.parent / ".git")
        (checkout / ".git-away").rename(checkout / ".git")


def test_reset_without_what_was_handed_out_changes_nothing_and_git_says_why_it_refuses(checkout: Path) -> None:
    kept = checkout / "checks/lesson_03/handed_out.patch"
    kept.rename(kept.with_suffix(".away"))
    before = read_tree(checkout / "lessons/lesson_03")
    try:
        done = workbook(checkout, "reset", "3", "--yes", GIT_DIR="/nonexistent")  # as in a hook of another repository
        assert done.returncode == 1
        assert "Restore it with: git checkout -- checks/lesson_03/handed_out.patch" in done.stderr
        refused = workbook(checkout, "reset", "3", "--yes", GIT_TEST_ASSUME_DIFFERENT_OWNER="1")
        assert "git config --global --add safe.directory" in refused.stderr
        assert read_tree(checkout / "lessons/lesson_03") == before
    finally:
        kept.with_suffix(".away").rename(kept)


def git(folder: Path, *arguments: str) -> None:
    subprocess.run(["git", "-c", "user.name=x", "-c", "user.email=x@x", *arguments], cwd=folder, check=True)


def commit(folder: Path, message: str) -> None:
    git(folder, "add", "-A")
    git(folder, "commit", "-q", "-m", message)


def test_without_solutions_nothing_promises_them(checkout: Path) -> None:
    (checkout / "solutions").rename(checkout / "away")
    try:
        check = "test_a_created_book_is_returned_as_it_is_stored"
        for _ in range(2):
            Progress(checkout / ".workbook/progress.json").give_hint("lesson_02", check)
        assert "This copy has no solutions." in workbook(checkout, "hint", "2", check).stdout
        assert "There is no solutions/lesson_02 in this checkout" in workbook(checkout, "diff", "2").stderr
    finally:
        (checkout / "away").rename(checkout / "solutions")


def test_psql_opens_on_the_lessons_tables(checkout: Path) -> None:
    done = workbook(checkout, "psql", "1", stdin="SELECT count(*) AS filled FROM books;\n")
    assert done.returncode == 0, done.stderr
    assert "12" in done.stdout


def test_doctor_finds_what_the_lessons_need(checkout: Path) -> None:
    done = workbook(checkout, "doctor", PGSSLMODE="require", PGTARGETSESSIONATTRS="read-only")  # for another server
    assert done.returncode == 0, done.stdout
    assert "responds through the proxy" in done.stdout
    broken = workbook(checkout, "doctor", DATABASE_URL="postgresql://nobody@127.0.0.1:1/none")
    assert broken.returncode == 1
    assert "✗ PostgreSQL: No PostgreSQL server responds at 127.0.0.1:1" in broken.stdout


def test_an_unknown_lesson_and_a_broken_manifest_get_one_sentence(checkout: Path) -> None:
    unknown = workbook(checkout, "serve", "77")
    there = ", ".join(str(lesson.number) for lesson in all_lessons())
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


def test_a_path_that_alembic_cannot_read_is_said(tmp_path: Path) -> None:
    folder = tmp_path / "100% python"
    folder.mkdir()
    assert lesson_folder(folder, find_lesson(5)) == folder
    (folder / "alembic.ini").touch()
    with pytest.raises(WorkbookError, match="Move the folder to a path without %"):
        lesson_folder(folder, find_lesson(5))


async def test_serve_shows_each_request_with_its_statements(checkout: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        refused = await asyncio.to_thread(workbook, checkout, "serve", "1", "--port", str(port))
        assert f"Port {port} is taken" in refused.stderr
    process = await asyncio.create_subprocess_exec(
        *WORKBOOK, "serve", "1", "--target", "solutions", "--port", str(port),
        cwd=checkout, stdout=asyncio.subprocess.PIPE, env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )  # fmt: skip
    assert process.stdout is not None
    try:
        async with asyncio.timeout(60):
            printed = await read_until(process.stdout, "/docs")
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
            assert (await client.get("/books/1", params={"page": 2})).status_code == 200
        async with asyncio.timeout(60):
            printed += await read_until(process.stdout, "← 200 GET /books/1?page=2")
        sent, responded = printed.index("→ GET /books/1?page=2"), printed.index("← 200 GET /books/1?page=2")
        assert sent < printed.index("  #1 opened") < printed.index("SELECT books.id") < responded
        process.send_signal(signal.SIGINT)
        rest = (await asyncio.wait_for(process.stdout.read(), 60)).decode()
        assert "  #1 closed\n" in rest
        assert "It left after" in rest
        assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
