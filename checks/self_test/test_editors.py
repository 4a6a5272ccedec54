"""Editors list checks and run single ones through plugins of pytest: the results must arrive there."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from checks.kit.cli.serve import DEBUG_PORT
from checks.kit.lessons.lesson import find_lesson
from checks.kit.lessons.paths import ROOT
from checks.self_test.commands import pytest_run

PLUGIN = """
import json, os, pytest

def say(**what):
    with open(os.environ["SAID"], "a") as said:
        said.write(json.dumps(what) + "\\n")

def pytest_sessionfinish(session):  # how the tree of tests is made
    for item in session.items:
        say(listed=item.nodeid, file=str(item.path), line=item.location[1])

@pytest.hookimpl(hookwrapper=True, trylast=True)
def pytest_report_teststatus(report, config):  # how each result is learned
    if report.when == "call" or (report.when == "setup" and report.skipped):
        say(result=report.nodeid, outcome=report.outcome, text=report.longreprtext)
    yield
"""
"""What the plugins of editors rely on, with hooks and conditions as there."""

FILE = "checks/lesson_00/test_start_and_stop.py"


@pytest.fixture
def plugin(tmp_path: Path) -> Path:
    (tmp_path / "editor_plugin.py").write_text(PLUGIN)
    return tmp_path


def _run(plugin: Path, *arguments: str) -> list[dict[str, object]]:
    said = plugin / "said"
    pytest_run("-p", "editor_plugin", f"--rootdir={ROOT}", *arguments, PYTHONPATH=str(plugin), SAID=str(said))
    return [json.loads(line) for line in said.read_text().splitlines()]


@pytest.mark.slow
def test_checks_are_listed_with_their_lines(plugin: Path) -> None:
    said = _run(plugin, "--collect-only", "checks", "--ignore=checks/self_test")
    listed = {str(one["listed"]): one for one in said}
    lines = (ROOT / FILE).read_text().splitlines()
    for entry in find_lesson(0).checks:
        one = listed[f"{FILE}::{entry.name}"]
        assert one["file"] == str(ROOT / FILE)
        following = "\n".join(lines[int(str(one["line"])) :][:5])
        assert f"def {entry.name}(" in following, "the line of the check, or of its first mark"
    assert not any("self_test" in name for name in listed)


def test_results_of_single_checks_arrive(plugin: Path, tmp_path: Path) -> None:
    lesson = tmp_path / "lesson_00"
    shutil.copytree(ROOT / "solutions/lesson_00", lesson, ignore=shutil.ignore_patterns("__pycache__"))
    settings = lesson / "app/settings.py"
    settings.write_text(settings.read_text().replace("item['msg']", "item['input']"))
    chosen = ["test_without_database_url_it_does_not_start", "test_the_password_stays_out_of_the_log"]
    said = _run(plugin, f"--target={lesson}", *(f"{ROOT / FILE}::{name}" for name in chosen))
    results = {str(one["result"]).partition("::")[2]: one for one in said if "result" in one}
    assert {name: one["outcome"] for name, one in results.items()} == dict(
        zip(chosen, ("passed", "failed"), strict=True)
    )
    assert "password" in str(results[chosen[1]]["text"])


@pytest.mark.slow
def test_a_check_that_was_not_run_is_skipped_for_an_editor(plugin: Path, tmp_path: Path) -> None:
    lesson = tmp_path / "lesson_00"
    (lesson / "app").mkdir(parents=True)
    (lesson / "app/main.py").write_text("raise RuntimeError\n")
    said = _run(plugin, f"--target={lesson}", FILE)
    outcomes = [one["outcome"] for one in said if "result" in one]
    assert outcomes == ["failed"] + ["skipped"] * (len(find_lesson(0).checks) - 1)


def test_the_files_for_vs_code_fit_together() -> None:
    folder = ROOT / ".vscode"
    tasks = {task["label"]: task for task in json.loads((folder / "tasks.json").read_text())["tasks"]}
    for configuration in json.loads((folder / "launch.json").read_text())["configurations"]:
        assert configuration["connect"]["port"] == DEBUG_PORT
        assert configuration.get("preLaunchTask", "workbook serve") in tasks
    settings = json.loads((folder / "settings.json").read_text())
    assert settings["python.testing.pytestArgs"] == ["checks", "--ignore=checks/self_test"]
