"""A plugin of pytest that writes each outcome down as it comes, and that can run exactly the tests of a list."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

OUTCOMES = "WORKBOOK_DRIVER_OUTCOMES"
"""The variable with the file to write to: a line `[test, outcome]` for each phase of a test that tells something."""

CHOSEN = "WORKBOOK_DRIVER_CHOSEN"
"""The variable with the file that lists the tests to run, as JSON; all are run without it."""


@pytest.hookimpl(trylast=True)  # after a suite has made its tests out of what pytest collected
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if path := os.environ.get(CHOSEN):
        chosen = set(json.loads(Path(path).read_text()))
        config.hook.pytest_deselected(items=[item for item in items if item.nodeid not in chosen])
        items[:] = [item for item in items if item.nodeid in chosen]


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when == "call" or report.outcome != "passed":
        _write(report.nodeid, report.outcome)


def pytest_collectreport(report: pytest.CollectReport) -> None:
    if report.outcome == "failed":
        _write(report.nodeid, "failed")


def _write(test: str, outcome: str) -> None:
    with Path(os.environ[OUTCOMES]).open("a") as file:
        file.write(json.dumps([test, outcome]) + "\n")


def read_outcomes(path: Path) -> dict[str, str]:
    """By test: passed, failed or skipped. A test counts once, and has failed if any of its phases has."""
    outcomes: dict[str, str] = {}
    for line in path.read_text().splitlines() if path.exists() else []:
        test, outcome = json.loads(line)
        outcomes[test] = "failed" if outcomes.get(test) == "failed" else outcome
    return outcomes
