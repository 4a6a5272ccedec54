"""What counts as a save for `workbook watch` and `serve`, and what happens where the system tells of nothing."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from pathlib import Path

import pytest

from checks.kit.cli import file_watcher
from checks.kit.cli.file_watcher import watch_saves

Saves = AsyncIterator[set[Path]]

NO_SAVES = (
    *("app.log", "shop.db", "shop.db-wal", ".coverage", "cache.json", "upload.bin", "log"),
    *("#main.py#", ".main.py.kate-swp", "main.py___jb_tmp___", ".goutputstream-X1", "main.py.orig", "main.py~", "4913"),
    *(".main.py.swp", "__pycache__/main.cpython-311.pyc", ".venv/lib/package.py", "venv/lib/package.py", "README.md"),
)
"""Files that an app, Python or an editor writes into a lesson's folder."""


@pytest.fixture
def lesson(tmp_path: Path) -> Path:
    """A folder with `lesson_01/main.py`; that folder."""
    (tmp_path / "lesson_01").mkdir()
    (tmp_path / "lesson_01/main.py").write_text("before")
    return tmp_path / "lesson_01"


async def told(watching: Saves, save: Callable[[str], object]) -> set[Path]:
    """What is told of a save, which is made with another content again and again until the watcher listens."""
    following = asyncio.ensure_future(anext(watching))
    async with asyncio.timeout(20):
        for number in itertools.count():
            save(str(number))
            if (await asyncio.wait({following}, timeout=0.1))[0]:
                break
    return following.result()


async def test_what_apps_and_editors_write_is_no_save_and_neither_is_the_same_content(lesson: Path) -> None:
    for name in NO_SAVES:
        (lesson / name).parent.mkdir(parents=True, exist_ok=True)

    def noise_and_save(number: str) -> None:
        for name in NO_SAVES:
            with (lesson / name).open("a") as file:
                file.write("x")
        (lesson / "main.py").touch()
        (lesson / "main.py").write_text("before")
        (lesson / ".#main.py").unlink(missing_ok=True)
        (lesson / ".#main.py").symlink_to("me@here")
        (lesson / "schema.sql").write_text(number)  # the only one that is told

    async with aclosing(watch_saves(lesson.parent, pytest.fail)) as watching:
        assert await told(watching, noise_and_save) == {Path("lesson_01/schema.sql")}


async def test_a_save_in_one_step_and_a_folder_that_comes_back_are_told(lesson: Path) -> None:
    away = lesson.parent.parent / f"{lesson.parent.name}-away"
    async with aclosing(watch_saves(lesson.parent, pytest.fail)) as watching:

        def replace(content: str) -> None:
            (lesson / "main.py.new").write_text(content)
            (lesson / "main.py.new").rename(lesson / "main.py")

        assert await told(watching, replace) == {Path("lesson_01/main.py")}
        lesson.rename(away)
        assert await asyncio.wait_for(anext(watching), 60) == {Path("lesson_01/main.py")}
        away.rename(lesson)
        assert await asyncio.wait_for(anext(watching), 60) == {Path("lesson_01/main.py")}


@pytest.mark.parametrize("error", [OSError(24, "Too many open files"), RuntimeError("OS file watch limit reached")])
async def test_at_the_limit_of_the_system_we_say_so_and_look_ourselves(
    lesson: Path, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuses(*arguments: object, **options: object) -> AsyncIterator[None]:
        raise error
        yield

    monkeypatch.setattr(file_watcher, "awatch", refuses)
    monkeypatch.setattr(file_watcher, "POLL_SECONDS", 0.01)
    said: list[str] = []
    async with aclosing(watch_saves(lesson.parent, said.append)) as watching:
        found = await told(watching, (lesson / "main.py").write_text)
    assert found == {Path("lesson_01/main.py")}
    [sentence] = said
    assert str(error) in sentence and "sudo sysctl fs.inotify.max_user_instances" in sentence


async def test_a_folder_that_is_gone_is_an_error(lesson: Path) -> None:
    with pytest.raises(FileNotFoundError):
        async with aclosing(watch_saves(lesson.parent / "nothing", pytest.fail)) as watching:
            await anext(watching)
