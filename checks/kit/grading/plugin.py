"""The pytest plugin: its options, what it collects, and the start of a grading.

PYTEST_DONT_REWRITE
"""

from __future__ import annotations

import sys

from checks.kit.grading import gc_pause
from checks.kit.lessons.targets import checks_command, find_target, lesson_name, names_a_lesson
from checks.kit.service import prestart

if names_a_lesson(sys.argv[1:]):
    prestart.prestart()  # the slowest thing first: it goes on while everything below is imported
    gc_pause.begin()

from collections.abc import Generator
from pathlib import Path

import pytest

from checks.kit.grading.items import CheckItem, CheckModule
from checks.kit.grading.options import refused_option
from checks.kit.grading.scheduler import AT_ONCE
from checks.kit.grading.session import Grading
from checks.kit.lessons.errors import WorkbookError, explained
from checks.kit.postgres.libpq_environment import drop_libpq_variables
from checks.kit.report.encoding import accept_any_text
from checks.kit.service.end_signals import end_as_ctrl_c_does

grading_key = pytest.StashKey[Grading]()

MARKS = (
    "needs(*checks): not run unless these checks of the lesson passed",
    "serial: measures time, so no other check runs at the same time",
    "start_early: waits more than it works, so it starts before others",
    "patient: starts many processes, each with a limit of its own, so the check may take ten times as long as others",
)
"""The marks of checks, as pytest wants them described."""


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("workbook", "the Bookshop workbook")
    group.addoption(
        "--target",
        default="lessons",
        metavar="lessons|solutions|DIR",
        help="whose code is graded: yours under lessons/ (default), the solutions, or a folder of your own "
        "(one lesson, or a folder with lesson_NN folders in it)",
    )
    group.addoption("--report-json", metavar="FILE", help="write the verdicts as JSON to FILE")
    group.addoption(
        "--at-once", metavar="N", type=int, default=AT_ONCE, help=f"how many checks run at a time (default {AT_ONCE})"
    )
    group.addoption(
        "--live", metavar="ADDRESS", help="tell each verdict at once to ADDRESS: a Unix socket or host:port"
    )


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config, args: list[str]) -> None:
    # as early as pytest lets us: server and fork server come up while pytest is still importing
    if names_a_lesson(args) and not {"--collect-only", "--co", "--help", "-h"} & set(args):
        end_as_ctrl_c_does()
        drop_libpq_variables()
        try:
            early_config.stash[grading_key] = Grading()
        except WorkbookError as error:
            raise pytest.UsageError(str(error)) from None
        except OSError as error:
            if not (sentence := explained(error)):
                raise
            raise pytest.UsageError(sentence) from None


@pytest.hookimpl(trylast=True)  # pytest's own reporter, which ours replaces, must be there
def pytest_configure(config: pytest.Config) -> None:
    for mark in MARKS:
        config.addinivalue_line("markers", mark)
    if config.option.collectonly or config.option.help:
        return
    grading = config.stash.get(grading_key, None)
    if grading is None:
        return
    accept_any_text()
    if refusal := refused_option(config):
        raise pytest.UsageError(refusal)
    try:
        grading.target = find_target(config.option.target)
    except WorkbookError as error:
        raise pytest.UsageError(str(error)) from None
    grading.at_once = config.option.at_once
    grading.report_json = config.option.report_json
    if config.option.live:
        from checks.kit.report.live import Sender

        grading.live = Sender(config.option.live)
    from checks.kit.grading.reporter import LessonReporter

    reporter = LessonReporter(config, grading)
    config.pluginmanager.unregister(name="terminalreporter")
    config.pluginmanager.register(reporter, "terminalreporter")
    grading.waiting = reporter.waiting
    config.pluginmanager.register(grading, "workbook-grading")


def pytest_unconfigure(config: pytest.Config) -> None:
    if grading := config.stash.get(grading_key, None):
        grading.close()


def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> CheckModule | None:
    return CheckModule.from_parent(parent, path=module_path) if lesson_name(module_path) else None


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, exitstatus: int, config: pytest.Config) -> None:
    if exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED:
        where = config.invocation_params.dir
        if command := checks_command(config.args, where):
            terminalreporter.write_line(f"There are no tests in a lesson's own folder. Its checks: {command}")


def pytest_runtest_logfinish() -> None:
    gc_pause.end()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if isinstance(item, CheckItem):  # it ran before its turn
        ended_here = call.when == "call" or call.excinfo is not None
        report.duration = item.result.seconds if item.result and ended_here else 0.0
    return report
