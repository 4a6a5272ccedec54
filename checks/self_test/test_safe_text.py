"""Text that others wrote cannot command a terminal, reverse a line or fill a screen."""

from __future__ import annotations

import pytest

from checks.kit.lessons.paths import ROOT, display_path
from checks.kit.report.safe_text import (
    display_line,
    display_name,
    display_text,
    escape_controls,
    replace_controls,
    truncate,
)


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("\x1b[2J\x1b]0;owned\x07", "␛[2J␛]0;owned␇"),
        ("two\nlines\tand\r\na third\r", "two\nlines\tand\na third␍"),
        ("\x7f\x9b31m", "��31m"),
        ("\u202egnp.exe\u2066", "�gnp.exe�"),
        ("half \ud800 and none \ufeff\uffff", "half � and none ��"),
        ("Zoë ☃ من <b>&amp;", "Zoë ☃ من <b>&amp;"),
    ],
)
def test_control_characters_are_shown_and_obeyed_by_nothing(text: str, safe: str) -> None:
    assert escape_controls(text) == safe
    assert escape_controls(safe) == safe
    safe.encode()


def test_a_name_is_on_one_line_and_says_whether_it_was_changed() -> None:
    assert replace_controls("a\nb\tc\r\x1b\x9b\udce9") == "a�b�c����"
    assert replace_controls("Zoë ☃ من") == "Zoë ☃ من"


def test_a_long_text_is_cut_and_says_by_how_much() -> None:
    assert truncate("x" * 10, 10) == "x" * 10
    assert truncate("x" * 12, 10) == "xxxxxxxxxx… (2 more characters)"
    assert display_text("\x1b" * 12, 3) == "␛␛␛… (9 more characters)"


def test_a_line_has_no_more_than_its_width() -> None:
    assert display_line("short\n\n  text", 20) == "short text"
    assert display_line("one two three four", 10) == "one two…"
    assert display_line("x" * 1_000_000, 10) == "xxxxxxxxx…"
    assert all(len(display_line("ab \x1b\n" * 1000, width)) <= width for width in range(2, 40))


def test_a_long_path_keeps_its_beginning_and_its_end() -> None:
    assert display_name("a/b\n.py") == "a/b�.py"
    assert display_name("a" * 60 + "/" * 500 + "b" * 60) == "a" * 60 + "…" + "b" * 60


def test_a_path_in_the_checkout_is_relative_to_it() -> None:
    assert display_path(ROOT / "lessons" / "lesson_00") == "lessons/lesson_00"
    assert display_path(ROOT.parent / "elsewhere") == str(ROOT.parent / "elsewhere")
    assert display_path(ROOT / "lessons" / "lesson_00", ROOT / "lessons") == "lesson_00"
    assert display_path(ROOT, ROOT) == str(ROOT)
