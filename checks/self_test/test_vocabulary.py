"""The page of words that checks are made of is the one that the docstrings say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from checks.kit.authoring import vocabulary
from checks.kit.authoring.vocabulary import Examples
from checks.kit.testbed.fixtures import FIXTURES


@pytest.fixture(scope="module")
def page() -> str:
    return vocabulary.page()


def test_the_committed_page_is_up_to_date(page: str) -> None:
    committed = vocabulary.PAGE.read_text(encoding="utf-8")
    assert committed == page, "Write it again: uv run workbook dev vocabulary --write"


@pytest.mark.parametrize("word", [*FIXTURES, "expect", "serial", "start_early", "needs"])
def test_every_fixture_and_mark_is_described(word: str, page: str) -> None:
    [description] = re.findall(rf"^- `{word}(?:\(.*\))?`: (.+)$", page, re.MULTILINE)
    assert len(description) > 20


@pytest.mark.parametrize(
    "usage",
    [
        "`await app.request(method, path, **options)`",
        "`async with wire.hold(what, limit=None)`",
        "`with wire.watching()`",
        "`app.start_request(method, path, **options)`",
        "`await shop.count(table, where='true', *values)`",
        "`wire.connections`",
    ],
)
def test_a_usage_says_how_it_is_called(usage: str, page: str) -> None:
    assert f"- {usage}: " in page


def test_an_example_is_the_shortest_whole_statement_of_the_first_lesson(tmp_path: Path) -> None:
    first, second = tmp_path / "lesson_00", tmp_path / "lesson_01"
    first.mkdir()
    second.mkdir()
    (first / "test_x.py").write_text(
        "async def test_x(app):\n    response = await app.get('/longer')\n    await app.get('/a')\n"
        "    expect(\n        (await app.get('/')).ok,\n    )\n    async with wire.hold('A') as hold:\n        pass\n"
    )
    (second / "test_y.py").write_text("await app.get('')\nawait wire.cut()\n")
    examples = Examples(tmp_path)
    assert examples.of(r"app\.get\(") == "await app.get('/a')"
    assert examples.of(r"\bhold\(") == "async with wire.hold('A') as hold:"
    assert examples.of(r"\.cut\(") == "await wire.cut()"
    assert examples.of(r"nothing") == ""
