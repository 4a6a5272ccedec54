"""What `workbook grade` writes, from gradebooks made by hand; names, logs and findings are as hostile as they get."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from checks.kit.lessons.lesson import Lesson, find_lesson
from checks.kit.report import terminal
from checks.kit.report.model import Finding, Outcome, Place, Report, Result
from checks.kit.report.safe_text import display_text
from checks.kit.submissions.model import Grade, Gradebook, HandedIn, LearnerGrades, Submission
from checks.kit.submissions.results import statistics, write
from checks.kit.submissions.results.gradescope import slugs
from checks.kit.submissions.results.page import page
from checks.kit.submissions.results.text import verdict_text
from checks.kit.testbed.evidence import Evidence, Line

BROWSER = next((path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), "")

START, SESSIONS = find_lesson(0), find_lesson(1)
SECOND = len(SESSIONS.checks)
SCRIPT = "</pre></style><script>document.title='owned'</script><img src=x onerror=document.title='owned'>"
ESCAPES = "\x1b[2J\x1b]0;owned\x07 \x00\x9b31m \ud800 \u202egnp.exe\u2066 \uffff &amp;"
UNSEEN = "\ud800\u202e\u2066\uffff"
COMMANDS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\uffff]")
NAMES = [
    SCRIPT,
    '=HYPERLINK("http://evil.example","hello")',
    "javascript:alert(1)",
    f"escapes {ESCAPES}",
    "x" * 300,
    "Ada Lovelace",
    "ada lovelace",
    "Łukasz ;=1+1",
    "con",
    "../../etc/passwd",
]


def a_report(lesson: Lesson, failed: dict[int, str] | None = None, blocked: dict[int, str] | None = None) -> Report:
    """A report in which the checks at these places fail, with what happened, or were not run, with what they need."""
    made = []
    for place, entry in enumerate(lesson.checks):
        result = Result(entry.name, lesson.titles[entry.name], seconds=0.25)
        if failed and place in failed:
            result.outcome = Outcome.FAILED
            result.finding = Finding(failed[place], f"It matters. {ESCAPES}", "A section")
            result.steps = ["POST /books → 201", ESCAPES]
            statements = [Line(f"SELECT {number} {SCRIPT}", "#1", "ok") for number in range(20)]
            log = ["Traceback", "\tindented by a tab", f"{SCRIPT} {ESCAPES}", "long " * 60]
            result.evidence = [
                Evidence("On the wire", statements),
                Evidence(f"What {ESCAPES} printed", [Line(line) for line in log]),
            ]
            result.places = [Place(f"lessons/{lesson.name}/app/main.py", 7, "f", f"ValueError: {ESCAPES}")]
        elif blocked and place in blocked:
            result.outcome, result.blocked_by = Outcome.BLOCKED, blocked[place]
        made.append(result)
    return Report(
        lesson.number, lesson.title, f"lessons/{lesson.name}", f"notebooks/{lesson.name}.ipynb", "PostgreSQL 18", made
    )


def a_class(names: list[str], seconds: float = 3.5) -> Gradebook:
    """Everybody passes lesson 00 and submits nothing else."""
    gradebook = Gradebook([START, SESSIONS], "PostgreSQL 18", "bubblewrap: no network", "0123456789ab")
    for name in names:
        grades = {0: Grade(a_report(START), seconds)}
        gradebook.learners.append(LearnerGrades(Submission(name, f"submissions/{name}.zip", {0: {}}), grades))
    return gradebook


def a_gradebook(seconds: float = 3.5) -> Gradebook:
    """A class whose first learner attacks, whose second was stopped, and whose last has a lesson without a grade."""
    gradebook = a_class(NAMES, seconds)
    first, second, *_, last = gradebook.learners
    failed = {2: f"GET /health → 500 {SCRIPT} {ESCAPES}", 3: "=cmd|' /C calc'!A0"}
    sessions = a_report(SESSIONS, {0: "After 51 requests 500"}, {4: SCRIPT})
    first.grades = {1: Grade(sessions, 9.0), 0: Grade(a_report(START, failed), 2.0)}
    first.submission = Submission(NAMES[0], SCRIPT, {0: {}, 1: {}}, (f"left out: {SCRIPT}", ESCAPES))
    why = "it took more than 300 s"
    second.grades = {0: Grade(a_report(START, {2: "x"}, dict.fromkeys(range(3, 8), why)), 300.0, why)}
    last.submission = Submission(NAMES[-1], "z", {0: {}, 1: {}})
    return gradebook


@pytest.mark.parametrize("width", [80, 40, 132])
def test_text_is_what_the_learner_sees(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORKBOOK_PLAIN", raising=False)
    report = a_report(SESSIONS, {0: "书店 " * 40, 5: "word " * 50, 7: "tab\there"}, {9: "an app that starts"})
    out = terminal.console(io.StringIO(), width, styled=False)
    terminal.header(out, report)
    for result in report.results:
        terminal.line(out, result)
    for result in report.results:
        if result.outcome.is_red:
            terminal.verdict(out, report, result)
    terminal.summary(out, report, "lessons/lesson_01/app/main.py")
    seen = out.file.getvalue().translate(dict.fromkeys(map(ord, UNSEEN), "\ufffd"))  # type: ignore[attr-defined]
    text = verdict_text(report, width).whole
    assert seen.startswith(text)
    assert seen.removeprefix(text).startswith("Open: ")


def test_text_does_not_depend_on_the_instructors_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    report = a_report(START, {1: "a finding"})
    for name in ("WORKBOOK_PLAIN", "NO_COLOR", "COLUMNS", "TERM", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    text = verdict_text(report).whole
    for name, value in {"WORKBOOK_PLAIN": "1", "COLUMNS": "20", "TERM": "dumb", "FORCE_COLOR": "1"}.items():
        monkeypatch.setenv(name, value)
    assert verdict_text(report).whole == text
    assert "  ✗ " in text
    assert terminal.plain()


def test_a_terminal_names_the_check_that_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("WORKBOOK_PLAIN", raising=False)
    result = Result("test_x", "After SIGTERM the service is gone within 5 seconds")

    def written(*, styled: bool) -> tuple[str, str]:
        file = io.StringIO()
        with terminal.under_way(terminal.console(file, 40, styled=styled), result):
            meanwhile = file.getvalue()
        return meanwhile, file.getvalue().removeprefix(meanwhile)

    meanwhile, afterwards = written(styled=True)
    assert "  … After SIGTERM the service is gone …" in meanwhile, "cut to the width"
    assert "\n" not in meanwhile
    assert afterwards == "\x1b[2K"
    assert written(styled=False) == ("", "")
    monkeypatch.setenv("WORKBOOK_PLAIN", "1")
    assert written(styled=True) == ("", "")


def test_text_shows_what_would_command_a_terminal() -> None:
    text = verdict_text(a_report(START, {1: f"x {ESCAPES}"})).whole
    assert not COMMANDS.search(text)
    assert "␛[2J" in text
    assert "�gnp.exe" in text
    assert display_text("a\r\nb\tc") == "a\nb\tc"


def test_text_of_a_log_without_end_has_one() -> None:
    report = a_report(START, {1: "x" * 1_000_000})
    report.results[1].evidence = [Evidence("A log", [Line("y" * 5_000_000)])]
    assert len(verdict_text(report).whole) < 50_000
    assert "more characters" in verdict_text(report).whole


def tables(gradebook: Gradebook) -> dict[str, list[dict[str, str]]]:
    """The tables by name, as a program reads them."""
    files = {name: content for name, content in write.files(gradebook) if name.endswith(".csv")}
    return {
        name: list(csv.DictReader(io.StringIO(content.decode("utf-8-sig"), newline=""), strict=True))
        for name, content in files.items()
    }


def test_tables_have_a_line_for_each_learner_lesson_and_check() -> None:
    read = tables(a_gradebook())
    assert {name: len(rows) for name, rows in read.items()} == {
        "results.csv": 10, "lessons.csv": 10 * 2, "checks.csv": 10 * (8 + SECOND), "marks.csv": 10,
    }  # fmt: skip
    first, second, *_, last = read["results.csv"]
    assert (first["passed"], first["of"], first["lesson_00"], first["lesson_01"]) == (
        str(4 + SECOND),
        str(8 + SECOND),
        "6",
        str(SECOND - 2),
    )
    assert (second["lesson_00"], second["lesson_01"], second["stopped"], second["seconds"]) == ("2", "", "00", "300")
    by_lesson = [row for row in read["lessons.csv"] if row["lesson"] == "1"]
    assert [row["found"] for row in by_lesson] == ["yes", *["no"] * 8, "yes"]
    assert by_lesson[-1]["passed"] == ""
    assert "could not be graded" in by_lesson[-1]["stopped"]
    assert last["lesson_01"] == ""
    outcomes = [row["outcome"] for row in read["checks.csv"]]
    assert {name: outcomes.count(name) for name in set(outcomes)} == {
        "passed": 4 + SECOND + 2 + 8 * 8, "failed": 4, "blocked": 6, "missing": 8 * SECOND, "ungraded": SECOND,
    }  # fmt: skip


def test_an_error_of_a_check_is_told_apart_from_a_failure() -> None:
    import jsonschema

    gradebook = a_class(["Ada"])
    grade = gradebook.learners[0].grades[0]
    broken = grade.report.results[2]
    broken.outcome, broken.finding = Outcome.ERROR, Finding("ZeroDivisionError: x", "Please report it.")
    assert grade.has_error
    assert statistics.hardest_checks(gradebook) == []
    text = verdict_text(grade.report).whole
    assert f" ! {broken.title}" in " ".join(text.split())
    assert "Please report it." in text
    assert "7 of 8 checks pass, 1 ended with an error" in text
    files = dict(write.files(gradebook))
    [row] = [row for row in tables(gradebook)["checks.csv"] if row["outcome"] == "error"]
    assert row["happened"] == "ZeroDivisionError: x"
    read = json.loads(files["results.json"])
    schema = json.loads(Path(write.__file__).with_name("results.schema.json").read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator(schema).validate(read)
    assert read["schema"] == 3
    [graded] = read["learners"][0]["lessons"]
    assert not graded["final"]
    root = ET.fromstring(files["junit.xml"])
    [suite] = [suite for suite in root if suite.get("errors") == "1"]
    assert suite.get("failures") == "0"
    assert "Please report it." in (next(suite.iter("error")).text or "")
    assert not [name for name in files if name.startswith("gradescope/")], "no points that could be taken for final"
    [learner] = tables(gradebook)["results.csv"]
    assert (learner["passed"], learner["lesson_00"], learner["open"]) == ("", "", "00")
    lesson, _ = tables(gradebook)["lessons.csv"]
    assert lesson["passed"] == "" and "not final" in lesson["stopped"]
    html = files["index.html"].decode()
    assert "1 of 1 submitted lessons have no final grade" in html
    assert re.search(r'<td class="error"><a href="#l1-0-3" title="[^"]*ZeroDivisionError: x">!</a>', html)
    assert '<b class="e">!</b>' in html
    assert "Not final, because a check ended with an error of its own" in html


def test_everything_says_when_it_was_made_and_handed_in_except_for_gradescope() -> None:
    import jsonschema

    gradebook = a_class(["Ada", "Bea"])
    ada, bea = gradebook.learners
    night = datetime(2026, 11, 27, 23, 5, 9, tzinfo=timezone(timedelta(hours=1)))
    ada.submission = replace(ada.submission, handed_in=HandedIn(night, "last commit"))
    ada.grades[0].at, bea.grades[0].at = (datetime(2026, 11, day, 8, 30, tzinfo=UTC) for day in (30, 29))
    assert gradebook.made == datetime(2026, 11, 30, 8, 30, tzinfo=UTC)
    files = dict(write.files(gradebook))
    html = files["index.html"].decode()
    assert "The newest grade is of 30 Nov 2026, 08:30 UTC." in html
    assert html.count("handed in") == 1
    assert "handed in 27 Nov 2026, 22:05 UTC (last commit)" in html
    read = tables(gradebook)
    assert [(row["handed_in"], row["known_by"], row["made"]) for row in read["results.csv"]] == [
        ("2026-11-27T22:05:09Z", "last commit", "2026-11-30T08:30:00Z"),
        ("", "", "2026-11-30T08:30:00Z"),
    ]
    assert [row["graded"] for row in read["lessons.csv"]] == ["2026-11-30T08:30:00Z", "", "2026-11-29T08:30:00Z", ""]
    assert read["lessons.csv"][0]["handed_in"] == "2026-11-27T22:05:09Z"
    everything = json.loads(files["results.json"])
    schema = json.loads(Path(write.__file__).with_name("results.schema.json").read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator(schema).validate(everything)
    assert everything["made"] == "2026-11-30T08:30:00Z"
    assert [learner["handed_in"] for learner in everything["learners"]] == ["2026-11-27T22:05:09Z", ""]
    assert not [name for name in files if name.startswith("gradescope/") and b"2026-11" in files[name]]
    assert "newest grade" not in page(a_class(["Ada"]))


def test_an_interrupted_run_writes_what_it_has() -> None:
    import jsonschema

    gradebook = a_class(["Ada", "Bea", "Cleo"])
    gradebook.learners[1].grades, gradebook.learners[1].waiting = {}, frozenset({0})
    files = dict(write.files(gradebook))
    html = files["index.html"].decode()
    assert "This run was interrupted: 1 of 3 submitted lessons are not graded yet." in html
    assert "no final grade.</strong>" not in html
    assert html.count("not graded yet</td>") == 1
    assert [row["passed"] for row in tables(gradebook)["results.csv"]] == ["8", "", "8"]
    assert "interrupted" in tables(gradebook)["lessons.csv"][2]["stopped"]
    assert {row["outcome"] for row in tables(gradebook)["checks.csv"] if row["learner"] == "Bea"} == {
        "waiting",
        "missing",
    }
    read = json.loads(files["results.json"])
    schema = json.loads(Path(write.__file__).with_name("results.schema.json").read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator(schema).validate(read)
    assert (read["waiting"], [learner["waiting"] for learner in read["learners"]]) == (1, [[], [0], []])
    assert sorted(name for name in files if name.startswith("gradescope/")) == [
        "gradescope/ada/results.json",
        "gradescope/cleo/results.json",
    ]
    assert "interrupted" not in page(a_class(["Ada"]))


def test_no_learner_reads_who_has_the_same_files() -> None:
    gradebook = a_class(["Ada", "Bea"])
    for learner, other in zip(gradebook.learners, ("Bea", "Ada"), strict=True):
        learner.submission = replace(
            learner.submission, for_instructor=(f"lesson_00 has the same files as {other}.",), notes=("A link.",)
        )
    files = dict(write.files(gradebook))
    for_learners = [name for name in files if name.startswith(("gradescope/", "feedback/"))]
    assert len(for_learners) == 6
    assert all("same files" not in files[name].decode() for name in for_learners)
    overview, *learners = files["index.html"].decode().split('<section class="learner"')
    assert "Same files as another submission" in overview
    assert overview.count("lesson_00 has the same files as") == 2
    assert not [text for text in learners if "same files" in text]
    assert all("A link." in text for text in learners)
    assert [row["for_instructor"] for row in tables(gradebook)["results.csv"]] == [
        "lesson_00 has the same files as Bea.",
        "lesson_00 has the same files as Ada.",
    ]
    assert [learner["notes"] for learner in json.loads(files["results.json"])["learners"]] == [["A link."]] * 2


def test_tables_are_read_by_spreadsheets_and_never_calculated() -> None:
    files = dict(write.files(a_gradebook()))
    for name, rows in tables(a_gradebook()).items():
        content = files[name]
        assert content.startswith(b"\xef\xbb\xbf")
        assert content.count(b"\r\n") == len(rows) + 1
        cells = [cell for row in rows for cell in row.values()]
        assert not [cell for cell in cells if re.search(r"(^|;)\s*[=+@\t\r＝＋－＠-]", cell)]
    assert "'=HYPERLINK" in files["results.csv"].decode()
    assert "'=cmd|" in files["checks.csv"].decode()
    assert "Łukasz ;'=1+1" in files["results.csv"].decode()


def test_json_is_what_its_schema_says() -> None:
    import jsonschema

    schema = json.loads(Path(write.__file__).with_name("results.schema.json").read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    files = dict(write.files(a_gradebook()))
    read = json.loads(files["results.json"])
    jsonschema.Draft202012Validator(schema).validate(read)
    assert not any(entry.fault and entry.fault.encode() in files["results.json"] for entry in START.checks)
    assert [learner["learner"] for learner in read["learners"]] == [name.replace("\ud800", "\ufffd") for name in NAMES]
    first, *_, last = read["learners"]
    assert [lesson["lesson"] for lesson in first["lessons"]] == [0, 1]
    report = json.dumps(a_gradebook().learners[0].grades[1].report.to_dict()).replace("\\ud800", "\\ufffd")
    assert first["lessons"][1]["report"] == json.loads(report)
    assert last["ungraded"] == [1]
    assert all(learner["gradescope"] in files for learner in read["learners"][:-1])
    assert last["gradescope"] == ""


def test_junit_is_xml_with_a_case_for_each_check() -> None:
    root = ET.fromstring(dict(write.files(a_gradebook()))["junit.xml"])
    assert root.tag == "testsuites"
    assert {name: root.get(name) for name in ("tests", "failures", "errors", "skipped")} == {
        "tests": str(10 * (8 + SECOND)), "failures": "4", "errors": str(SECOND), "skipped": str(6 + 8 * SECOND),
    }  # fmt: skip
    for suite in root:
        for name, path in {"tests": "", "failures": "/failure", "errors": "/error", "skipped": "/skipped"}.items():
            assert suite.get(name) == str(len(suite.findall(f"testcase{path}")))
    failure = root.find("testsuite/testcase/failure")
    assert failure is not None
    assert (failure.text or "").startswith(f"✗ {START.titles[START.checks[2].name]}"[:60])
    assert failure.attrib["message"].startswith("GET /health → 500 </pre>")
    case = root[0][0]
    assert case.attrib["classname"].endswith(".lesson_00")
    assert "it took more than 300 s" in (root.findtext("testsuite/system-err") or "")


def test_gradescope_gets_a_point_for_each_check() -> None:
    files = dict(write.files(a_gradebook()))
    read = [json.loads(content) for name, content in files.items() if name.startswith("gradescope/")]
    assert [learner["score"] for learner in read] == [4 + SECOND, 2, *[8] * 7], "and no file for what was not graded"
    assert all(sum(test["score"] for test in learner["tests"]) == learner["score"] for learner in read)
    assert all(sum(test["max_score"] for test in learner["tests"]) == 8 + SECOND for learner in read)
    tests = {test["number"]: test for test in read[0]["tests"]}
    assert tests["0.1"] == {
        "name": f"Lesson 00: {START.titles[START.checks[0].name]}", "name_format": "text", "number": "0.1",
        "score": 1, "max_score": 1, "status": "passed", "output": "", "output_format": "text",
    }  # fmt: skip
    assert tests["0.3"]["status"] == "failed"
    assert "What happened\n     GET /health → 500" in tests["0.3"]["output"]
    assert tests["1.5"]["output"].startswith("Not run; it needs: </pre>")
    assert read[2]["tests"][-1]["output"] == "This lesson was not submitted."
    assert "stopped: it took more than 300 s" in read[1]["output"]
    assert read[1]["execution_time"] == 300.0


def test_folders_are_safe_and_different() -> None:
    alike = ["Ann", "ann", "A n n", "日本", "中国", "é", "e", "same", "same", "x" * 299 + "y"]
    names = [*NAMES, *alike, "", "...", "con.txt", "COM1", "nul", "\ud800"]
    made = slugs(names)
    assert len({slug.casefold() for slug in made}) == len(names)
    assert all(re.fullmatch(r"[a-z0-9_][a-z0-9._-]{0,78}[a-z0-9_]|[a-z0-9]", slug) for slug in made)
    assert not [slug for slug in made if re.match(r"(con|prn|aux|nul|com\d|lpt\d)(\.|$)", slug)]
    assert slugs(["Zoë Brontë", "j.smith_2"]) == ["zoe-bronte", "j.smith_2"]
    forged = slugs(["Ann", "ann"])[0]
    assert len(set(slugs(["Ann", "ann", forged]))) == 3


def test_files_are_written_whole_and_always_the_same(tmp_path: Path) -> None:
    gradebook = a_gradebook()
    paths = write.write(gradebook, tmp_path / "one")
    assert sorted(paths) == sorted(path for path in (tmp_path / "one").rglob("*") if path.is_file())
    for learner in gradebook.learners:
        learner.grades = dict(reversed(learner.grades.items()))
    again = write.write(gradebook, tmp_path / "two")
    assert [path.read_bytes() for path in again] == [path.read_bytes() for path in paths]

    before = (tmp_path / "one" / "results.csv").read_bytes()
    (tmp_path / "one" / "results.json").unlink()
    (tmp_path / "one" / "results.json").mkdir()
    with pytest.raises(OSError):
        write.write(gradebook, tmp_path / "one")
    assert (tmp_path / "one" / "results.csv").read_bytes() == before
    assert not list((tmp_path / "one").rglob("*.new"))


def test_only_times_differ_between_two_runs() -> None:
    one, two = (dict(write.files(a_gradebook(seconds=seconds))) for seconds in (3.5, 7.25))
    timed = re.compile(rb'"(seconds|execution_time)": [\d.]+|time="[\d.]+"')
    for name in ("results.json", "junit.xml", *(name for name in one if name.startswith("gradescope/"))):
        assert timed.sub(b"", one[name]) == timed.sub(b"", two[name])
    assert one["checks.csv"] == two["checks.csv"]


def test_the_hardest_check_is_the_one_that_most_of_the_class_fails() -> None:
    gradebook = a_class([f"learner {number:02}" for number in range(20)])
    for number, learner in enumerate(gradebook.learners):
        failed = {5: f"took {number * 7}.5 s"} | ({6: "GET /books → 500"} if number < 8 else {})
        learner.grades = {0: Grade(a_report(START, failed), float(number))}
    gradebook.learners[3].grades[1] = Grade(a_report(SESSIONS, {0: "once"}), 60.0)
    hardest = statistics.hardest_checks(gradebook)
    assert [(check.name, check.failed, check.submitted) for check in hardest] == [
        (START.checks[5].name, 20, 20), (START.checks[6].name, 8, 20), (SESSIONS.checks[0].name, 1, 1),
    ]  # fmt: skip
    assert hardest[0].quotes == (("took 0.5 s", 20),)
    start, sessions = statistics.lesson_statistics(gradebook)
    assert (start.submitted, start.complete, start.median, start.longest, start.slowest) == (20, 0, 9.5, 19.0, 19)
    assert (sessions.submitted, sessions.slowest, sessions.total) == (1, 3, 60.0)


class Elements(HTMLParser):
    """What a page consists of: its elements, and the text of each <pre> by the anchor that it stands under."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.pres: dict[str, str] = {}
        self._anchor, self._inside = "", False
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag == "div":
            self._anchor = dict(attrs).get("id") or ""
        if tag == "pre":
            self._inside, self.pres[self._anchor] = True, ""

    def handle_endtag(self, tag: str) -> None:
        self._inside = self._inside and tag != "pre"

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.pres[self._anchor] += data


def test_page_holds_nothing_but_text_of_a_learner() -> None:
    html = page(a_gradebook())
    elements = Elements(html).elements
    assert not {tag for tag, _ in elements} & {"script", "img", "link", "iframe", "object", "form", "base", "svg"}
    assert not [name for _, attrs in elements for name in attrs if name.startswith("on") or name in ("src", "srcset")]
    ids = {attrs["id"] for _, attrs in elements if "id" in attrs}
    hrefs = {attrs["href"] for tag, attrs in elements if tag == "a"}
    assert all(href and href[0] == "#" and href[1:] in ids for href in hrefs)
    assert len(ids) == sum("id" in attrs for _, attrs in elements)
    policy = next(attrs["content"] for _, attrs in elements if attrs.get("http-equiv") == "Content-Security-Policy")
    assert policy and policy.startswith("default-src 'none'; style-src 'unsafe-inline'")
    assert not COMMANDS.search(html)


def test_feedback_is_about_one_learner_and_nobody_else() -> None:
    gradebook = a_gradebook()
    gradebook.learners[1].grades[0].at = datetime(2026, 11, 30, 8, 30, tzinfo=UTC)
    files = dict(write.files(gradebook))
    assert len([name for name in files if name.startswith("feedback/")]) == 2 * len(NAMES)
    slug = slugs([learner.submission.learner for learner in gradebook.learners])[1]
    html, markdown = (files[f"feedback/{slug}.{suffix}"].decode() for suffix in ("html", "md"))
    told = verdict_text(gradebook.learners[1].grades[0].report).whole
    assert list(Elements(html).pres.values()) == [told]
    assert told.strip("\n") in markdown
    assert "Graded: 30 Nov 2026, 08:30 UTC" in markdown and "graded 30 Nov 2026, 08:30 UTC" in html
    assert "## Lesson 01, " in markdown and "not submitted" in markdown
    for text in (html, markdown):
        assert "submissions/" not in text
        assert not [name for name in ("Ada", "Łukasz", "javascript", "passwd") if name in text]
        assert "Grading was stopped:" in text and "it took more than 300 s" in text
    for name, content in files.items():
        if name.startswith("feedback/"):
            assert not COMMANDS.search(content.decode())
        if name.startswith("feedback/") and name.endswith(".html"):
            tags = {tag for tag, _ in Elements(content.decode()).elements}
            assert not tags & {"script", "img", "link", "iframe", "object", "form", "base", "svg", "a"}


def test_feedback_in_markdown_keeps_to_its_fence() -> None:
    gradebook = a_class(["<b>*Ada*</b> [x](y)"])
    gradebook.learners[0].grades[0] = Grade(a_report(START, {1: "before ```` after\n```\n# No heading"}), 1.0)
    gradebook.learners[0].waiting = frozenset()
    [markdown] = [content.decode() for name, content in write.files(gradebook) if name.endswith(".md")]
    assert markdown.startswith("# \\<b\\>\\*Ada\\*\\</b\\> \\[x\\]\\(y\\)\n")
    assert markdown.count("`````") == 2
    first, second = (match.start() for match in re.finditer("^`````", markdown, re.MULTILINE))
    assert first < markdown.index("before ````") < second


def test_feedback_says_what_is_not_final() -> None:
    gradebook = a_class(["Ada"])
    gradebook.learners[0].grades, gradebook.learners[0].waiting = {}, frozenset({0})
    for name, content in write.files(gradebook):
        if name.startswith("feedback/"):
            assert "through no fault of yours" in content.decode()


def test_page_tells_everybody_what_they_were_told() -> None:
    gradebook = a_gradebook()
    html = page(gradebook)
    pres = Elements(html).pres
    assert pres == {
        f"l{index}-{number}": verdict_text(grade.report).whole
        for index, learner in enumerate(gradebook.learners, 1)
        for number, grade in learner.grades.items()
    }
    assert not [
        entry.fault for lesson in gradebook.lessons for entry in lesson.checks if entry.fault and entry.fault in html
    ]
    assert html.count("not submitted</td>") == 8
    assert html.count("not graded</td>") == 1


def test_page_says_where_nothing_kept_submissions_apart() -> None:
    gradebook = a_gradebook()
    assert "not isolated" not in page(gradebook)
    gradebook.isolation = "limits only: bubblewrap is not installed"
    assert "<strong>These submissions were not isolated" in page(gradebook)


def test_page_of_nobody_is_a_page() -> None:
    for gradebook in (a_class([]), a_class(["only"]), Gradebook([], "", "", "")):
        assert page(gradebook).endswith("</html>")
        assert list(write.files(gradebook))


@pytest.fixture
async def browser() -> AsyncIterator[Any]:
    if not BROWSER:
        pytest.skip("no Chromium here; Debian's: apt-get install chromium")
    api = pytest.importorskip(
        "playwright.async_api", reason="playwright is not installed; it comes with: uv sync --group browser"
    )
    async with api.async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield browser
        await browser.close()


CONTRAST = """selector => [...document.querySelectorAll(selector)].map(element => {
    const parts = colour => colour.match(/[\\d.]+/g).map(Number)
    const light = ([r, g, b]) => [r, g, b].map(c => c / 255)
        .map(c => c <= .03928 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4)
        .reduce((sum, c, at) => sum + c * [.2126, .7152, .0722][at], 0)
    let ground = element
    const painted = one => parts(getComputedStyle(one).backgroundColor)
    while (ground.parentElement && painted(ground)[3] === 0) ground = ground.parentElement
    const [a, b] = [parts(getComputedStyle(element).color), painted(ground)].map(light)
    return (Math.max(a, b) + .05) / (Math.min(a, b) + .05)
})"""

READ = ("td.passed", "td.failed a", "td.blocked a", "td.none", ".rates td", ".heat th span", ".cards dt", ".facts dd",
        ".banner strong", ".lead", ".measure b", ".quotes li", "nav a", ".tag", ".detail",
        ".attention a", ".sum")  # fmt: skip
READ_ON_A_PAGE = (
    "h2",
    "pre",
    "pre .p",
    "pre .f",
    "pre .b",
    "pre b",
    "pre span:target",
    ".notes",
    ".stopped b",
    ".source",
)


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_page_in_a_browser(browser: Any, tmp_path: Path, scheme: str) -> None:
    gradebook = a_gradebook()
    gradebook.isolation = "limits only: this is a test"
    for number, learner in enumerate(gradebook.learners[2:], 2):  # so that there is every color
        learner.grades[0] = Grade(a_report(START, {place: "x" for place in range(3, 8) if number < 2 * place - 4}), 1.0)
    file = tmp_path / "index.html"
    file.write_text(page(gradebook), encoding="utf-8")
    context = await browser.new_context(color_scheme=scheme, viewport={"width": 1024, "height": 768})
    tab = await context.new_page()
    asked: list[str] = []
    messages: list[str] = []
    tab.on("request", lambda request: asked.append(request.url))
    tab.on("console", lambda message: messages.append(message.text))
    tab.on("pageerror", lambda error: messages.append(str(error)))
    await tab.goto(file.as_uri())
    assert await tab.get_by_role("heading", name="Class results").is_visible()
    assert await tab.get_by_text("not isolated from this machine").is_visible()
    assert await tab.evaluate("document.documentElement.scrollWidth <= innerWidth")
    await legible(tab, READ)

    await tab.locator("td.failed a").first.click()
    for_display = tab.locator("span:target")
    assert await for_display.is_visible()
    assert "GET /health → 500 </pre></style><script>" in " ".join((await for_display.inner_text()).split())
    assert not await tab.get_by_role("heading", name="Class results").is_visible()
    await legible(tab, READ_ON_A_PAGE)
    assert (await tab.pdf()).startswith(b"%PDF")
    await tab.get_by_role("link", name="← Class results").first.click()
    assert await tab.get_by_role("heading", name="Class results").is_visible()
    await tab.get_by_role("link", name="Everyone’s verdicts").first.click()
    assert await tab.locator(".learner:visible").count() == len(NAMES)

    await tab.emulate_media(media="print", color_scheme=scheme)
    assert await tab.evaluate("getComputedStyle(document.documentElement).getPropertyValue('--card')") == "#ffffff"
    assert await tab.locator("#l2-0 pre").is_visible(), "details are closed in print"
    assert (await tab.title(), messages, asked) == ("Class results · Bookshop workbook", [], [file.as_uri()])


async def legible(tab: Any, selectors: tuple[str, ...]) -> None:
    """Every text that the selectors find has a contrast of at least 4.5 to its ground: WCAG's AA."""
    for selector in selectors:
        ratios = await tab.evaluate(CONTRAST, selector)
        assert ratios, f"nothing is {selector}"
        assert min(ratios) >= 4.5, f"{selector}: {min(ratios):.2f}"
