"""When a submission was handed in, and how that is known: `workbook submit`, a commit, or else the newest file."""

from __future__ import annotations

import io
import json
import os
import struct
import subprocess
import tarfile
import zipfile
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest

from checks.kit.submissions.intake.handed_in import ABOUT, COMMITTED, NEWEST_FILE, PACKED
from checks.kit.submissions.intake.read import submissions
from checks.kit.submissions.model import HandedIn
from checks.kit.submissions.pack import pack

MAIN = "lessons/lesson_01/app/main.py"
OLD, NEW, LATER = (datetime(2026, 11, day, 20, 15, 30, tzinfo=UTC) for day in (26, 27, 28))


def known(path: Path) -> HandedIn | None:
    """What is known of the only submission at this path."""
    [submission] = submissions([path], [1], one_each=True)
    assert list(submission.lessons) == [1]
    return submission.handed_in


def a_folder(path: Path, times: dict[str, datetime]) -> Path:
    for name, time in times.items():
        file = path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"x")
        os.utime(file, (time.timestamp(), time.timestamp() + 0.75))
    return path


def a_zip(path: Path, times: dict[str, datetime], about: str = "", *, utc: bool = False) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        if about:
            archive.writestr(ABOUT, about)
        for name, time in times.items():
            local = time.astimezone() if time.year >= 1980 else time
            info = zipfile.ZipInfo(name, local.timetuple()[:6])
            if utc:
                info = zipfile.ZipInfo(name, (1999, 1, 1, 0, 0, 0))
                info.extra = struct.pack("<HHHHBi", 0x7875, 0, 0x5455, 5, 1, int(time.timestamp()))
            archive.writestr(info, b"x")
    return path


def test_of_a_folder_the_newest_file_of_a_lesson_counts(tmp_path: Path) -> None:
    times = {MAIN: NEW, "lessons/lesson_01/app/db.py": OLD, "README.md": LATER, "solutions/lesson_01/x.py": LATER}
    assert known(a_folder(tmp_path / "Ada", times)) == HandedIn(NEW, NEWEST_FILE)


@pytest.mark.parametrize("utc", [False, True])
def test_a_zip_is_as_new_as_its_newest_file(utc: bool, tmp_path: Path) -> None:
    path = a_zip(tmp_path / "Ada.zip", {MAIN: NEW, "lessons/lesson_01/x.py": OLD}, utc=utc)
    assert known(path) == HandedIn(NEW, NEWEST_FILE)


def test_a_zip_without_times_has_none(tmp_path: Path) -> None:
    assert known(a_zip(tmp_path / "Ada.zip", {MAIN: datetime(1980, 1, 1, tzinfo=UTC)})) is None


def test_a_tar_is_as_new_as_its_newest_file(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "Ada.tar.gz", "w:gz") as archive:
        for name, time in {MAIN: NEW, "lessons/lesson_01/x.py": OLD}.items():
            info = tarfile.TarInfo(name)
            info.size, info.mtime = 1, int(time.timestamp())
            archive.addfile(info, io.BytesIO(b"x"))
    assert known(tmp_path / "Ada.tar.gz") == HandedIn(NEW, NEWEST_FILE)


def test_of_a_bundle_the_last_commit_counts(tmp_path: Path) -> None:
    repository = a_folder(tmp_path / "repository", {MAIN: OLD})
    environ = {**os.environ, "GIT_COMMITTER_DATE": NEW.isoformat(), "GIT_AUTHOR_DATE": LATER.isoformat()}
    for command in (
        ["init", "-q", "-b", "main"],
        ["add", "."],
        [
            "-c",
            "user.name=A <a@b> 1 +0000",
            "-c",
            "user.email=a@b",
            "commit",
            "-q",
            "-m",
            "x\n\ncommitter c <d> 1 +0000",
        ],
        ["bundle", "create", "-q", str(tmp_path / "Ada.bundle"), "main"],
    ):
        subprocess.run(["git", *command], cwd=repository, env=environ, check=True, capture_output=True)
    assert known(tmp_path / "Ada.bundle") == HandedIn(NEW, COMMITTED)


def test_what_workbook_submit_packs_says_when(tmp_path: Path) -> None:
    now = LATER.astimezone(timezone(timedelta(hours=-8))).replace(microsecond=7)
    assert known(pack({1: {"app/main.py": b"x"}}, "Ada", tmp_path, now)) == HandedIn(LATER, PACKED)


def test_so_does_such_a_file_in_another_archive(tmp_path: Path) -> None:
    packed = pack({1: {"app/main.py": b"x"}}, "Ada", tmp_path, LATER)
    with zipfile.ZipFile(tmp_path / "outer.zip", "w") as archive:
        archive.write(packed, "work/mine.zip")
    assert known(tmp_path / "outer.zip") == HandedIn(LATER, PACKED)


@pytest.mark.parametrize(
    "about",
    [
        "no JSON",
        "[" * 100_000,
        "[]",
        "{}",
        *(
            json.dumps({"packed_at": at})
            for at in (
                7,
                None,
                "",
                "yesterday",
                "2026-11-28T20:15:30",
                "0001-01-01T00:00:00+14:00",
                "1980-01-01T00:00Z",
            )
        ),
    ],
)
def test_a_submission_that_says_nonsense_is_as_new_as_its_newest_file(about: str, tmp_path: Path) -> None:
    assert known(a_zip(tmp_path / "Ada.zip", {MAIN: NEW}, about)) == HandedIn(NEW, NEWEST_FILE)
