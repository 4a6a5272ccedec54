"""What a notebook imports, run as nbclient runs it, and the pictures that it draws."""

from __future__ import annotations

import base64
import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import nbformat
import pytest
from IPython.core.interactiveshell import InteractiveShell
from nbclient import NotebookClient

from checks.kit import notebook
from checks.kit.lessons.lesson import Lesson, OutsideEntry, find_lesson
from checks.kit.lessons.paths import ROOT
from checks.kit.notebook import NoSolution, run_app, versions
from checks.kit.report.html import html
from checks.kit.report.model import Finding, Outcome, Report, Result
from checks.kit.report.waterfall import Bar, Waterfall, svg, words
from checks.kit.testbed.evidence import Evidence, Line

CELLS = (
    "from checks.kit.notebook import app, check, hint, wire\ncheck('lesson_01', first=True)",
    "hint('lesson_01')",
    "shop = await app(1, 'solutions')\nprint(await shop.app.get('/books/1'))\nawait wire(shop, 'GET', '/dashboard')",
    "again = await app(1, 'solutions')\ntry:\n    await shop.app.get('/books/1')\nexcept Exception as error:\n"
    "    print(type(error).__name__)",
)


@pytest.fixture(scope="module")
def outputs() -> list[list[Any]]:
    """The outputs of each cell."""
    cells = [nbformat.v4.new_code_cell(source) for source in CELLS]
    notebook = nbformat.v4.new_notebook(cells=cells)
    resources = {"metadata": {"path": str(ROOT / "notebooks")}}
    NotebookClient(notebook, timeout=120, kernel_name="python3", resources=resources).execute()
    return [cell.outputs for cell in notebook.cells]


def test_check_shows_the_terminals_verdict(outputs: list[list[Any]]) -> None:
    [shown] = outputs[0]
    text, page = shown["data"]["text/plain"], shown["data"]["text/html"]
    assert "\x1b" not in text
    total = len(find_lesson(1).checks)
    for words_of_it in (
        "Why it matters",
        "A duplicate ISBN returns 409",
        f"1 of {total} checks pass, {total - 2} not run",
        "Open: ",
    ):
        assert words_of_it in text
        assert words_of_it.rstrip(" :") in page
    assert "<details open>" in page


def test_hint_is_given(outputs: list[list[Any]]) -> None:
    assert "1. " in "".join(piece["text"] for piece in outputs[1])


def test_an_app_answers_and_its_request_is_drawn(outputs: list[list[Any]]) -> None:
    said, drawn = outputs[2]
    assert said["text"].startswith("GET /books/1 → 200")
    image = re.match(r'<img src="data:image/svg\+xml;base64,([^"]+)" alt="GET /dashboard\n', drawn["data"]["text/html"])
    assert image
    assert "200 arrived" in "".join(ET.fromstring(base64.b64decode(image[1])).itertext())
    text = drawn["data"]["text/plain"]
    # The response of the request before comes ahead of its ROLLBACK, so the pool may open a second connection.
    assert re.search(r"ms  #[12] SELECT .*AS revenue_cents .*1 row\b", text)


def test_an_app_that_is_started_again_replaces_the_first(outputs: list[list[Any]]) -> None:
    assert outputs[3][0]["text"].strip() == "NoResponse"


def test_versions_are_those_that_are_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert list(versions(1).items()) == [("yours", "lessons"), ("solution", "solutions")]
    monkeypatch.setattr(Lesson, "solution", tmp_path / "solutions" / "lesson_01")
    assert versions(1) == {"yours": "lessons"}


async def test_a_cell_that_needs_a_missing_solution_says_so_without_a_traceback(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(Lesson, "solution", tmp_path / "solutions" / "lesson_01")
    with pytest.raises(NoSolution, match="This cell runs the solution of lesson 01, and there is no ") as refusal:
        async with run_app(1, "solutions"):
            pass
    shell = InteractiveShell()
    shown: list[str] = []
    monkeypatch.setattr(shell, "_showtraceback", lambda kind, error, text: shown.extend(text))
    shell.showtraceback((NoSolution, refusal.value, refusal.tb))
    assert shown == [str(refusal.value)]


async def test_an_app_of_a_notebook_has_its_outside_services_and_more_processes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    entry = OutsideEntry("PAYMENT_URL", "payment provider", 201, '{"id": "p{n}"}')
    lesson = replace(find_lesson(1), outside=(entry,))
    monkeypatch.setattr(notebook, "find_lesson", lambda number: lesson)
    async with run_app(1) as s, httpx.AsyncClient(trust_env=False) as client:
        provider = s.services["PAYMENT_URL"]
        assert (await client.post(provider.url)).json() == {"id": "p1"}
        provider.respond_next(status=402)
        assert [(await client.post(provider.url)).status_code for _ in range(2)] == [402, 201]
        # a program of the standard library in place of a worker
        server = await s.testbed.start("http.server", "0", "--bind", "127.0.0.1", name="worker")
        assert await server.kill() == -9
        assert s.testbed.background == [server]


def test_what_learners_write_is_text_and_no_markup() -> None:
    evil = "<script>alert('x')</script>&"
    result = Result(
        "test_x",
        evil,
        Outcome.FAILED,
        Finding(evil, evil, evil),
        steps=[evil],
        evidence=[Evidence(evil, [Line(evil, evil, evil)])],
    )
    page = html(Report(1, evil, evil, "n.ipynb", evil, [result]))
    assert "<script>" not in page
    assert page.count("&lt;script&gt;") >= 7
    drawn = svg(Waterfall(evil, [Bar(1, evil, 0, 2, evil)], [(evil, 1)]))
    assert "<script>" not in drawn
    assert ET.fromstring(drawn).tag.endswith("svg")


def test_a_waterfall_tells_what_was_held_cut_and_open() -> None:
    bars = [
        Bar(1, "COMMIT", 5, 25, "held, commit", held=True, transaction=(0, 25)),
        Bar(2, "SELECT 1", 7, None, "no response: cut", failed=True),
    ]
    picture = Waterfall("POST /books", bars, [("sent", 0), ("201 arrived", 6)])
    assert words(picture).splitlines() == [
        "POST /books",
        "      0.0 ms  sent",
        "      5.0 ms  #1 COMMIT  (20.0 ms; held, commit)",
        "      6.0 ms  201 arrived",
        "      7.0 ms  #2 SELECT 1  (no response; no response: cut)",
    ]
    drawn = ET.fromstring(svg(picture))
    assert [one.text for one in drawn if one.tag.endswith("title")] == ["POST /books"]
    fills = [one.get("fill") for one in drawn if one.tag.endswith("rect")]
    assert "#b3261e" in fills  # held
    assert any(one.get("stroke-width") == "2" for one in drawn if one.tag.endswith("rect"))  # cut
