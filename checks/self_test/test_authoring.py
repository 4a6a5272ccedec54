"""The commands of those who write lessons, in a checkout of their own: carry, variant, verify, matrix."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from checks.kit.authoring.affected import by_paths
from checks.kit.authoring.cases import Case
from checks.kit.authoring.durations import Durations
from checks.kit.authoring.merge import Merged, merge
from checks.kit.authoring.paper import sections
from checks.kit.authoring.verify import judge
from checks.kit.lessons.lesson import all_lessons, find_lesson

DATABASE = "app/database.py"
LAST = 7
"""The last lesson of the checkout. With more of them, a new one could hold a line that a test here changes."""
NEXT = LAST + 1
AFTER_04 = [f"{folder}/lesson_{number:02}" for number in range(5, LAST + 1) for folder in ("lessons", "solutions")]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory, copied: Callable[[Path], Path]) -> Path:
    checkout = copied(tmp_path_factory.mktemp("authoring") / "bookshop")
    for lesson in all_lessons():
        if lesson.number > LAST:
            git(checkout, "rm", "-rq", *(f"{folder}/{lesson.name}" for folder in ("lessons", "solutions", "checks")))
            git(checkout, "rm", "-q", f"notebooks/{lesson.name}.ipynb")
    git(checkout, "commit", "-q", "--amend", "-m", "shipped")
    return checkout


@pytest.fixture
def clean(checkout: Path) -> Path:
    """The checkout as it was committed."""
    first = git(checkout, "rev-list", "--max-parents=0", "HEAD").strip()
    git(checkout, "reset", "-q", "--hard", first)
    git(checkout, "clean", "-q", "-d", "--force")
    shutil.rmtree(checkout / ".workbook", ignore_errors=True)
    return checkout


def git(checkout: Path, *arguments: str) -> str:
    command = ["git", "-c", "user.name=x", "-c", "user.email=x@x", *arguments]
    return subprocess.run(command, cwd=checkout, check=True, capture_output=True, text=True).stdout


def dev(checkout: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    code = "import sys; sys.path.insert(0, '.'); from checks.kit.cli import main; main()"
    command = [sys.executable, "-c", code, "dev", *arguments]
    environ = os.environ | {"COLUMNS": "200", "NO_COLOR": "1"}
    return subprocess.run(command, cwd=checkout, capture_output=True, text=True, env=environ, timeout=170)


def change(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")


def prepend(path: Path, line: str) -> None:
    path.write_text(line + path.read_text(encoding="utf-8"), encoding="utf-8")


# carry


@pytest.mark.slow
def test_a_change_is_carried_into_every_later_lesson_solution_and_variant(clean: Path) -> None:
    change(clean / "solutions/lesson_04" / DATABASE, "async def open_engine", "# as of today\nasync def open_engine")
    assert dev(clean, "carry", "--check").returncode == 1
    done = dev(clean, "carry", "--from", "4", DATABASE)
    assert done.returncode == 0, done.stdout
    for later in AFTER_04:
        assert f"merged    {later}/{DATABASE}" in done.stdout
        assert "# as of today" in (clean / later / DATABASE).read_text(encoding="utf-8")
    assert "re-made   checks/lesson_04/variants/wrong_no_ping.patch" in done.stdout
    assert "# as of today" not in (clean / "lessons/lesson_04" / DATABASE).read_text(encoding="utf-8")
    assert dev(clean, "carry", "--check").stdout == "The chain holds, and every patch applies.\n"
    before = git(clean, "diff")
    again = dev(clean, "carry")
    assert again.returncode == 0
    assert "merged" not in again.stdout
    assert "re-made" not in again.stdout
    assert git(clean, "diff") == before


def test_a_new_file_is_carried_and_a_deleted_one_goes(clean: Path) -> None:
    (clean / "solutions/lesson_05/app/new.py").write_text("x = 1\n")
    (clean / "solutions/lesson_05/migrations/script.py.mako").unlink()
    assert dev(clean, "carry", "--from", "5").returncode == 0
    for folder in ("lessons/lesson_06", "solutions/lesson_06"):
        assert (clean / folder / "app/new.py").read_text() == "x = 1\n"
        assert not (clean / folder / "migrations/script.py.mako").exists()


# a line that no variant has in its patch: one that has would conflict as well
DOCSTRING, TWO, THREE, FOUR = (
    f'    """{text}.'
    for text in (
        "An engine that lives as long as the block, whose end closes every connection properly",
        "Two",
        "Three",
        "Four",
    )
)


@pytest.mark.slow
def test_a_conflict_is_resolved_once_and_never_in_the_tree(clean: Path) -> None:
    for folder in AFTER_04:
        change(clean / folder / DATABASE, DOCSTRING, THREE)
    git(clean, "commit", "-qam", "another time limit")
    change(clean / "solutions/lesson_04" / DATABASE, DOCSTRING, TWO)
    lines = (clean / "lessons/lesson_05" / DATABASE).read_text(encoding="utf-8").splitlines()
    where = f"conflicts in line {lines.index(THREE) + 1};"
    first = dev(clean, "carry", "--check").stdout
    for folder in ("lessons/lesson_05", "solutions/lesson_05"):
        assert f"✗ {folder}/{DATABASE}: the change of solutions/lesson_04/{DATABASE} {where}" in first
    assert not (clean / ".workbook/carry").exists()
    done = dev(clean, "carry", "--from", "4", DATABASE)
    assert done.returncode == 1
    assert f"conflict  solutions/lesson_05/{DATABASE}" in done.stdout
    for folder in ("lessons/lesson_05", "solutions/lesson_05"):
        markers = clean / ".workbook/carry" / folder / DATABASE
        line = markers.read_text(encoding="utf-8").splitlines().index("<<<<<<< here") + 1
        where = f"resolve .workbook/carry/{folder}/{DATABASE}:{line} and copy it to {folder}/{DATABASE}"
        assert where in done.stdout
        assert where in dev(clean, "carry", "--check").stdout
    assert f"then: workbook dev carry --from 5 {DATABASE}\n" in done.stdout
    assert "lesson_06" not in done.stdout
    assert "<<<<<<<" not in git(clean, "diff")
    assert git(clean, "diff", "--name-only", "--", "lessons", "solutions").split() == [
        f"solutions/lesson_04/{DATABASE}"
    ]
    for folder in ("lessons/lesson_05", "solutions/lesson_05"):
        markers = (clean / ".workbook/carry" / folder / DATABASE).read_text(encoding="utf-8")
        assert f"<<<<<<< here\n{THREE}\n" in markers
        change(clean / folder / DATABASE, THREE, FOUR)
    resolved = dev(clean, "carry", "--from", "5", DATABASE)
    assert resolved.returncode == 0, resolved.stdout
    assert FOUR in (clean / "solutions/lesson_06" / DATABASE).read_text(encoding="utf-8")
    again = dev(clean, "carry")  # what is resolved does not come up again, but what changes later does
    assert again.returncode == 0, again.stdout
    assert "conflict  lessons" not in again.stdout
    assert "conflict  solutions" not in again.stdout
    assert not (clean / ".workbook/carry/lessons/lesson_05" / DATABASE).exists()
    change(clean / "solutions/lesson_04" / DATABASE, "from collections", "# as of today\nfrom collections")
    later = dev(clean, "carry", DATABASE).stdout
    for folder in AFTER_04:
        assert f"merged    {folder}/{DATABASE}" in later


@pytest.mark.slow
def test_a_variant_that_conflicts_is_resolved_in_its_folder(clean: Path) -> None:
    name = "wrong_waits_thirty_seconds"
    patch = clean / f"checks/lesson_04/variants/{name}.patch"
    old = patch.read_bytes()
    change(clean / "solutions/lesson_04" / DATABASE, "pool_timeout=1,", "pool_timeout=2,")
    said = dev(clean, "carry").stdout
    assert f"conflict  checks/lesson_04/variants/{name}.patch" in said
    assert f"workbook dev variant save {name} --lesson 4" in said
    assert patch.read_bytes() == old
    edited = clean / f".workbook/variants/lesson_04/{name}" / DATABASE
    refused = dev(clean, "variant", "save", name, "--lesson", "4")
    assert "holds conflict markers" in refused.stderr
    lines = edited.read_text(encoding="utf-8").splitlines(keepends=True)
    start, end = (next(n for n, line in enumerate(lines) if line.startswith(mark)) for mark in ("<<<<<<<", ">>>>>>>"))
    edited.write_text("".join(lines[:start] + lines[end + 1 :]), encoding="utf-8")
    assert "resolve" in dev(clean, "carry").stdout  # what was resolved already is not written over
    assert "<<<<<<<" not in edited.read_text(encoding="utf-8")
    saved = dev(clean, "variant", "save", name, "--lesson", "4")
    assert saved.returncode == 0, saved.stderr
    assert patch.read_bytes().startswith(old.partition(b"\n\n")[0])
    assert b"-        pool_timeout=2,\n" in patch.read_bytes()


@pytest.mark.slow
def test_a_conflict_waits_until_it_is_resolved(clean: Path) -> None:
    for folder in ("lessons/lesson_06", "solutions/lesson_06"):
        prepend(clean / folder / "app/stock.py", "# here\n")
    git(clean, "commit", "-qam", "here")
    prepend(clean / "solutions/lesson_05/app/stock.py", "# there\n")
    command = ("carry", "--from", "5", "app/stock.py")
    assert dev(clean, *command).returncode == 1
    markers = clean / ".workbook/carry/lessons/lesson_06/app/stock.py"
    prepend(markers, "# half done\n")
    half = markers.read_text(encoding="utf-8")
    again = dev(clean, *command)
    assert again.returncode == 1
    assert "resolve .workbook/carry/lessons/lesson_06/app/stock.py:2 and copy it" in again.stdout
    assert markers.read_text(encoding="utf-8") == half
    git(clean, "commit", "-qam", "there")
    for check in ((), ("--check",)):
        assert "lessons/lesson_06/app/stock.py:2 and copy it" in dev(clean, "carry", *check).stdout
    markers.unlink()  # the lesson is right as it is
    prepend(clean / "solutions/lesson_06/app/stock.py", "# both\n")
    for check in ((), ("--check",)):
        assert "app/stock.py:2" not in dev(clean, "carry", *check).stdout


def test_what_is_left_to_carry_is_checked(clean: Path) -> None:
    prepend(clean / "solutions/lesson_05/app/stock.py", "# there\n")
    said = dev(clean, "carry", "--check").stdout
    assert said.count("✗ lessons/lesson_06/app/stock.py") == 1
    assert "solutions/lesson_06/app/stock.py: a change is to be brought here: workbook dev carry\n" in said
    assert "# there" not in (clean / "lessons/lesson_06/app/stock.py").read_text(encoding="utf-8")


NAME = "wrong_autocommit"
PATCHED = "solutions/lesson_01/app/database.py"


def test_a_variant_of_a_new_lesson_is_carried_from_its_folder(clean: Path) -> None:
    git(clean, "rm", "-rq", "--cached", "solutions/lesson_01")
    git(clean, "commit", "-qm", "lesson 1 is not committed yet")
    assert dev(clean, "carry", "--check").stdout == "The chain holds, and every patch applies.\n"
    dev(clean, "variant", "open", NAME, "--lesson", "1")
    prepend(clean / PATCHED, "# as of today\n")
    patch = f"checks/lesson_01/variants/{NAME}.patch"
    carried = dev(clean, "carry", "--from", "1", DATABASE).stdout.splitlines()
    assert f"re-made   {patch}" in carried
    lost = next(n for n, line in enumerate(carried) if line.startswith("conflict  checks/lesson_01"))
    advice = carried[lost + 1]
    assert "solutions/lesson_01 is not in commit" in advice
    assert "Edit the patch by hand; or delete it, and make it again with: workbook dev variant new" in advice
    assert "workbook dev carry" not in advice
    opened = dev(clean, "variant", "open", NAME, "--lesson", "1")  # nobody edited its folder
    assert opened.returncode == 0, opened.stderr
    folder = clean / f".workbook/variants/lesson_01/{NAME}"
    assert (folder / "app/database.py").read_text(encoding="utf-8").startswith("# as of today")


def test_carry_keeps_what_was_not_saved(clean: Path) -> None:
    name = "wrong_waits_thirty_seconds"
    dev(clean, "variant", "open", name, "--lesson", "4")
    edited = clean / f".workbook/variants/lesson_04/{name}/app/main.py"
    prepend(edited, "# mine\n")
    change(clean / "solutions/lesson_04" / DATABASE, "pool_timeout=1,", "pool_timeout=2,")
    said = dev(clean, "carry", "--from", "4").stdout
    assert f"{name} holds edits that are not saved, and stays as it is. Save them first: workbook dev variant" in said
    assert edited.read_text(encoding="utf-8").startswith("# mine")
    saved = dev(clean, "variant", "save", name, "--lesson", "4")
    assert f"{name}/{DATABASE}:" in saved.stderr  # the conflict, brought into what was edited
    assert edited.read_text(encoding="utf-8").startswith("# mine")


def test_a_patch_of_a_file_that_is_gone_is_not_carried(clean: Path) -> None:
    (clean / PATCHED).rename(clean / "solutions/lesson_01/app/elsewhere.py")
    git(clean, "add", "-A")
    git(clean, "commit", "-qm", "moved")
    (said,) = (line for line in dev(clean, "carry", "--check").stdout.splitlines() if f"{NAME}.patch" in line)
    assert "the base has no file app/database.py" in said
    assert "make it again" in said
    assert "workbook dev carry" not in said


@pytest.mark.slow
def test_what_cannot_be_carried_is_said_in_one_sentence(clean: Path) -> None:
    assert "There is no lesson 77 to carry from." in dev(clean, "carry", "--from", "77").stderr
    assert "README.md belongs to one lesson" in dev(clean, "carry", "--from", "1", "README.md").stderr
    unknown = dev(clean, "carry", "--base", "nonsense")
    assert unknown.returncode == 1
    assert "Traceback" not in unknown.stderr
    assert dev(clean, "carry").stdout == "Nothing changed since HEAD that a later lesson has.\n"


def test_a_forgotten_file_breaks_the_chain(clean: Path) -> None:
    change(clean / "lessons/lesson_03/app/books.py", "from fastapi", "# mine\nfrom fastapi")
    manifest = clean / "lessons/lesson_03/lesson.toml"
    change(manifest, '"app/main.py", ', '"app/main.py", "app/orders.py", ')
    said = dev(clean, "carry", "--check").stdout
    assert "lessons/lesson_03/app/books.py is not as in solutions/lesson_02" in said
    assert "list it in lessons/lesson_03/lesson.toml under `changed`" in said
    assert "solutions/lesson_03/app/books.py is not as in lessons/lesson_03" in said
    assert "`changed` lists app/orders.py, which is as in solutions/lesson_02" in said


def test_the_chain_says_what_is_new_and_what_is_nowhere(clean: Path) -> None:
    (clean / "lessons/lesson_03/app/new.py").write_text("x = 1\n")
    (clean / "solutions/lesson_03/app/other.py").write_text("x = 1\n")
    manifest = clean / "lessons/lesson_03/lesson.toml"
    change(manifest, '"app/main.py", ', '"app/main.py", "app/nowhere.py", ')
    change(manifest, "edit = [", 'edit = ["app/nowhere.py", ')
    said = dev(clean, "carry", "--check").stdout
    toml = "lessons/lesson_03/lesson.toml"
    assert f"lessons/lesson_03/app/new.py is not in solutions/lesson_02: list it in {toml} under `changed`\n" in said
    assert f"solutions/lesson_03/app/other.py is not in lessons/lesson_03: list it in {toml} under `edit`\n" in said
    assert f"{toml}: `changed` lists app/nowhere.py, which does not exist; remove it there\n" in said
    assert f"{toml}: `edit` lists app/nowhere.py, which does not exist; remove it there\n" in said


@pytest.mark.parametrize(
    ("base", "ours", "theirs", "result"),
    [
        (b"a\n", b"a\n", b"b\n", Merged(b"b\n")),
        (b"a\n", b"c\n", b"a\n", Merged(b"c\n")),
        (b"a\n", b"b\n", b"b\n", Merged(b"b\n")),
        (b"a\nx\ny\nz\n", b"a\nx\ny\nc\n", b"b\nx\ny\nz\n", Merged(b"b\nx\ny\nc\n")),
        (None, None, b"new\n", Merged(b"new\n")),
        (b"a\n", b"a\n", None, Merged(None)),
        (b"a\n", None, b"a\n", Merged(None)),
    ],
)
def test_a_merge_takes_the_change_of_the_side_that_has_one(
    base: bytes | None, ours: bytes | None, theirs: bytes | None, result: Merged
) -> None:
    assert merge(base, ours, theirs) == result


def test_both_sides_changed_is_a_conflict_also_where_one_deleted() -> None:
    assert merge(b"a\n", b"b\n", b"c\n").conflict
    assert merge(b"a\n", None, b"c\n").conflict
    assert merge(b"a\n", b"b\n", None).conflict


# variant


@pytest.mark.slow
def test_a_variant_is_written_saved_and_opened_again(clean: Path) -> None:
    about = ("--lesson", "1", "--about", "books cost nothing", "--fails", "test_a_created_book_can_be_read")
    made = dev(clean, "variant", "new", "wrong_free_books", *about)
    assert made.returncode == 0, made.stderr
    folder = clean / ".workbook/variants/lesson_01/wrong_free_books"
    assert made.stdout.splitlines()[0] == str(folder)
    refused = dev(clean, "variant", "save", "wrong_free_books", "--lesson", "1")
    assert "is as solution. Change something first" in refused.stderr
    assert "is being edited in" in dev(clean, "variant", "new", "wrong_free_books", *about).stderr
    change(folder / "app/schemas.py", "price_cents: PositiveInt", "price_cents: int")
    assert "+    price_cents: int" in dev(clean, "variant", "diff", "wrong_free_books", "--lesson", "1").stdout
    saved = dev(clean, "variant", "save", "wrong_free_books", "--lesson", "1")
    assert "Verify it: workbook dev verify 1 --only wrong_free_books" in saved.stdout
    patch = clean / "checks/lesson_01/variants/wrong_free_books.patch"
    assert patch.read_text().startswith(
        "about: books cost nothing\non: solution\nfails: test_a_created_book_can_be_read\n\n--- a/app/schemas.py\n"
    )
    shutil.rmtree(clean / ".workbook")
    assert dev(clean, "variant", "open", "wrong_free_books", "--lesson", "1").returncode == 0
    assert "price_cents: int" in (folder / "app/schemas.py").read_text(encoding="utf-8")
    assert (
        "There is a variant wrong_free_books already" in dev(clean, "variant", "new", "wrong_free_books", *about).stderr
    )


def test_the_copy_of_a_base_is_no_variant(clean: Path) -> None:
    dev(clean, "variant", "open", NAME, "--lesson", "1")
    refused = dev(clean, "variant", "save", f"{NAME}.base", "--lesson", "1")
    assert f"Lesson 1 has no variant '{NAME}.base'. Variants: right_" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_all_that_is_edited_is_saved(clean: Path) -> None:
    folder = clean / ".workbook/variants/lesson_01"
    for name in (NAME, "right_middleware", "right_psycopg"):
        dev(clean, "variant", "open", name, "--lesson", "1")
    prepend(folder / NAME / "app/main.py", "# mine\n")
    prepend(folder / "right_middleware/app/main.py", "<<<<<<< here\n")
    saved = dev(clean, "variant", "save", "--all", "--lesson", "1")
    assert saved.stdout.startswith(f"Saved as checks/lesson_01/variants/{NAME}.patch.")
    assert "right_psycopg" not in saved.stdout
    assert "right_middleware/app/main.py:1 holds conflict markers" in saved.stderr
    assert saved.returncode == 1
    assert dev(clean, "variant", "save", "--lesson", "1").returncode == 2


def test_a_base_that_changes_while_a_variant_is_open_changes_with_it(clean: Path) -> None:
    dev(clean, "variant", "open", "wrong_autocommit", "--lesson", "1")
    change(clean / "solutions/lesson_01/app/books.py", "from fastapi", "# later\nfrom fastapi")
    saved = dev(clean, "variant", "save", "wrong_autocommit", "--lesson", "1")
    assert saved.returncode == 0, saved.stderr
    assert git(clean, "status", "--short", "--", "checks") == ""  # the change is the base's, not the variant's


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["new", "nicer", "--lesson", "1", "--about", "x"], "a variant is called right_... or wrong_..."),
        (["new", "wrong_x", "--lesson", "1", "--about", "x"], "names with --fails each check that fails"),
        (
            ["new", "right_x", "--lesson", "1", "--about", "x", "--on", "nothing"],
            "neither lesson, solution nor another",
        ),
        (["open", "wrong_x", "--lesson", "1"], "Lesson 1 has no variant 'wrong_x'"),
        (["save", "nonesuch", "--lesson", "1"], "Lesson 1 has no variant 'nonesuch'. Variants: right_"),
        (["diff", "wrong_autocommit.base", "--lesson", "1"], "Lesson 1 has no variant 'wrong_autocommit.base'"),
        (["save", "wrong_autocommit", "--lesson", "1"], "workbook dev variant open wrong_autocommit --lesson 1"),
    ],
)
def test_a_mistake_with_variants_gets_one_sentence(clean: Path, arguments: list[str], message: str) -> None:
    refused = dev(clean, "variant", *arguments)
    assert refused.returncode == 1
    assert message in refused.stderr
    assert "Traceback" not in refused.stderr


# verify


def test_an_unfinished_lesson_gets_a_list_of_what_is_to_do(clean: Path) -> None:
    for folder in ("lessons", "checks"):
        (clean / folder / f"lesson_{NEXT:02}").mkdir()
    manifest = clean / f"lessons/lesson_{NEXT:02}/lesson.toml"
    manifest.write_text('title = "Jobs"\n[[check]]\nname = "test_a"\nunsolved = "fails"\n')
    (clean / f"checks/lesson_{NEXT:02}/test_jobs.py").write_text(
        'async def test_a(app):\n    """It works."""\n\n\nasync def test_b(app):\n    expect(True, section="Jobs")\n'
    )
    done = dev(clean, "verify", str(NEXT), "--paper")
    assert done.returncode == 1
    for line in (
        f"lessons/lesson_{NEXT:02}/README.md: write the ticket",
        f"lessons/lesson_{NEXT:02}/lesson.toml: minutes = ",
        f"lessons/lesson_{NEXT:02}/lesson.toml: edit = [",
        f'lessons/lesson_{NEXT:02}/lesson.toml: a [[check]] with name = "test_b"',
        f'lessons/lesson_{NEXT:02}/lesson.toml: [[check]] test_a: fault = "..."',
        f"checks/lesson_{NEXT:02}/hints.toml: test_a = [",
        f"solutions/lesson_{NEXT:02}: copy lessons/lesson_{NEXT:02} there and fix it",
        f"notebooks/lesson_{NEXT:02}.ipynb: write the notebook",
        f"checks/lesson_{NEXT:02}/variants: 0 right_* of at least 3",
        f"checks/lesson_{NEXT:02}/variants: 0 wrong_* of at least 5",
        f"workbook dev variant new wrong_... --lesson {NEXT}",
        f"is not as in solutions/lesson_{NEXT - 1:02}",
    ):
        assert line in done.stdout, line
    assert "git checkout" not in done.stdout + done.stderr
    graded = dev(clean, "verify", str(NEXT))
    assert graded.returncode == 1
    assert "Traceback" not in graded.stderr
    assert "0 apps" not in graded.stdout


def test_the_map_and_pytest_call_an_unfinished_lesson_so(clean: Path) -> None:
    for folder in ("lessons", "checks"):
        shutil.copytree(clean / folder / "lesson_00", clean / folder / f"lesson_{NEXT:02}")
    (clean / f"checks/lesson_{NEXT:02}/hints.toml").unlink()
    change(clean / f"lessons/lesson_{NEXT:02}/lesson.toml", "number = 0", f"number = {NEXT}")
    code = "import sys; sys.path.insert(0, '.'); from checks.kit.cli import main; main()"
    shown = subprocess.run([sys.executable, "-c", code], cwd=clean, capture_output=True, text=True).stdout
    assert f"{NEXT:02}  Start here                   unfinished: workbook dev verify {NEXT}" in shown
    command = [sys.executable, "-m", "pytest", f"checks/lesson_{NEXT:02}", "-k", "starts_and_answers"]
    graded = subprocess.run(command, cwd=clean, capture_output=True, text=True, timeout=170).stdout
    assert f"lesson {NEXT:02} · Start here · unfinished: workbook dev verify {NEXT}" in graded


def test_git_is_only_advised_for_what_it_knows(clean: Path) -> None:
    shutil.rmtree(clean / "lessons/lesson_03")
    code = "import sys; sys.path.insert(0, '.'); from checks.kit.cli import main; main()"
    for number, advice in (("3", True), ("77", False)):
        done = subprocess.run([sys.executable, "-c", code, "hint", number], cwd=clean, capture_output=True, text=True)
        assert (f"git checkout -- lessons/lesson_0{number}/lesson.toml" in done.stderr) == advice
        assert f"There is no lesson {number}." in done.stderr


def test_a_check_without_hints_leads_to_what_was_changed(clean: Path) -> None:
    hints = clean / "checks/lesson_01/hints.toml"
    name, bare = [check.name for check in find_lesson(1).checks][:2]
    hints.write_text(f'{name} = ["Look.", "It waits.", "Await it."]\n')
    code = "import sys; sys.path.insert(0, '.'); from checks.kit.cli import main; main()"
    command = [sys.executable, "-c", code, "hint", "1", bare]
    done = subprocess.run(command, cwd=clean, capture_output=True, text=True)
    assert f"{bare} has no hints" in done.stderr
    assert "workbook diff 1 --mine" in done.stderr


def test_a_section_that_is_to_do_breaks_no_promise(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    lesson = find_lesson(0)
    monkeypatch.setattr("checks.kit.authoring.verify.headings", lambda lesson: set())
    (entry,) = lesson.checks[:1]
    others = [{"name": other.name, "outcome": "passed", "finding": None} for other in lesson.checks[1:]]
    for section, wrong in ((sections(lesson)[0], []), ("Nowhere", ["a verdict sends the reader to “Nowhere”"])):
        result = {"name": entry.name, "outcome": "failed", "finding": {"section": section}}
        found = judge(Case(lesson, "wrong_x", tmp_path, frozenset({entry.name})), [result, *others])
        assert [text.partition(", no heading")[0] for text in found] == wrong


def test_quick_asks_of_a_wrong_variant_only_that_it_fails(tmp_path: Path) -> None:
    lesson = find_lesson(0)
    (entry,) = lesson.checks[:1]
    failed, passed = ({"name": entry.name, "outcome": outcome, "finding": None} for outcome in ("failed", "passed"))
    wrong = Case(lesson, "wrong_x", tmp_path, frozenset({entry.name}))
    assert judge(wrong, [failed], quick=True) == []
    assert judge(wrong, [passed], quick=True) == [f"{entry.name} must fail, but passed"]
    assert len(judge(wrong, [failed])) == len(lesson.checks) - 1, "the other checks were not run"
    right = Case(lesson, "right_x", tmp_path, frozenset())
    assert len(judge(right, [passed], quick=True)) == len(lesson.checks) - 1


@pytest.mark.parametrize("command", [[], ["variant"]])
def test_help_describes_each_command_in_a_line(clean: Path, command: list[str]) -> None:
    commands = dev(clean, *command, "--help").stdout.partition("Commands:")[2]
    assert commands
    assert "..." not in commands


def labels(*paths: str) -> dict[int, set[str] | None] | str:
    """What a change of these paths affects; `everything` in a word."""
    found = by_paths(all_lessons(), list(paths), "today")
    return "everything" if found.everything else found.labels


def test_a_change_affects_what_is_made_of_it() -> None:
    assert labels("checks/kit/wire/tap.py") == "everything"
    assert labels("checks/kit/testbed/shop.py", "README.md") == "everything"
    assert labels("pyproject.toml") == "everything"
    assert (
        labels(
            "checks/kit/cli/main.py",
            "checks/kit/view/board.py",
            "checks/kit/authoring/carry.py",
            "checks/self_test/conftest.py",
        )
        == {}
    )
    assert labels("lessons/lesson_01/README.md", "checks/lesson_01/hints.toml", "notebooks/lesson_01.ipynb") == {}
    assert labels("checks/lesson_04/test_pool.py") == {4: None}
    assert labels("lessons/lesson_04/lesson.toml", "checks/lesson_04/variants/wrong_no_ping.patch") == {4: None}
    assert labels("checks/lesson_04/variants/wrong_no_ping.patch") == {4: {"wrong_no_ping"}}
    assert labels("checks/lesson_04/variants/gone.patch") == {}
    made_of_it = labels("lessons/lesson_02/app/main.py")
    assert isinstance(made_of_it, dict)
    assert {"as handed out", "wrong_only_expire_on_commit_false"} <= made_of_it[2]
    assert not {"solution", "right_returning"} & made_of_it[2]
    assert labels("checks/lesson_01/variants/wrong_order_committed_first.patch") == {
        1: {
            *("wrong_order_committed_first", "wrong_gives_up_halfway"),
            *("wrong_order_taken_back", "wrong_order_taken_back_with_500"),
        }
    }
    solution = labels("solutions/lesson_02/app/main.py")
    assert isinstance(solution, dict)
    assert {"solution", "right_returning"} <= solution[2]
    assert "as handed out" not in solution[2]


@pytest.mark.slow
def test_verify_says_what_it_runs_and_why(clean: Path) -> None:
    nothing = dev(clean, "verify")
    assert nothing.returncode == 0, nothing.stdout
    assert "Runs nothing, because no lesson and nothing that grades it changed since the last commit" in nothing.stdout
    misspelled = dev(clean, "verify", "0", "--only", "wrong_no_contents")
    assert misspelled.returncode == 1
    assert "Nothing ran: no app has 'wrong_no_contents' in its name" in misspelled.stdout
    change(clean / "checks/lesson_00/variants/wrong_no_content.patch", "about: ", "about: really, ")
    (clean / "checks/kit/cli/scratch.py").write_text("")
    one = dev(clean, "verify")
    assert "Runs lesson 0 (wrong_no_content), because that changed since the last commit" in one.stdout
    assert "1/1  lesson_00  wrong_no_content" in one.stdout
    assert one.returncode == 0, one.stdout
    change(clean / "checks/lesson_00/variants/wrong_no_content.patch", "test_it_starts", "test_nobody_starts")
    wrong = dev(clean, "verify", "0", "--paper")
    assert "wrong_no_content.patch: test_nobody_starts_and_answers is not a check of this lesson" in wrong.stdout


def test_the_longest_cases_begin_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("checks.kit.authoring.durations.FILE", tmp_path / "x" / "verify.json")
    start, pooling = find_lesson(0), find_lesson(4)
    short, long, new = (Case(start, label, tmp_path, frozenset()) for label in ("short", "long", "new"))
    other = Case(pooling, "other", tmp_path, frozenset())
    durations = Durations()
    for case, seconds in ((short, 1.0), (long, 5.0), (other, 9.0)):
        durations.keep(case, seconds)
    durations.save()
    again = Durations()
    assert again.longest_first([short, new, long, other]) == [other, long, new, short]
    assert again.expected(new) == 3.0  # as others of its lesson
    assert again.expected(Case(find_lesson(1), "x", tmp_path, frozenset())) == 5.0  # as all others


# matrix


def test_the_matrix_names_a_check_that_nothing_fails(clean: Path) -> None:
    whole = dev(clean, "matrix", "1")
    assert whole.returncode == 0, whole.stdout
    check, failed_by = re.findall(r"^(test_a_good_order_is_stored): (.+)$", whole.stdout, re.MULTILINE)[0]
    assert "wrong_book_of_another_session" in failed_by
    for name in failed_by.split(", "):
        (clean / f"checks/lesson_01/variants/{name}.patch").unlink()
    lacking = dev(clean, "matrix", "1")
    assert lacking.returncode == 1
    assert f"{check}: failed by nothing" in lacking.stdout
    assert f"--fails {check}" in lacking.stdout


@pytest.mark.parametrize("lesson", all_lessons(), ids=lambda lesson: lesson.name)
def test_every_check_is_failed_by_an_app(lesson) -> None:
    from checks.kit.authoring.matrix import declared

    assert [name for name, failed_by in declared(lesson).items() if not failed_by] == []
