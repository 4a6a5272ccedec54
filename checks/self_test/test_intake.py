"""Submissions are read as files, whoever made them; nothing in them is followed, run or trusted."""

from __future__ import annotations

import hashlib
import io
import os
import re
import shutil
import socket
import stat
import struct
import subprocess
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import psutil
import pytest

from checks.kit.lessons.errors import WorkbookError
from checks.kit.submissions.intake import archives, bundles, folders, select
from checks.kit.submissions.intake.folders import open_regular
from checks.kit.submissions.intake.read import submissions
from checks.kit.submissions.model import Submission

MAIN = "lessons/lesson_03/app/main.py"
LESSON = {"app/main.py": b"app = 3\n", "schema.sql": b"create table books ();\n"}

Make = Callable[[Path, Mapping[str, bytes]], Path]


def as_folder(path: Path, files: Mapping[str, bytes]) -> Path:
    for name, content in files.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    return path


def as_zip(path: Path, files: Mapping[str, bytes]) -> Path:
    with zipfile.ZipFile(path.with_name(f"{path.name}.zip"), "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path.with_name(f"{path.name}.zip")


def as_tar(path: Path, files: Mapping[str, bytes]) -> Path:
    with tarfile.open(path.with_name(f"{path.name}.tar.gz"), "w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path.with_name(f"{path.name}.tar.gz")


def as_bundle(path: Path, files: Mapping[str, bytes]) -> Path:
    work = as_folder(path.with_name(f"{path.name}-work"), files)
    bundle = bundled(work, path, "HEAD")
    shutil.rmtree(work)
    return bundle


def bundled(work: Path, path: Path, *what: str, branch: str = "main") -> Path:
    bundle = path.with_name(f"{path.name}.bundle")
    git(work, "init", "-q", "-b", branch)
    git(work, "add", "-Af", ".")
    git(work, "-c", "user.name=x", "-c", "user.email=x@x", "commit", "-q", "-m", "submitted")
    git(work, "bundle", "create", "-q", str(bundle), *what)
    return bundle


def git(work: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=work, check=True, capture_output=True, text=True).stdout.strip()


def only(path: Path) -> Submission:
    """The one submission that a path is, read for lessons 3 and 4."""
    (submission,) = submissions([path], {3, 4})
    return submission


def lesson(at: str, files: Mapping[str, bytes] = LESSON) -> dict[str, bytes]:
    return {f"{at}/{name}": content for name, content in files.items()}


@pytest.fixture(autouse=True)
def scratch(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Whatever is put into the system's folder for temporary files is gone in the end."""
    folder = tmp_path_factory.mktemp("scratch")
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield
    assert list(folder.iterdir()) == []


@pytest.fixture(params=[as_folder, as_zip, as_tar, as_bundle], ids=["folder", "zip", "tar", "bundle"])
def make(request: pytest.FixtureRequest) -> Make:
    maker: Make = request.param
    return maker


@pytest.mark.parametrize("below", ["", "lessons/", "repo-main/lessons/", "homework/week 1/"])
def test_lessons_are_found_wherever_they_are_in_a_submission(make: Make, below: str, tmp_path: Path) -> None:
    make(tmp_path / "jane", lesson(f"{below}lesson_03") | lesson(f"{below}lesson_04") | lesson(f"{below}lesson_05"))
    got = only(tmp_path)
    assert (got.learner, got.lessons, got.notes) == ("jane", {3: LESSON, 4: LESSON}, ())


def test_a_whole_fork_is_its_lessons(make: Make, tmp_path: Path) -> None:
    fork = lesson("lessons/lesson_03")
    for other in ("solutions", "checks", "notebooks", ".workbook/kept", "node_modules/lessons", ".venv", "__MACOSX"):
        fork |= lesson(f"{other}/lesson_03", {"app/main.py": b"stolen"}) | lesson(f"{other}/lesson_04")
    got = only(make(tmp_path / "fork", fork))
    assert (got.lessons, got.notes) == ({3: LESSON}, ())


def test_what_nobody_wrote_and_what_the_grader_has_is_not_taken(make: Make, tmp_path: Path) -> None:
    dropped = ("README.md", "lesson.toml", "Lesson.TOML", ".env", ".git2/x", "app/__pycache__/main.py", "app/main.pyc")
    kept = {"app/checks/a.py": b"1", "app/README.md": b"2", ".dockerignore": b"3", "app/solutions/lesson_04/b": b"4"}
    got = only(make(tmp_path / "jane", lesson("lesson_03", dict.fromkeys(dropped, b"-") | kept)))
    assert (got.lessons, got.notes) == ({3: kept}, ())
    got = only(make(tmp_path / "joe", lesson("lesson_03") | {"lesson_04/README.md": b"-"}))
    assert (got.lessons, got.notes) == ({3: LESSON}, ("lesson_04 has no files to grade.",))


def test_of_several_folders_one_is_taken_and_a_note_says_which(make: Make, tmp_path: Path) -> None:
    old = lesson("lesson_03", {"a.py": b"old"}) | lesson("b/lesson_04", {"a.py": b"deep"})
    got = only(make(tmp_path / "jane", lesson("x/lessons/lesson_03") | lesson("y/z/lessons/lesson_03") | old))
    assert got.lessons == {3: LESSON, 4: {"a.py": b"deep"}}
    assert got.notes == ("lesson_03 is there 3 times; x/lessons/lesson_03 was taken.",)


@pytest.mark.parametrize(
    "files", [{"essay.txt": b"-"}, lesson("lessons/lesson_05"), {"x/lesson_03": b"a file", "x/lessons": b"-"}]
)
def test_a_submission_without_a_lesson_is_read(make: Make, files: dict[str, bytes], tmp_path: Path) -> None:
    make(tmp_path / "jane", files)
    got = only(tmp_path)
    assert (got.learner, got.lessons) == ("jane", {})
    assert got.notes[-1].startswith("No lesson to grade was found in it.")


def test_a_folder_of_submissions_has_a_learner_per_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    place = tmp_path / "week 3"
    as_folder(place / "Zoe", lesson("lessons/lesson_03"))
    as_zip(place / "adam", lesson("repo-main/lessons/lesson_03")).rename(place / "adam.ZIP")
    bundled(as_folder(tmp_path / "work", lesson("lesson_03")), place / "Mia", "HEAD")
    as_folder(place, {"grades.csv": b"-", ".DS_Store": b"-", ".hidden/lesson_03/a.py": b"-", "ann.tar.gz": b"-"})
    os.mkfifo(place / "pipe.zip")
    (place / "link").symlink_to(tmp_path / "work")
    skipped: list[str] = []
    got = submissions([Path("week 3")], {3}, skipped.append)
    assert [(each.learner, each.source) for each in got] == [
        ("adam", "week 3/adam.ZIP"), ("ann", "week 3/ann.tar.gz"), ("Mia", "week 3/Mia.bundle"), ("Zoe", "week 3/Zoe"),
    ]  # fmt: skip
    assert all(each.lessons == {3: LESSON} for each in got if each.learner != "ann")
    assert got[1].notes == ("It cannot be opened as a .tar file. Ask for it to be sent again.",)
    assert [line.removeprefix("week 3/") for line in skipped] == [
        "grades.csv is not a folder, .zip or .bundle and was skipped.",
        "link is a symbolic link and was skipped.",
        "pipe.zip is a named pipe and was skipped.",
    ]


def test_one_learners_folder_is_told_from_a_folder_with_one_learner(tmp_path: Path) -> None:
    as_folder(tmp_path / "class" / "jane" / "repo-main", lesson("lessons/lesson_03"))
    assert only(tmp_path / "class").learner == "jane"
    assert only(tmp_path / "class/jane").learner == "repo-main"
    assert only(tmp_path / "class/jane/repo-main").learner == "repo-main"
    assert only(tmp_path / "class/jane/repo-main/lessons").learner == "lessons"


@pytest.mark.parametrize("pack", [as_zip, as_bundle])
def test_a_folder_with_one_archive_in_it_is_that_archive(pack: Make, tmp_path: Path) -> None:
    inner = tmp_path / "class" / "Dr. Jane_4711_file_"
    inner.mkdir(parents=True)
    packed = pack(inner / "my work", lesson("lessons/lesson_03"))
    (inner / ".DS_Store").write_bytes(b"x")
    (jane,) = submissions([tmp_path / "class"], {3})
    assert jane.learner == "Dr. Jane_4711_file_"
    assert jane.source.endswith(packed.name)
    assert jane.lessons == {3: LESSON}
    pack(inner / "my better work", lesson("lessons/lesson_03"))
    (undecided,) = submissions([tmp_path / "class"], {3})
    assert not undecided.lessons, "which of two archives counts is not ours to guess"


def test_a_path_that_the_instructor_gives_may_be_a_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    as_folder(tmp_path / "store/f81d", lesson("lesson_03"))
    (tmp_path / "jane").symlink_to("store/f81d")
    (tmp_path / "joe.zip").symlink_to(as_zip(tmp_path / "store/a07c", lesson("lesson_03")).rename(tmp_path / "a07c"))
    monkeypatch.chdir(tmp_path / "store/f81d")
    for path, name in ((tmp_path / "jane", "jane"), (tmp_path / "joe.zip", "joe"), (Path(), "f81d")):
        got = only(path)
        assert (got.learner, got.lessons) == (name, {3: LESSON})


def test_learners_of_the_same_name_are_kept_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for place in ("a", "b"):
        as_folder(tmp_path / place / "jane", lesson("lesson_03"))
        as_zip(tmp_path / place / "jane", lesson("lesson_03"))
    paths = [Path("b"), Path("a"), Path("a/jane"), tmp_path / "b/jane.zip"]
    names = {each.learner: each.source for each in submissions(paths, {3})}
    assert names == {
        "jane": "a/jane", "jane (jane.zip)": "a/jane.zip", "jane (jane)": "b/jane", "jane (b/jane.zip)": "b/jane.zip",
    }  # fmt: skip
    assert [each.learner for each in submissions(paths[::-1], {3})] == list(names) == sorted(names)


@pytest.mark.parametrize(
    ("file_name", "name"),
    [
        (b"\x1b]0;owned\x07\x1b[2Jeve", "�]0;owned��[2Jeve"),
        (b"<script>alert('1')&amp;", "<script>alert('1')&amp;"),
        (b"two\nlines\r\tand\x7f", "two�lines��and�"),
        (b"caf\xe9 \xff", "caf� �"),
        (b'=HYPERLINK("x")', '=HYPERLINK("x")'),
        (b"n" * 250, "n" * 250),
        ("Zoë \N{SNOWMAN} من".encode(), "Zoë ☃ من"),
    ],
)
def test_names_may_be_anything(file_name: bytes, name: str, tmp_path: Path) -> None:
    as_folder(tmp_path / os.fsdecode(file_name), lesson("lesson_03") | {os.fsdecode(b"lesson_04/\x1b[31m.py"): b"-"})
    as_zip(tmp_path / os.fsdecode(file_name), lesson("lesson_03"))
    as_folder(tmp_path, {os.fsdecode(file_name[:200] + b".txt"): b"-"})
    skipped: list[str] = []
    folder, archive = submissions([tmp_path], {3, 4}, skipped.append)
    assert (folder.learner, archive.learner) == (name, f"{name} ({name}.zip)")
    assert folder.lessons == archive.lessons == {3: LESSON}
    assert folder.notes[0].startswith("lesson_04/�[31m.py has control characters")
    assert folder.source.endswith(name)
    assert skipped[0].isprintable()


def test_a_path_that_is_no_submission_is_one_sentence(tmp_path: Path) -> None:
    as_folder(tmp_path, {"essay.txt": b"-", "empty/.hidden": b"-"})
    os.mkfifo(tmp_path / "pipe.zip")
    (tmp_path / "circle").symlink_to("circle")
    messages = {}
    for name in ("nowhere.zip", "essay.txt", "empty", "pipe.zip", "essay.txt/x", "circle", "nul\0"):
        with pytest.raises(WorkbookError, match="Give a folder of submissions") as raised:
            submissions([tmp_path / name], {3})
        messages[name] = str(raised.value).removeprefix(f"{tmp_path}/").partition(". Give")[0]
    assert messages["nowhere.zip"] == "nowhere.zip does not exist"
    assert messages["essay.txt"] == "essay.txt is not a submission"
    assert messages["empty"] == "empty holds no submissions"
    assert messages["pipe.zip"] == "pipe.zip is not a submission"


LINKS = {
    MAIN: "/etc/passwd",
    "lessons/lesson_03/app/db.py": "../../../solutions/lesson_03/app/db.py",
    "lessons/lesson_03/etc": "/etc",
    "lessons/lesson_04": "../solutions/lesson_04",
    "old/lessons": "../solutions",
    "solutions/link": "/etc/passwd",
}


def linked_folder(path: Path) -> Path:
    as_folder(path, lesson("solutions/lesson_04") | {"lessons/lesson_03/schema.sql": b"mine"})
    for name, target in LINKS.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).symlink_to(target)
    return path


def linked_zip(path: Path) -> Path:
    made = as_zip(path, lesson("solutions/lesson_04") | {"lessons/lesson_03/schema.sql": b"mine"})
    with zipfile.ZipFile(made, "a") as archive:
        for name, target in LINKS.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = (stat.S_IFLNK | 0o777) << 16
            archive.writestr(info, target)
    return made


def linked_bundle(path: Path) -> Path:
    return bundled(linked_folder(path.with_name("work")), path, "HEAD")


@pytest.mark.parametrize("make_linked", [linked_folder, linked_zip, linked_bundle])
def test_links_are_named_and_never_followed(make_linked: Callable[[Path], Path], tmp_path: Path) -> None:
    got = only(make_linked(tmp_path / "eve"))
    assert got.lessons == {3: {"schema.sql": b"mine"}}
    assert got.notes == (
        "lessons/lesson_04 is a symbolic link and was left out.",
        "old/lessons is a symbolic link and was left out.",
        "lesson_03/app/db.py is a symbolic link and was left out.",
        "lesson_03/app/main.py is a symbolic link and was left out.",
        "lesson_03/etc is a symbolic link and was left out.",
    )


def test_a_folder_that_is_all_links_gives_nothing(tmp_path: Path) -> None:
    (tmp_path / "eve").mkdir()
    (tmp_path / "eve/lessons").symlink_to("/etc")
    got = only(tmp_path / "eve")
    assert (got.learner, got.lessons) == ("eve", {})
    assert got.notes[0] == "lessons is a symbolic link and was left out."


def test_pipes_sockets_and_endless_files_are_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inside = as_folder(tmp_path, lesson("lesson_03")) / "lesson_03"
    os.mkfifo(inside / "pipe.py")
    with socket.socket(socket.AF_UNIX) as listener:
        monkeypatch.chdir(inside)  # a socket's path has to be short
        listener.bind("socket.py")
    with (inside / "sparse.sql").open("wb") as file:
        file.truncate(10 << 30)
    got = only(tmp_path)
    assert got.lessons == {3: LESSON}
    assert got.notes == (
        "lesson_03/pipe.py is a named pipe and was left out.",
        "lesson_03/socket.py is a socket and was left out.",
        "lesson_03/sparse.sql is larger than 2 MB and was left out.",
    )
    for path in (inside / "pipe.py", inside, Path("/dev/zero")):  # put there after the look
        with pytest.raises(OSError, match="it is a"):
            open_regular(path)
    (inside / "link.py").symlink_to("schema.sql")
    with pytest.raises(OSError, match="symbolic"):
        open_regular(inside / "link.py")


def test_a_lesson_of_which_something_cannot_be_read_is_left_out_whole(folder: Path) -> None:
    as_folder(folder, lesson("lesson_03") | lesson("lesson_04") | {"lesson_05/main.py": b"-", "lesson_06/a.py": b"-"})
    as_zip(folder / "zip", {})
    for name in ("lesson_03/schema.sql", "lesson_04/app", "zip.zip"):
        (folder / name).chmod(0)
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        (got,) = submissions([folder], {3, 4, 5})
        (archive,) = submissions([folder / "zip.zip"], {3})
    finally:
        if root:
            os.seteuid(0)
        (folder / "lesson_04/app").chmod(0o755)
    assert got.lessons == {5: {"main.py": b"-"}}
    assert got.notes == (
        "lesson_04/app/* cannot be read (permission denied), so lesson_04 was left out.",
        "lesson_03/schema.sql cannot be read (permission denied), so lesson_03 was left out.",
    )
    assert archive.notes == ("It cannot be read: permission denied.",)


def test_a_file_beyond_the_limits_is_left_out(make: Make, tmp_path: Path) -> None:
    big = {"dump.sql": b"\0" * 2_000_001, "full.sql": b"\0" * 2_000_000, f"{'ü' * 100}.py": b"-", "a\\b.py": b"-"}
    if make is as_zip:
        del big["a\\b.py"]
    got = only(make(tmp_path / "jane", lesson("lesson_03", LESSON | big)))
    assert got.lessons[3].keys() == {*LESSON, "full.sql"}
    assert [re.sub(r".* (is|has) ", "", note) for note in got.notes] == [
        *(["a backslash in its name and was left out."] if make is not as_zip else []),
        "larger than 2 MB and was left out.",
        "a path of more than 200 bytes and was left out.",
    ]


def test_a_submission_beyond_the_limits_gives_nothing(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(select, "MAX_SUBMISSION_FILES", 20)
    for name, content, count in (("many", b"", 21), ("heavy", b"\0" * 1_900_000, 11)):
        files = {f"lesson_03/{number}.py": content for number in range(count)} | lesson("lesson_04")
        got = only(make(tmp_path / name, files))
        assert got.lessons == {}
        assert got.notes == (
            "It holds more than 20 files or 20 MB in its lessons, so nothing of it was taken. "
            "Ask for it without data files.",
        )


def test_a_crowd_of_entries_is_not_looked_through(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (folders, select):
        monkeypatch.setattr(module, "MAX_ENTRIES", 20)
    crowd = {f"data/{number}": b"" for number in range(21)}
    got = only(make(tmp_path / "jane", lesson("lesson_03") | crowd))
    assert got.lessons == {}
    assert "It holds more than 20 files" in got.notes[0]
    ignored = {f".venv/lib/{number}": b"" for number in range(21)}
    assert only(make(tmp_path / "joe", lesson("lesson_03") | ignored)).lessons == {3: LESSON}


def test_a_tree_deeper_than_python_and_the_system_like_is_survived(folder: Path) -> None:
    as_folder(folder, lesson("lesson_03"))
    here = os.open(folder / "lesson_03", os.O_RDONLY)
    for _ in range(1500):
        os.mkdir("deep", dir_fd=here)
        below = os.open("deep", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    got = only(folder)
    assert got.lessons == {3: LESSON}
    assert re.fullmatch(r"lesson_03/deep/.*….*/deep is a folder too deep down and was left out\.", got.notes[0])
    subprocess.run(["rm", "-rf", folder / "lesson_03/deep"], check=True)  # shutil would recurse


def test_notes_do_not_grow_with_the_trouble(tmp_path: Path) -> None:
    as_folder(tmp_path, lesson("lesson_03"))
    for number in range(100):
        (tmp_path / f"lesson_03/{number:03}.py").symlink_to("/etc/passwd")
    got = only(tmp_path)
    assert len(got.notes) == 21
    assert got.notes[-1] == "80 more like these."


def raw_zip(path: Path, entries: list[tuple[str, bytes, int, int]], flags: int = 0, method: int = 8) -> Path:
    """A zip file whose entries say what they like: name, packed data, size and checksum when unpacked."""
    body, table = b"", b""
    for name, data, size, crc in entries:
        fields = struct.pack("<5H3L2H", 20, flags, method, 0, 33, crc, len(data), size, len(name), 0)
        table += b"PK\1\2" + struct.pack("<H", 20) + fields + struct.pack("<3H2L", 0, 0, 0, 0, len(body))
        table += name.encode()
        body += b"PK\3\4" + fields + name.encode() + data
    end = struct.pack("<4H2LH", 0, 0, len(entries), len(entries), len(table), len(body), 0)
    path.write_bytes(body + table + b"PK\5\6" + end)
    return path


def zeros(megabytes: int) -> bytes:
    """So many megabytes of zeros, packed into a thousandth: a block that stands for one, again and again."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = packer.compress(b"\0" * 1_000_000) + packer.flush(zlib.Z_FULL_FLUSH)
    return block * megabytes + b"\3\0"


@pytest.mark.parametrize("size", [4_294_967_294, 2_000_000, 1_000, 0])
def test_a_zip_bomb_is_not_unpacked(size: int, tmp_path: Path) -> None:
    bomb = zeros(10_000)  # 10 GB
    got = only(raw_zip(tmp_path / "eve.zip", [(MAIN, bomb, size, 1), ("lesson_04/a.py", b"\3\0", 0, 0)]))
    assert got.lessons == {4: {"a.py": b""}}
    assert got.notes[0] == (
        "lesson_03/app/main.py is larger than 2 MB and was left out."
        if size > 2_000_000
        else "lesson_03/app/main.py cannot be read (the .zip file is damaged), so lesson_03 was left out."
    )


def test_a_zip_that_unpacks_for_ever_into_nothing_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "MAX_SUBMISSION_BYTES", 1_000_000)
    nothing = b"\0\0\0\xff\xff" * 1_000_000
    got = only(raw_zip(tmp_path / "eve.zip", [(f"lesson_03/{n}.py", nothing, 9, 1) for n in range(9)]))
    assert got.lessons == {}
    assert "more than can be looked through" in got.notes[0]


def test_a_table_of_contents_is_read_within_bounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives._LimitedFile, "allowance", 100_000)
    got = only(raw_zip(tmp_path / "eve.zip", [(f"lesson_03/{n}", b"\3\0", 0, 0) for n in range(2_000)]))
    assert "more than can be looked through" in got.notes[0]


def test_paths_in_a_zip_stay_in_the_submission(tmp_path: Path) -> None:
    names = (
        "../../lesson_03/a.py", "lessons/lesson_03/../../../a.py", "/lessons/lesson_03/b.py", "C:/lesson_03/c.py",
        "lesson_03/D:d.py", "\\\\host\\lesson_03\\e.py",
    )  # fmt: skip
    good = {"windows\\lesson_03\\app\\f.py": b"-", "./windows//lesson_03/./g.py": b"-", "windows\\lesson_03\\": b""}
    got = only(as_zip(tmp_path / "eve", dict.fromkeys(names, b"bad") | good))
    assert got.lessons == {3: {"app/f.py": b"-", "g.py": b"-"}}
    assert len([note for note in got.notes if note.endswith("is a path that leads elsewhere and was left out.")]) == 6


def test_a_nul_does_not_end_a_name_in_a_zip(tmp_path: Path) -> None:
    got = only(raw_zip(tmp_path / "eve.zip", [("lesson_03/a.py\0.txt", b"\3\0", 0, 0), ("lesson_03/b", b"\3\0", 0, 0)]))
    assert got.lessons == {3: {"b": b""}}
    assert "lesson_03/a.py�.txt has control characters" in got.notes[0]


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("second", ["a.py", "a.py/b.py", "./a.py", "x/../a.py"])
def test_a_path_that_is_there_twice_spoils_its_lesson(second: str, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "eve.zip", "w") as archive:
        for name in ("lesson_03/a.py", f"lesson_03/{second}", "lesson_04/a.py"):
            archive.writestr(name, name)
    got = only(tmp_path / "eve.zip")
    if ".." in second:
        assert got.lessons.keys() == {3, 4}
        assert "leads elsewhere" in got.notes[0]
    else:
        assert got.lessons.keys() == {4}
        assert got.notes == ("lesson_03/a.py is there more than once, so lesson_03 was left out.",)


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"flags": 1}, "it is encrypted"),
        ({"method": 12}, "it is compressed in an unusual way"),
        ({"method": 14}, "it is compressed in an unusual way"),
        ({}, "the .zip file is damaged"),
    ],
)
def test_a_zip_entry_that_cannot_be_read_spoils_its_lesson(options: dict[str, int], why: str, tmp_path: Path) -> None:
    packed = zlib.compress(b"app = 3\n", wbits=-15)
    got = only(raw_zip(tmp_path / "jane.zip", [(MAIN, packed, 8, 12345)], **options))
    assert got.lessons == {}
    assert got.notes[0] == f"lesson_03/app/main.py cannot be read ({why}), so lesson_03 was left out."


def test_a_damaged_file_is_a_note(tmp_path: Path) -> None:
    for make in (as_zip, as_bundle):
        whole = make(tmp_path / "whole", lesson("lesson_03")).read_bytes()
        for name, data in (("cut", whole[:-30]), ("text", b"PK is what I submitted\n"), ("empty", b"")):
            path = tmp_path / f"{name}.{make.__name__.removeprefix('as_')}"
            path.write_bytes(data)
            got = only(path)
            assert (got.learner, got.lessons) == (name, {})
            assert re.fullmatch(r"It cannot be (opened|read) as .* Ask for .*", got.notes[0])


@pytest.mark.parametrize(("branch", "others"), [("main", ["a"]), ("master", ["a"]), ("mine", [])])
def test_a_bundle_without_head_is_its_main_branch(branch: str, others: list[str], tmp_path: Path) -> None:
    work = as_folder(tmp_path / "work", lesson("lesson_03"))
    bundled(work, tmp_path / "first", branch, branch=branch)
    for other in others:
        git(work, "branch", other)
    git(work, "bundle", "create", "-q", str(tmp_path / "jane.bundle"), branch, *others)
    assert "HEAD" not in git(work, "bundle", "list-heads", str(tmp_path / "jane.bundle"))
    assert only(tmp_path / "jane.bundle").lessons == {3: LESSON}


def test_a_bundle_that_is_not_enough_says_what_would_be(tmp_path: Path) -> None:
    work = as_folder(tmp_path / "work", lesson("lesson_03"))
    bundled(work, tmp_path / "first", "mine", branch="mine")
    git(work, "branch", "yours")
    git(work, "bundle", "create", "-q", str(tmp_path / "two.bundle"), "mine", "yours")
    assert "has no HEAD" in only(tmp_path / "two.bundle").notes[0]
    git(work, "-c", "user.name=x", "-c", "user.email=x@x", "commit", "-q", "--allow-empty", "-m", "more")
    git(work, "bundle", "create", "-q", str(tmp_path / "part.bundle"), "HEAD~1..HEAD")
    assert "only the last part of a history" in only(tmp_path / "part.bundle").notes[0]


def test_nothing_in_a_bundle_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    proof = tmp_path / "proof"
    filters = (
        f'[filter "x"]\nsmudge = touch {proof}\nclean = cat\n[core]\nfsmonitor = touch {proof}\nhooksPath = {{}}\n'
    )
    work = as_folder(tmp_path / "work", lesson("lesson_03"))
    as_folder(work, {".gitattributes": b"* filter=x diff=x\n", ".gitmodules": b'[submodule "s"]\npath=s\nurl=/etc\n'})
    as_folder(work, {"hooks/post-checkout": f"#!/bin/sh\ntouch {proof}\n".encode()})
    for hook in ("reference-transaction", "post-merge", "post-index-change"):
        shutil.copy(work / "hooks/post-checkout", work / "hooks" / hook)
    for script in (work / "hooks").iterdir():
        script.chmod(0o755)
    git(work, "init", "-q", "-b", "main")
    git(work, "update-index", "--add", "--cacheinfo", f"160000,{'1' * 40},lessons/lesson_04")
    git(work, "update-index", "--add", "--cacheinfo", f"160000,{'1' * 40},lesson_03/lib")
    (work / "lessons/lesson_04").mkdir(parents=True)
    (work / "lesson_03/lib").mkdir()
    bundle = bundled(work, tmp_path / "eve", "--all")
    (tmp_path / ".gitconfig").write_text(filters.format(work / "hooks"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("GIT_DIR", str(work / ".git"))
    monkeypatch.setenv("GIT_CONFIG_PARAMETERS", f"'core.hooksPath={work / 'hooks'}'")
    before = sorted(path.name for path in (work / ".git").rglob("*"))
    got = only(bundle)
    assert got.lessons == {3: LESSON}
    assert got.notes == (
        "lessons/lesson_04 is a submodule and was left out.",
        "lesson_03/lib is a submodule and was left out.",
    )
    assert not proof.exists()
    assert sorted(path.name for path in (work / ".git").rglob("*")) == before


class Pack:
    """A bundle made by hand, of objects that git itself would not write."""

    def __init__(self) -> None:
        self._objects: list[bytes] = []

    def add(self, kind: str, data: bytes) -> str:
        self._put({"commit": 1, "tree": 2, "blob": 3}[kind], len(data), zlib.compress(data, 1))
        return hashlib.sha1(f"{kind} {len(data)}\0".encode() + data).hexdigest()

    def tree(self, *entries: tuple[str, str, str]) -> str:
        data = b"".join(f"{mode} {name}\0".encode() + bytes.fromhex(to) for mode, name, to in entries)
        return self.add("tree", data)

    def delta(self, base: str, data: bytes) -> None:
        self._put(7, len(data), bytes.fromhex(base) + zlib.compress(data))

    def _put(self, kind: int, size: int, data: bytes) -> None:
        header, size = [kind << 4 | size & 15], size >> 4
        while size:
            header[-1] |= 128
            header.append(size & 127)
            size >>= 7
        self._objects.append(bytes(header) + data)

    def bundle(self, path: Path, tree: str) -> Path:
        commit = self.add("commit", f"tree {tree}\nauthor x <x> 1 +0000\ncommitter x <x> 1 +0000\n\nx\n".encode())
        pack = b"PACK" + struct.pack(">2L", 2, len(self._objects)) + b"".join(self._objects)
        pack += hashlib.sha1(pack).digest()
        path.write_bytes(f"# v2 git bundle\n{commit} HEAD\n\n".encode() + pack)
        return path


def test_a_tree_that_git_would_not_write_stays_in_the_submission(tmp_path: Path) -> None:
    pack = Pack()
    blob = pack.add("blob", b"-")
    names = ("..", "../../x.py", ".git", "a.py", "a\x1bb.py", "\\x.py", "/x.py")
    inner = pack.tree(*(("100644", name, blob) for name in names))
    gone = pack.tree(("100644", "gone.py", "1" * 40))
    top = pack.tree(("40000", "lesson_03", inner), ("40000", "lesson_04", gone))
    got = only(pack.bundle(tmp_path / "eve.bundle", top))
    assert got.lessons == {3: {"a.py": b"-"}}
    assert got.notes == (
        "lesson_03/.. is a path that leads elsewhere and was left out.",
        "lesson_03/../../x.py is a path that leads elsewhere and was left out.",
        "lesson_03//x.py is a path that leads elsewhere and was left out.",
        "lesson_03/\\x.py has a backslash in its name and was left out.",
        "lesson_03/a�b.py has control characters or bytes that are no UTF-8 in its name and was left out.",
        "lesson_04/gone.py cannot be read (the bundle lacks it), so lesson_04 was left out.",
    )


def test_a_tree_of_a_billion_files_is_not_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundles, "MAX_LISTING_BYTES", 1_000_000)
    pack = Pack()
    below, mode = pack.add("blob", b"-"), "100644"
    for _ in range(9):
        below, mode = pack.tree(*((mode, f"{number}", below) for number in range(10))), "40000"
    assert "cannot be read as a git bundle" in only(pack.bundle(tmp_path / "eve.bundle", below)).notes[0]


def test_a_delta_that_grows_to_gigabytes_is_not_unpacked(tmp_path: Path) -> None:
    pack = Pack()
    base = pack.add("blob", b"\0" * (16 << 20))
    copies = 1024  # of 16 MB less a byte each: 17 GB

    def varint(number: int) -> bytes:
        out = []
        while number > 127:
            out.append(number & 127 | 128)
            number >>= 7
        return bytes([*out, number])

    size = (1 << 24) - 1
    pack.delta(base, varint(16 << 20) + varint(copies * size) + b"\xf0\xff\xff\xff" * copies)
    top = pack.tree(("40000", "lesson_03", pack.tree(("100644", "a.py", base))))
    assert "cannot be read as a git bundle" in only(pack.bundle(tmp_path / "eve.bundle", top)).notes[0]


def test_git_that_hangs_is_a_note_and_without_git_nothing_begins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = as_bundle(tmp_path / "jane", lesson("lesson_03"))
    fake = as_folder(tmp_path / "bin", {"git": b"#!/bin/sh\nsleep 4321 & wait\n"}) / "git"
    fake.chmod(0o755)
    monkeypatch.setattr(bundles, "MAX_SECONDS", 1)
    monkeypatch.setenv("PATH", str(fake.parent), prepend=":")
    assert only(bundle).notes == ("git needed more than 1 s for it. Ask for a .zip instead.",)
    assert not [each for each in psutil.process_iter(["cmdline"]) if each.info["cmdline"] == ["sleep", "4321"]]
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(WorkbookError, match="git is not installed"):
        only(bundle)


def test_where_each_path_is_one_submission_there_is_always_a_submission(tmp_path: Path) -> None:
    """As an autograder needs it, whatever a learner sent."""
    (tmp_path / "nothing").mkdir()
    sent = [tmp_path / "nothing", as_folder(tmp_path / "docs and main", {"docs/a.md": b"", "main.py": b""})]
    for path in sent:
        (submission,) = submissions([path], {3}, one_each=True)
        [note] = submission.notes
        assert note.startswith("No lesson to grade was found in it.")


def test_a_bundle_is_no_larger_than_it_may_be(tmp_path: Path) -> None:
    with (tmp_path / "jane.bundle").open("wb") as file:
        file.truncate(100_000_001)
    assert "larger than 100 MB" in only(tmp_path / "jane.bundle").notes[0]


@pytest.mark.parametrize(
    ("folder", "note"),
    [
        ("lesson_03", ""),
        ("Lesson_03", "Lesson_03 was taken for lesson_03."),
        ("lesson_3", "lesson_3 was taken for lesson_03."),
        ("Lesson 03 (1)", "Lesson 03 (1) was taken for lesson_03."),
        ("lesson_03_done", "lesson_03_done was taken for lesson_03."),
    ],
)
def test_a_lesson_has_many_names(make: Make, folder: str, note: str, tmp_path: Path) -> None:
    got = only(make(tmp_path / "jane", lesson(folder)))
    assert (got.lessons, got.notes) == ({3: LESSON}, (note,) if note else ())


@pytest.mark.parametrize("folder", ["lesson_031", "lesson_", "my lesson_03", "lessons", "lesson_x03", "lesson_3b"])
def test_other_names_are_no_lesson(make: Make, folder: str, tmp_path: Path) -> None:
    make(tmp_path / "jane", lesson(folder))
    assert only(tmp_path).lessons == {}


def test_the_right_name_goes_before_others(make: Make, tmp_path: Path) -> None:
    files = lesson("x/y/lesson_03") | lesson("lesson_03_old", {"a.py": b"old"})
    got = only(make(tmp_path / "jane", files))
    assert got.lessons == {3: LESSON}
    assert got.notes == ("lesson_03 is there 2 times; x/y/lesson_03 was taken.",)


@pytest.mark.parametrize("pack", [as_zip, as_tar, as_bundle])
@pytest.mark.parametrize("outer", [as_zip, as_tar])
def test_an_archive_in_an_archive_is_read(outer: Make, pack: Make, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    inner = pack(tmp_path / "in" / "mine", lesson("lessons/lesson_03"))
    got = only(outer(tmp_path / "jane", {f"x/{inner.name}": inner.read_bytes(), "notes.txt": b"-"}))
    assert (got.lessons, got.notes) == ({3: LESSON}, (f"x/{inner.name} in it was read.",))


def test_an_archive_beside_what_a_platform_adds_is_read(tmp_path: Path) -> None:
    packed = as_zip(tmp_path / "mine", lesson("lessons/lesson_03")).read_bytes()
    as_folder(tmp_path / "class" / "jane", {"mine.zip": packed, "onlinetext.html": b"<p>Here it is</p>"})
    assert only(tmp_path / "class").lessons == {3: LESSON}
    as_folder(tmp_path / "class" / "jane", {"app/main.py": b"app = 1"})
    got = only(tmp_path / "class")
    assert (got.lessons, got.notes) == ({3: LESSON}, ("mine.zip in it was read.",))


def test_a_note_says_what_there_is_in_place_of_a_lesson(make: Make, tmp_path: Path) -> None:
    make(tmp_path / "jane", {f"{name}/a.py": b"-" for name in ("app", "b", "c", "d", "e", "f")})
    assert only(tmp_path).notes[-1] == (
        "No lesson to grade was found in it. It holds app, b, c, d, e and more; a lesson is a folder lesson_NN, "
        "best in a folder lessons."
    )


@pytest.mark.parametrize("unpacker", ["gz", "bz2", "xz"])
def test_a_tar_bomb_is_refused_before_it_fills_the_memory(unpacker: str, tmp_path: Path) -> None:
    path = tmp_path / f"bomb.tar.{unpacker}"
    with tarfile.open(path, f"w:{unpacker}") as archive:
        for number in range(30):
            member = tarfile.TarInfo(f".git/{number}")
            member.size = 10_000_000
            archive.addfile(member, io.BytesIO(bytes(member.size)))
    assert only(path).notes[0].startswith("It unpacks into more than 200 MB.")


def test_a_tar_is_read_as_files_only(tmp_path: Path) -> None:
    path = tmp_path / "jane.tar"
    with tarfile.open(path, "w") as archive:
        for name, kind in (("link", tarfile.SYMTYPE), ("hard", tarfile.LNKTYPE), ("pipe", tarfile.FIFOTYPE)):
            member = tarfile.TarInfo(f"lesson_03/{name}")
            member.type, member.linkname = kind, "/etc/passwd"
            archive.addfile(member)
        for name in ("lesson_03/app.py", "../lesson_03/evil.py", "/lesson_03/evil.py", "lesson_03/../../evil.py"):
            member = tarfile.TarInfo(name)
            member.size = 1
            archive.addfile(member, io.BytesIO(b"1"))
    got = only(path)
    assert got.lessons == {3: {"app.py": b"1"}}
    assert sum("leads elsewhere" in note for note in got.notes) == 3
    for kind_name in ("a symbolic link", "a hard link", "a named pipe"):
        assert any(kind_name in note for note in got.notes), got.notes


@pytest.mark.parametrize("cut", [40, 200])
def test_a_tar_that_is_cut_off_is_one_sentence(cut: int, tmp_path: Path) -> None:
    path = as_tar(tmp_path / "jane", lesson("lesson_03"))
    path.write_bytes(path.read_bytes()[:-cut])
    assert only(path).notes[0] == "It cannot be opened as a .tar file. Ask for it to be sent again."
