"""`workbook dev drivers`: prints how drivers' own tests come out directly and through the proxy."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

from checks.kit.authoring.driver_suites import Suite, find_suites
from checks.kit.authoring.drivers import Comparison, compare
from checks.kit.lessons.errors import WorkbookError
from checks.kit.lessons.words import plural
from checks.kit.report import terminal


def compare_suites(names: list[str], files: list[str], select: str, source: Path | None) -> int:
    """Compares and prints; the exit code, 1 if a test comes out differently each time, or cannot be run."""
    suites = find_suites(names)
    if len(suites) > 1 and (files or source):
        raise WorkbookError("--file and --source are about the tests of one driver. Name it: workbook dev drivers NAME")
    return max(_compare(suite, files, select, source) for suite in suites)


def _compare(suite: Suite, files: list[str], select: str, source: Path | None) -> int:
    out = terminal.console()
    out.print(f"{suite.name}, the tests of {suite.distribution} {suite.release}", style="bold")
    try:
        with out.status("Fetching the tests"):
            if source is None:
                source = suite.source()
            else:
                suite.add_imported(source := source.resolve())
        chosen = suite.choose(source, files)
        with out.status("Running them directly, then through the proxy"):
            found = asyncio.run(compare(suite, source, chosen, select))
    except WorkbookError as error:  # another suite may do
        out.print(f"{error}\n", style="red", markup=False, soft_wrap=True)
        return 1
    return _show(found)


def _show(found: Comparison) -> int:
    out = terminal.console()
    for side, outcomes in (("directly", found.direct), ("through the proxy", found.proxied)):
        counts = Counter(outcomes.values())
        listed = ", ".join(f"{counts[outcome]} {outcome}" for outcome in ("passed", "failed", "skipped"))
        out.print(f"  {side:<18} {plural(len(outcomes), 'test')}: {listed}")
    for test, (direct, proxied) in found.repeated.items():
        always = "" if test in found.differing else "  (not each time)"
        out.print(
            f"\n  {test}{always}\n"
            f"    directly:          {', '.join(direct)}\n    through the proxy: {', '.join(proxied)}",
            markup=False,
        )
    if found.differing:
        count = plural(len(found.differing), "test")
        out.print(f"\n  {count} came out differently each time. To run one alone, add: --only NAME\n")
        return 1
    out.print("  No test comes out differently each time.\n", style="green")
    return 0
