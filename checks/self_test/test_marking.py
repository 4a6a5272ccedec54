"""Marks: who is on the roster, what lessons and checks are worth, what being late costs, and what is imported where."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from fractions import Fraction
from pathlib import Path

import pytest

from checks.kit.cli.marking_rules import marking_rules
from checks.kit.lessons.errors import WorkbookError
from checks.kit.lessons.lesson import find_lesson
from checks.kit.report.model import Finding, Outcome, Report, Result
from checks.kit.submissions.marking.late import LatePolicy, parse_due
from checks.kit.submissions.marking.marks import Rules, make_marks
from checks.kit.submissions.marking.match import match
from checks.kit.submissions.marking.roster import Roster, read_roster
from checks.kit.submissions.marking.weights import Weights, read_weights
from checks.kit.submissions.model import Grade, Gradebook, HandedIn, LearnerGrades, Submission
from checks.kit.submissions.results import write

START = find_lesson(0)
GIVEN = [entry.name for entry in START.checks if entry.unsolved == "passes"]
EARNED = [entry.name for entry in START.checks if entry.unsolved == "fails"]
DUE = datetime(2026, 11, 30, 18, 0, tzinfo=UTC)

MOODLE = (
    "First name,Last name,ID number,Email address,Groups\n"
    "Anna,Right,s1001,Anna.Right@uni.example,A\n"
    "Zoë,Brontë,s1002,zoe@uni.example,A\n"
    "Bob,O'Neil,s1003,bob@uni.example,B\n"
)
CANVAS = (
    "Student,ID,SIS User ID,SIS Login ID,Section,Bookshop workbook (4711),Final Score\n"
    "    Points Possible,,,,,100,(read only)\n"
    '"Right, Anna",77,u77,aright,S1,,\n'
    '"Brontë, Zoë",78,u78,zbronte,S1,,\n'
)


def a_roster(tmp_path: Path, text: str | bytes) -> Roster:
    path = tmp_path / "class.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_roster(path)


def whose(roster: Roster, *learners: str) -> list[str]:
    """The name on the roster for each of these submissions, or what is remarked."""
    matches = match([Submission(learner, learner, {}) for learner in learners], roster)
    people = {index: roster.people[person].name for person, index in matches.of_person.items()}
    return [people.get(index) or matches.remarks[index] for index in range(len(learners))]


def a_grade(passed: list[str]) -> Grade:
    results = [
        Result(entry.name, START.titles[entry.name])
        if entry.name in passed
        else Result(entry.name, START.titles[entry.name], Outcome.FAILED, Finding("x", "y"))
        for entry in START.checks
    ]
    return Grade(Report(0, START.title, "lessons/lesson_00", results=results), 1.0)


def a_class(**passed: list[str]) -> Gradebook:
    learners = [LearnerGrades(Submission(name, name, {0: {}}), {0: a_grade(checks)}) for name, checks in passed.items()]
    return Gradebook([START], "PostgreSQL 18", "bubblewrap", "0123456789ab", learners)


def rows(gradebook: Gradebook, rules: Rules, name: str) -> list[dict[str, str]]:
    content = dict(write.files(gradebook, rules))[name].decode("utf-8-sig")
    return list(csv.DictReader(io.StringIO(content, newline=""), strict=True))


# The roster


@pytest.mark.parametrize(
    "content",
    [
        MOODLE,
        MOODLE.replace(",", ";"),
        MOODLE.replace(",", "\t"),
        MOODLE.replace("\n", "\r\n"),
        b"\xef\xbb\xbf" + MOODLE.encode(),
        MOODLE.encode("utf-16"),
        MOODLE.encode("cp1252"),
        MOODLE.replace("First name,Last name", "Vorname,Nachname"),
        MOODLE + "\n,,,,\n",
    ],
)
def test_a_roster_is_read_as_programs_write_it(content: str | bytes, tmp_path: Path) -> None:
    roster = a_roster(tmp_path, content)
    assert [person.name for person in roster.people] == ["Anna Right", "Zoë Brontë", "Bob O'Neil"]
    assert roster.people[0].cells["email"] == "Anna.Right@uni.example", "Moodle tells upper from lower case"


def test_the_row_of_points_in_canvas_is_nobody(tmp_path: Path) -> None:
    assert [person.name for person in a_roster(tmp_path, CANVAS).people] == ["Right, Anna", "Brontë, Zoë"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is not a table"),
        ("Group,Section\nA,B\n", "has no column that says who somebody is"),
        ("Name,Email\n", "names nobody"),
    ],
)
def test_what_is_no_roster_is_one_sentence(content: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(WorkbookError, match=message):
        a_roster(tmp_path, content)
    with pytest.raises(WorkbookError, match="cannot be read"):
        read_roster(tmp_path / "missing.csv")


@pytest.mark.parametrize(
    "learner",
    [
        "Anna Right",
        "right, anna",
        "Anna Right_12345_assignsubmission_file_",
        "anna-right-20261127-2305",
        "anna-right-20261127-2305-2",
        "anna.right@uni.example",
        "anna.right",
        "s1001",
        "s1001_lesson",
        "01 Anna Right",
        "Anna Right (Anna Right.zip)",
    ],
)
def test_a_submission_is_found_by_what_platforms_make_of_a_name(learner: str, tmp_path: Path) -> None:
    assert whose(a_roster(tmp_path, MOODLE), learner) == ["Anna Right"]


def test_other_platforms_name_files_otherwise(tmp_path: Path) -> None:
    assert whose(a_roster(tmp_path, CANVAS), "brontezoe_LATE_78_99_lessons", "rightanna_77_98_x") == [
        "Brontë, Zoë", "Right, Anna",
    ]  # fmt: skip
    github = a_roster(tmp_path, "identifier,github_username,github_id,name\nAnna Right,anna-r,1,\nZoë,zo,2,\n")
    assert whose(github, "bookshop-anna-r", "bookshop-zo") == ["Anna Right", "Zoë"]


def test_nobody_is_taken_for_somebody_else(tmp_path: Path) -> None:
    roster = a_roster(
        tmp_path, "Name,Email\nAnna Right,anna@x.org\nAnna Maria Left,am@x.org\nBob Hall,bob@x.org\nBob Hall,bh@x.org\n"
    )
    assert whose(roster, "Anna Wrong", "Bob", "Bob Hall", "Anna", "Anna Left") == [
        "not on the roster",
        "Bob Hall",  # the name in front of an @
        "could be each of Bob Hall, Bob Hall",
        "Anna Right",
        "Anna Maria Left",
    ]
    [taken] = match([Submission("Anna Left", "", {})], roster).remarks.values()
    assert taken == "taken for Anna Maria Left"


def test_of_several_submissions_the_last_one_counts(tmp_path: Path) -> None:
    gradebook = a_class(**{"Anna Right": EARNED, "anna-right-20261127-2305": EARNED[:1], "s1001": []})
    for learner, hour in zip(gradebook.learners, (1, 3, 2), strict=True):
        handed_in = HandedIn(DUE - timedelta(hours=hour), "newest file")
        learner.submission = replace(learner.submission, handed_in=handed_in)
    read = rows(gradebook, Rules(roster=a_roster(tmp_path, MOODLE)), "marks.csv")
    assert [(row["learner"], row["name"], row["mark"], row["remarks"]) for row in read] == [
        ("Anna Right", "Anna Right", str(len(EARNED)), ""),
        ("", "Zoë Brontë", "", "handed in nothing"),
        ("", "Bob O'Neil", "", "handed in nothing"),
        ("anna-right-20261127-2305", "", "", "does not count: Anna Right was handed in later"),
        ("s1001", "", "", "does not count: Anna Right was handed in later"),
    ]


# Points


def test_a_check_that_passes_as_handed_out_gives_no_points_unless_it_should() -> None:
    assert GIVEN and EARNED
    gradebook = a_class(Ada=GIVEN, Bea=[*GIVEN, *EARNED], Cleo=EARNED)
    assert [(row["mark"], row["of"], row["percent"]) for row in rows(gradebook, Rules(), "marks.csv")] == [
        ("0", str(len(EARNED)), "0"), (str(len(EARNED)), str(len(EARNED)), "100"),
        (str(len(EARNED)), str(len(EARNED)), "100"),
    ]  # fmt: skip
    counted = rows(gradebook, Rules(), "results.csv")
    assert [row["passed"] for row in counted] == [str(len(GIVEN)), "8", str(len(EARNED))], "the count stays as it is"
    with_given = rows(gradebook, Rules(Weights(given=Fraction(1))), "marks.csv")
    assert [row["mark"] for row in with_given] == [str(len(GIVEN)), "8", str(len(EARNED))]


def test_weights_of_lessons_and_checks(tmp_path: Path) -> None:
    path = tmp_path / "weights.toml"
    path.write_text(f"[lesson_00]\npoints = 20\n{EARNED[0]} = 3\n{GIVEN[0]} = 0.5\n", encoding="utf-8")
    weights = read_weights(path)
    whole = Fraction(3) + Fraction(1, 2) + len(EARNED) - 1
    gradebook = a_class(Ada=[EARNED[0]], Bea=[GIVEN[0]], Cleo=[*EARNED, *GIVEN])
    marks = make_marks(gradebook, Rules(weights))
    assert [mark.mark for mark in marks] == [20 * 3 / whole, 20 * Fraction(1, 2) / whole, 20]
    assert {mark.of for mark in marks} == {20}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[lesson_99]\npoints = 1", "lesson_99: expected given = 1"),
        ("lesson_00 = 3", "lesson_00: expected given = 1"),
        ("[lesson_00]\ntest_x = 1", "lesson_00 has no check test_x"),
        ("[lesson_00]\npoints = -1", "lesson_00.points is -1. Write a number"),
        ("[lesson_00]\npoints = 'ten'", "lesson_00.points is ten"),
        ("[lesson_00]\npoints = nan", "Write a number"),
        ("given = true", "given is True"),
        ("[lesson_00", "is not TOML"),
        ("[lesson_00]\npoints = 1\n" + "".join(f"{name} = 0\n" for name in EARNED), "none of its checks has a weight"),
    ],
)
def test_wrong_weights_are_one_sentence(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "weights.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(WorkbookError, match=message):
        read_weights(path)


def test_what_has_no_final_grade_has_no_mark(tmp_path: Path) -> None:
    gradebook = a_class(**{"Anna Right": EARNED, "zoe": EARNED, "bob": EARNED})
    anna, zoe, bob = gradebook.learners
    anna.grades[0].report.results[0].outcome = Outcome.ERROR
    zoe.grades, zoe.waiting = {}, frozenset({0})
    bob.grades, bob.submission = {}, replace(bob.submission, lessons={})
    rules = Rules(roster=a_roster(tmp_path, MOODLE))
    read = rows(gradebook, rules, "marks.csv")
    assert [(row["mark"], row["percent"], row["remarks"]) for row in read] == [
        ("", "", "not final: lesson 00"), ("", "", "not final: lesson 00"), ("", "", "nothing that can be graded"),
    ]  # fmt: skip
    assert rows(gradebook, rules, "moodle.csv") == []


# Being late


@pytest.mark.parametrize(
    ("after", "days"),
    [
        (timedelta(days=-3), 0), (timedelta(0), 0), (timedelta(seconds=1), 1), (timedelta(days=1), 1),
        (timedelta(days=1, seconds=1), 2), (timedelta(days=40), 40),
    ],
)  # fmt: skip
def test_each_day_begun_costs(after: timedelta, days: int) -> None:
    policy = LatePolicy(DUE, 10, 50)
    assert policy.days((DUE + after).astimezone(timezone(timedelta(hours=9)))) == days
    assert policy.taken_off(days) == min(10 * days, 50)


def test_a_late_mark_is_smaller_and_one_of_unknown_time_is_not(tmp_path: Path) -> None:
    gradebook = a_class(Ada=EARNED, Bea=EARNED, Cleo=EARNED)
    ada, bea, _ = gradebook.learners
    ada.submission = replace(ada.submission, handed_in=HandedIn(DUE, "last commit"))
    bea.submission = replace(bea.submission, handed_in=HandedIn(DUE + timedelta(hours=30), "last commit"))
    read = rows(gradebook, Rules(late=LatePolicy(DUE, 10, 50)), "marks.csv")
    assert [(row["days_late"], row["taken_off"], row["percent"], row["remarks"]) for row in read] == [
        ("0", "0", "100", ""), ("2", "20", "80", ""), ("", "", "100", "nothing says when it was handed in"),
    ]  # fmt: skip
    assert read[1]["points"] == str(len(EARNED)), "what was earned is still there"


def test_a_day_ends_at_its_end_and_a_time_may_name_its_zone() -> None:
    assert parse_due("2026-11-30").replace(tzinfo=None) == datetime(2026, 11, 30, 23, 59, 59)
    assert parse_due("2026-11-30 18:00").tzinfo is not None
    assert parse_due("2026-11-30T18:00+01:00") == datetime(2026, 11, 30, 17, 0, tzinfo=UTC)
    for text in ("tomorrow", "30.11.2026", "2026-13-01", ""):
        with pytest.raises(WorkbookError, match="write a day or a time"):
            parse_due(text)
    with pytest.raises(WorkbookError, match="--late needs the time"):
        marking_rules(None, None, "", 10, 100)


# What is imported


def test_moodle_gets_percent_and_nobody_without_a_mark(tmp_path: Path) -> None:
    gradebook = a_class(**{"Anna Right": EARNED, "s1003": EARNED[:1], "Somebody Else": EARNED})
    files = dict(write.files(gradebook, Rules(roster=a_roster(tmp_path, MOODLE))))
    assert "canvas.csv" not in files
    percent = f"{100 / len(EARNED):.2f}".rstrip("0").rstrip(".")
    assert files["moodle.csv"].decode().splitlines() == [
        "ID number,Email address,First name,Last name,Bookshop workbook (percent)",
        "s1001,Anna.Right@uni.example,Anna,Right,100",
        f"s1003,bob@uni.example,Bob,O'Neil,{percent}",
    ]


def test_canvas_gets_its_own_columns_and_the_assignment_of_the_export(tmp_path: Path) -> None:
    gradebook = a_class(rightanna_77_98_x=EARNED)
    files = dict(write.files(gradebook, Rules(roster=a_roster(tmp_path, CANVAS))))
    assert "moodle.csv" not in files
    assert files["canvas.csv"].decode().splitlines() == [
        "Student,ID,SIS User ID,SIS Login ID,Section,Bookshop workbook (4711)",
        "    Points Possible,,,,,100",
        '"Right, Anna",77,u77,aright,S1,100',
    ]
    plain = CANVAS.replace("SIS User ID,SIS Login ID,", "").replace(" (4711)", "").replace("u77,aright,", "")
    plain = plain.replace("u78,zbronte,", "").replace("Points Possible,,,,", "Points Possible,,")
    content = dict(write.files(gradebook, Rules(roster=a_roster(tmp_path, plain))))["canvas.csv"].decode()
    assert content.splitlines()[0] == "Student,ID,Section,Bookshop workbook"


def test_a_run_without_a_roster_leaves_no_marks_of_another(tmp_path: Path) -> None:
    gradebook, out = a_class(**{"Anna Right": EARNED}), tmp_path / "out"
    write.write(gradebook, out, Rules(roster=a_roster(tmp_path, MOODLE)))
    assert (out / "moodle.csv").exists()
    write.write(gradebook, out)
    assert not (out / "moodle.csv").exists()
    assert (out / "marks.csv").exists()
