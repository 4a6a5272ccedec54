"""A learner's test suite run against other apps: what its outcome means, and the shops of lesson 14."""

import asyncio
import json
import socket
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import pytest

from checks.kit.lessons.lesson import find_lesson
from checks.kit.service.inside.suite import MARK, notes_of
from checks.kit.testbed.suite import SuiteRun, other_apps
from checks.lesson_14 import meeting as meetings
from checks.lesson_14.judge import BROKEN, Seen, likely_to_notice
from checks.lesson_14.meeting import Meeting
from checks.lesson_14.names import made_databases, named_by_the_time

LESSON = find_lesson(14)

TESTS = """
import pytest

@pytest.fixture
def stated():
    assert 1 == 2, "the shop does not add up"

@pytest.fixture
def broken():
    raise KeyError("nothing there")

def test_first(): pass
def test_states(stated): pass
def test_broken(broken): pass
def test_last(): assert "1" == "2"
"""


def note(event, **what):
    plain = {"test": "test_a.py::test_a", "outcome": "failed", "states": False, "line": ""}
    return {**plain, "event": event, "text": "", **what}


FINISHED = note("finished", code=1)


def run_of(*notes, code=1):
    return SuiteRun([*notes, FINISHED] if code is not None else notes, "log", code)


def test_a_failed_test_catches():
    assert run_of(note("call")).caught().id == "test_a.py::test_a"


def test_an_assertion_in_a_fixture_catches():
    assert run_of(note("setup", states=True)).caught() is not None


def test_a_fixture_that_breaks_catches_nothing():
    run = run_of(note("setup"))
    assert run.caught() is None
    assert run.failed()
    assert not run.is_green()


def test_a_test_that_is_not_trusted_catches_nothing():
    assert run_of(note("call")).caught(but=["test_a.py::test_a"]) is None


@pytest.mark.parametrize(
    ("run", "said"),
    [
        (run_of(note("not collected", text="E\nSyntaxError: x"), code=2), "SyntaxError"),
        (run_of(note("begin"), code=None), "did not end"),
        (run_of(code=5), "exit code 5"),
        (run_of(code=0), "No test was run"),
        (SuiteRun([note("call", outcome="passed")], "Killed", -9), "exit code -9"),
    ],
)
def test_a_run_that_says_nothing(run, said):
    assert said in run.trouble()
    assert not run.is_green()


def test_what_the_plugin_notes(tmp_path):
    notes = notes_in(tmp_path)
    ended = {note["test"].rpartition("::")[2]: note for note in notes if note["event"] in ("call", "setup")}
    assert {name: (note["event"], note["outcome"], note["states"]) for name, note in ended.items()} == {
        "test_first": ("call", "passed", False),
        "test_states": ("setup", "failed", True),
        "test_broken": ("setup", "failed", False),
        "test_last": ("call", "failed", True),
    }


def test_the_plugin_stops_at_the_first_test_that_says_something(tmp_path):
    begun = [note["test"].rpartition("::")[2] for note in notes_in(tmp_path, "--kit-stop") if note["event"] == "begin"]
    assert begun == ["test_first", "test_states"]


def test_the_plugin_runs_other_orders(tmp_path):
    begun = {
        order: [note["test"].rpartition("::")[2] for note in notes_in(tmp_path, *order) if note["event"] == "begin"]
        for order in ((), ("--kit-order=reversed",), ("--kit-order=shuffled:1",))
    }
    as_written, opposite, shuffled = begun.values()
    assert opposite == as_written[::-1]
    assert sorted(shuffled) == sorted(as_written)
    assert shuffled not in (as_written, opposite)


def test_the_plugin_begins_with_the_tests_that_it_is_given(tmp_path):
    first = [f"--kit-first=test_a.py::{test}" for test in ("test_last", "test_broken", "test_of_another_suite")]
    begun = [note["test"].rpartition("::")[2] for note in notes_in(tmp_path, *first) if note["event"] == "begin"]
    assert begun == ["test_last", "test_broken", "test_first", "test_states"]


def test_words_of_its_name_say_which_test_is_likely_to_notice_a_fault():
    tests = ["test_a.py::test_an_order", "test_a.py::test_a_transfer", "test_b.py::test_the_order_of_a_gift"]
    assert likely_to_notice("gifts_without_mail", tests)[0] == "test_b.py::test_the_order_of_a_gift"
    assert likely_to_notice("transfers_lost", tests)[0] == "test_a.py::test_a_transfer"
    assert likely_to_notice("nothing", tests) == tests


def test_what_a_run_has_left():
    run = SuiteRun([note("call", outcome="passed"), FINISHED], "", 0, statements=9)
    assert Seen(run, {"books": ["1"]}, {"books": ["1"]}, []).is_clean()
    assert Seen(run, {"books": ["1"]}, {"books": [], "tests": []}, []).changed == ["books", "tests"]
    assert not Seen(run, {}, {"tests": []}, []).is_clean()
    assert not Seen(run, {}, {}, ["test_1"]).is_clean()
    assert not Seen(replace(run, statements=10_000), {}, {}, []).is_clean()
    assert not Seen(replace(run, code=2), {}, {}, []).is_clean()


def test_names_that_differ_in_the_time_only():
    noon = int(datetime(2026, 3, 8, 12, 0, 0, tzinfo=UTC).timestamp())
    both = {
        "in seconds": (f"test_{noon}", f"test_{noon + 4}"),
        "as a date": ("t_20260308_120001_x", "t_20260308_120004_x"),
        "in minutes": ("t2026-03-08-12-00", "t2026-03-08-12-01"),
        "one that does not": ("test_120001", "check_120002"),
        "with more than the time": (f"test_{noon}_1", f"test_{noon + 4}_2"),
        "in milliseconds": (f"test_{noon}017", f"test_{noon + 4}402"),
        "of processes": ("test_7120", "test_7122"),
        "by chance": ("test_3f1c9a0d12000b", "test_a7712003e5"),
    }
    alike = [how for how, names in both.items() if named_by_the_time(names, noon, noon + 70.5)]
    assert alike == ["in seconds", "as a date", "in minutes"]


def test_databases_that_statements_make():
    texts = (
        'CREATE DATABASE "a-1"',
        "create database b2 TEMPLATE c",
        "SELECT 1",
        'CREATE DATABASE "a-1"',
        "DROP DATABASE d",
    )
    assert made_databases([SimpleNamespace(text=text) for text in texts]) == ["a-1", "b2"]


def notes_in(folder: Path, *options: str):
    (folder / "test_a.py").write_text(TESTS)
    (folder / "pytest.ini").write_text("[pytest]\n")
    plugin = ("-p", "checks.kit.service.inside.suite", "--disable-plugin-autoload", "-p", "no:cacheprovider")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *plugin, *options, str(folder)],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
        timeout=120,
    )
    notes, _ = notes_of(done.stdout)
    return notes


def test_a_note_that_was_cut_off_is_left_out():
    notes, log = notes_of(f"one\n{MARK}{json.dumps({'event': 'begin'})}\n\n{MARK}{{'eve")
    assert [note["event"] for note in notes] == ["begin"]
    assert log == "one"


def test_a_traceback_begins_in_the_tests():
    before = '  File "/lib/pluggy.py", line 1\n    yield\n'
    inside = '  File "/w/releases/lesson_14/suite_0/raw_sql/tests/test_a.py", line 2, in test_a\n    assert x\n'
    [failed] = run_of(note("call", text=f"{before}{inside}AssertionError")).failed()
    assert failed.text == '  File "tests/test_a.py", line 2, in test_a\n    assert x\nAssertionError'


def test_each_broken_shop_is_asked_about_once():
    broken = other_apps(LESSON, "mutants")
    assert sorted(broken) == sorted(name for names in BROKEN.values() for name in names)
    assert len(broken) >= 12
    assert all(app.about for app in broken.values())


def test_there_are_other_right_shops():
    assert len(other_apps(LESSON, "apps")) >= 4


def test_all_shops_are_python():
    for folder in ("apps", "mutants"):
        for app in other_apps(LESSON, folder).values():
            for name, content in app.tree.items():
                if name.endswith(".py"):
                    compile(content, f"{app.name}/{name}", "exec")


async def walk(meeting, name, log, tests=3):
    """What a run of three tests does where runs meet."""
    host, _, port = meeting.option(name).rpartition("@")[2].rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    for test in range(tests):
        log.append(f"{name} at {test}")
        writer.write(f"{name} {test} {tests}\n".encode())
        await reader.readexactly(1)
        log.append(f"{name} in {test}")
    writer.close()
    log.append(f"{name} ended")
    await meeting.end(name)


def test_two_runs_go_from_test_to_test_together():
    async def scene():
        log = []
        async with Meeting(socket.create_server(("127.0.0.1", 0))) as meeting:
            first = asyncio.ensure_future(walk(meeting, "first", log))
            await meeting.begun("first")
            assert log == ["first at 0"]
            await asyncio.gather(first, walk(meeting, "second", log))
        return log.index

    when = asyncio.run(scene())
    for test in range(3):
        assert max(when(f"first at {test}"), when(f"second at {test}")) < when(f"first in {test}")
        assert max(when(f"first at {test}"), when(f"second at {test}")) < when(f"second in {test}")
    assert when("first ended") < when("second in 2")


def test_a_run_does_not_wait_for_ever_for_one_that_waits_for_its_end(monkeypatch):
    monkeypatch.setattr(meetings, "LEAST", 0.05)

    async def scene():
        log = []
        async with Meeting(socket.create_server(("127.0.0.1", 0))) as meeting:
            await walk(meeting, "first", log)
            await walk(meeting, "second", log)
        return log

    assert asyncio.run(scene())[-1] == "second ended"
