"""What plain pytest runs, what it leaves out, and how it says how far it is."""

from __future__ import annotations

import re

import pytest

from checks.self_test.commands import pytest_run

CONTAINERS = "checks/self_test/test_postgres_containers.py"
LONG, SHORT = "::test_a_container_of_our_own", "::test_no_docker_engine"


@pytest.mark.parametrize(
    ("options", "long", "short"),
    [((), False, True), (("--rest",), True, False), (("--everything",), True, True)],
)
def test_what_is_long_runs_when_asked_for(options: tuple[str, ...], long: bool, short: bool) -> None:
    done = pytest_run(CONTAINERS, "--collect-only", "-q", *options)
    assert (LONG in done.stdout, SHORT in done.stdout) == (long, short), done.stdout
    said = f"Left out: 1 tests (1 docker). To run them instead: uv run pytest -p no:cacheprovider {CONTAINERS}"
    assert (said in done.stdout) == (not long)


def test_each_file_gets_a_line_with_the_time_left() -> None:
    done = pytest_run("checks/self_test/test_wire_tracker.py")
    assert done.returncode == 0
    assert re.search(
        r"^test_wire_tracker.py +\d+:\d\d +(\d+) passed +\1 of \1 · .* about 0:00 left$", done.stdout, re.M
    )
