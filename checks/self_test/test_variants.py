"""Variants are patches: what a patch can hold, and that it applies exactly or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from checks.kit.lessons.errors import WorkbookError
from checks.kit.lessons.lesson import Lesson, all_lessons
from checks.kit.lessons.patches import PatchError, Tree, apply, make, read_tree
from checks.kit.lessons.variants import base_tree, find_variant, materialize, read_variant, variants

LINES = "".join(f"line {number}\n" for number in range(1, 21)).encode()


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"a.py": LINES}, {"a.py": LINES.replace(b"line 9\n", b"another\n")}),
        ({"a.py": LINES}, {"a.py": b"first\n" + LINES.replace(b"line 9\n", b"") + b"last\n"}),
        ({"a.py": LINES}, {"a.py": LINES, "new/b.py": LINES}),
        ({"a.py": LINES, "b.py": LINES}, {"a.py": LINES}),
        ({"a.py": b"x"}, {"a.py": b"x\n"}),
        ({"a.py": b"x\n"}, {"a.py": b"x"}),
        ({"a.py": b"x\ny"}, {"a.py": b"z\ny"}),
        ({"a.py": b"x\ny"}, {"a.py": b"x\ny\nz"}),
        ({"a.py": b"x\r\ny\r\n"}, {"a.py": b"x\r\nz\r\n"}),
        ({"a.py": b"x\r\n"}, {"a.py": b"x\n"}),
        ({"a.py": b"x\x0cy\rz\n"}, {"a.py": b"x\x0cy\rZ\n"}),
        ({"a.py": b""}, {"a.py": b"x\n"}),
        ({"a.py": b"x\n"}, {"a.py": b""}),
        ({}, {"a/__init__.py": b""}),
        ({"a/__init__.py": b""}, {}),
        ({"a.sql": b"-- x\n"}, {"a.sql": b"++ y\n"}),
        ({"a.py": "Łucja\n".encode()}, {"a.py": "Ítalo\n".encode()}),
    ],
    ids=[
        "one line",
        "several places",
        "a new file",
        "a deleted file",
        "newline added at the end",
        "newline taken from the end",
        "no newline at the end, elsewhere",
        "no newline at the end, before and after",
        "CRLF",
        "CRLF to LF",
        "other characters that end a line",
        "an empty file filled",
        "a file emptied",
        "a new empty file",
        "a deleted empty file",
        "lines that look like a header",
        "not ASCII",
    ],
)
def test_a_patch_makes_one_tree_from_the_other(before: Tree, after: Tree) -> None:
    assert apply(make(before, after), before, "x.patch") == after


def test_equal_trees_make_an_empty_patch() -> None:
    assert make({"a.py": LINES}, {"a.py": LINES}) == b""
    assert apply(b"", {"a.py": LINES}, "x.patch") == {"a.py": LINES}


HEAD = b"--- a/a.py\n+++ b/a.py\n"
PATCH = make({"a.py": LINES}, {"a.py": LINES.replace(b"line 9\n", b"another\n")})


@pytest.mark.parametrize(
    ("base", "message"),
    [
        (b"a line more\n" + LINES, "x.patch:14: line 6 of a.py is 'line 5\\n', not 'line 6\\n'."),
        (LINES.replace(b"line 7\n", b"line VII\n"), "x.patch:15: line 7 of a.py is 'line VII\\n', not 'line 7\\n'."),
        (LINES.replace(b"line 9\n", b"line IX\n"), "x.patch:17: line 9 of a.py is 'line IX\\n', not 'line 9\\n'."),
        (LINES[:70], "x.patch:19: line 10 of a.py is 'line 10', not 'line 10\\n'."),
        (LINES[:14], "x.patch:13: this hunk cannot be at line 6 of a.py."),
        (LINES.replace(b"\n", b"\r\n"), "x.patch:14: line 6 of a.py is 'line 6\\r\\n', not 'line 6\\n'."),
    ],
    ids=["offset", "other context", "already changed", "file too short", "hunk past the end", "other line ends"],
)
def test_a_patch_that_does_not_fit_exactly_is_refused(base: bytes, message: str) -> None:
    with pytest.raises(PatchError) as refused:
        apply(PATCH, {"a.py": base}, "x.patch", 11)
    assert str(refused.value) == message


@pytest.mark.parametrize(
    ("patch", "message"),
    [
        (b"--- a/a.py\n", "x.patch:2: expected +++ b/FILE or +++ /dev/null, not ''."),
        (b"--- a/../a.py\n", "x.patch:1: expected --- a/FILE or --- /dev/null, not '--- a/../a.py'."),
        (b"--- a//etc/passwd\n", "x.patch:1: expected --- a/FILE or --- /dev/null, not '--- a//etc/passwd'."),
        (b"--- a/a.py\n+++ b/b.py\n", "x.patch:3: a patch changes, adds or deletes a file; it does not rename one."),
        (b"--- a/b.py\n+++ b/b.py\n", "x.patch:3: the base has no file b.py."),
        (b"--- /dev/null\n+++ b/a.py\n", "x.patch:3: the base already has a file a.py."),
        (b"--- a/a.py\n+++ /dev/null\n", "x.patch:3: a.py is to be deleted, but the patch leaves lines of it."),
        (HEAD + b"@@ -1,2 +1 @@\n-line 1\n", "x.patch:5: this hunk has fewer lines than its @@ line says."),
        (HEAD + b"@@ -1 +1 @@\n-line 1\n-line 2\n", "x.patch:5: this hunk has more lines than its @@ line says."),
        (HEAD + b"@@ -1 +2 @@\n-line 1\n+x\n", "x.patch:3: this hunk cannot be at line 1 of a.py."),
        (PATCH + b"\n", "x.patch:12: expected --- a/FILE or --- /dev/null, not ''."),
    ],
)  # fmt: skip
def test_a_malformed_patch_is_refused_with_its_line(patch: bytes, message: str) -> None:
    with pytest.raises(PatchError) as refused:
        apply(patch, {"a.py": LINES}, "x.patch")
    assert str(refused.value) == message


def test_an_editor_may_strip_the_blank_of_an_empty_line() -> None:
    before, after = {"a.py": b"x\n\ny\n"}, {"a.py": b"x\n\nz\n"}
    assert apply(make(before, after).replace(b"\n \n", b"\n\n"), before, "x.patch") == after


def test_binary_files_are_refused() -> None:
    for content in (b"\xff\xfe", b"a\0b"):
        with pytest.raises(PatchError, match=r"logo.png is not a text file in UTF-8"):
            make({}, {"logo.png": content})


@pytest.fixture
def lesson(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lesson:
    """A lesson whose folders are empty apart from one file."""
    monkeypatch.setattr("checks.kit.lessons.lesson.ROOT", tmp_path)
    lesson = Lesson(7, "Jobs", 30, ("a.py",), ())
    for folder in (lesson.folder, lesson.solution, lesson.checks_folder / "variants"):
        folder.mkdir(parents=True)
    (lesson.solution / "a.py").write_bytes(LINES)
    return lesson


def write(lesson: Lesson, name: str, text: str) -> None:
    (lesson.checks_folder / "variants" / f"{name}.patch").write_text(text)


def test_a_variant_may_lie_on_another_one(lesson: Lesson, tmp_path: Path) -> None:
    write(lesson, "right_x", f"about: x\non: solution\n\n{PATCH.decode()}")
    second = make({"a.py": LINES.replace(b"line 9\n", b"another\n")}, {"a.py": b"gone\n"})
    write(lesson, "wrong_y", f"about: y: on top\non: right_x\nfails: test_a,\n  test_b\n\n{second.decode()}")
    variant = find_variant(lesson, "wrong_y")
    assert variant.about == "y: on top"
    assert variant.fails == {"test_a", "test_b"}
    assert read_tree(materialize(variant, tmp_path)) == {"a.py": b"gone\n"}


@pytest.mark.parametrize(
    "head",
    [
        "on: solution\n",
        "about: x\non: solution\nfails: test_a\n",
        "about: x\non: solution\nfalls: test_a\n",
        "about: x\nabout: y\non: solution\n",
        "about x\non: solution\n",
    ],
)
def test_a_wrong_head_is_an_error_that_names_the_file(lesson: Lesson, head: str) -> None:
    write(lesson, "right_x", f"{head}\n{PATCH.decode()}")
    with pytest.raises(PatchError, match=r"right_x\.patch:\d: "):
        read_variant(lesson, "right_x")


def test_variants_on_each_other_and_on_nothing_are_errors(lesson: Lesson) -> None:
    write(lesson, "right_x", "about: x\non: right_y\n\n")
    write(lesson, "right_y", "about: y\non: right_x\n\n")
    write(lesson, "right_z", "about: z\non: nothing\n\n")
    for name in ("right_x", "right_z"):
        with pytest.raises(PatchError, match="is neither lesson, solution nor another variant"):
            base_tree(find_variant(lesson, name))
    with pytest.raises(WorkbookError, match=r"no variant 'right_a'. Variants: right_x, right_y, right_z"):
        find_variant(lesson, "right_a")


def test_a_changed_base_says_how_to_repair_the_patch(lesson: Lesson, tmp_path: Path) -> None:
    write(lesson, "right_x", f"about: x\non: solution\n\n{PATCH.decode()}")
    (lesson.solution / "a.py").write_bytes(b"a line more\n" + LINES)
    with pytest.raises(PatchError, match=r"right_x\.patch:7: line 6 of a\.py .*: workbook dev carry"):
        materialize(find_variant(lesson, "right_x"), tmp_path)


def test_every_variant_is_written_as_it_is_read() -> None:
    for lesson in all_lessons():
        for variant in variants(lesson):
            assert variant.text() == variant.path.read_bytes()


def test_what_tools_remember_is_no_part_of_a_lesson(tmp_path: Path) -> None:
    for name in (".mypy_cache/3.11/cache.db", "app/__pycache__/main.pyc", "app/.ruff_cache/x", ".dockerignore"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"\0")
    assert list(read_tree(tmp_path)) == [".dockerignore"]
