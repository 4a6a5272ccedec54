"""What a verdict shows beside its finding: sections of evidence, and lines of the learner's own code."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from checks.kit.lessons.paths import ROOT, display_path
from checks.kit.lessons.words import plural
from checks.kit.report.long_lists import shorten_lists
from checks.kit.report.model import Place
from checks.kit.report.places import MAX_PLACES, endpoint_place, places, tail
from checks.kit.service.app import AppDidNotStart
from checks.kit.service.start_failure import without_dump
from checks.kit.testbed.evidence import ON_THE_WIRE, Evidence, Line

if TYPE_CHECKING:
    from checks.kit.testbed.testbed import Testbed
    from checks.kit.wire import Recording

MAX_LINES, MAX_LINE, MAX_TEXT = 2_000, 8_000, 2_000
"""Lines of a section, characters of a line, and of a statement: an app may produce any number of all of them."""

MAX_LOGS = 4
"""Processes whose logs are in one verdict; the newest."""


@dataclass(frozen=True, slots=True)
class Log:
    """What a process printed. `wanted`: to be shown even where it names a line of the learner's code, or never."""

    name: str
    text: str
    wanted: bool | None = None


def sections(testbed: Testbed | None, logs: Sequence[Log], folder: Path) -> list[Evidence]:
    """On the wire, then what the lesson's fixtures add, then the logs; without empty ones."""
    found = [_statements(testbed.seen), *testbed.evidence()] if testbed else []
    provoked = testbed.provoked if testbed else set[str]()
    found += [*tails(logs, folder, provoked), _dotenv(testbed, folder)]
    return [_limited(section) for section in found if section.lines]


def logs_of(error: BaseException, testbed: Testbed | None) -> list[Log]:
    """The logs of all processes, oldest first, and of an app that did not start in any case."""
    refused = error.name if isinstance(error, AppDidNotStart) else None
    logs = []
    for process in testbed.processes if testbed else []:
        succeeded = process.exit.done() and process.exit.result() == 0
        # a command that succeeded has nothing to say, but for the last one, which may have succeeded wrongly
        silent = succeeded and testbed is not None and process is not testbed.processes[-1]
        logs.append(
            Log(process.name, without_dump(process.log), True if process.name == refused else False if silent else None)
        )
    if isinstance(error, AppDidNotStart) and refused not in [log.name for log in logs]:
        logs.append(Log(error.name, error.log, True))
    return logs


def places_in(
    logs: Sequence[Log], folder: Path, endpoint: str = "", edit: Sequence[str] = (), provoked: Collection[str] = ()
) -> list[Place]:
    """Lines of the learner's code that the logs name, those of the newest process first; at most MAX_PLACES.

    Those of errors that hold a text of `provoked` are left out. Where none is left it is the function that made the
    response, `path:line:function`, if it is in one of the files that the lesson is about (`edit`). Where it is in
    another file, the cause is not there.
    """
    found: dict[tuple[str, int], Place] = {}
    for log in reversed(logs):
        for place in _unprovoked(log, folder, provoked):
            found.setdefault((place.path, place.line), place)
    known = endpoint_place(endpoint, folder, ROOT, edit)
    return list(found.values())[:MAX_PLACES] or ([known] if known else [])


def _unprovoked(log: Log, folder: Path, provoked: Collection[str]) -> list[Place]:
    """The lines of the learner's code that a log names, without those of errors that the check has caused."""
    found = places(log.text, folder, ROOT)
    return [place for place in found if not any(text in place.error for text in provoked)]


def _dotenv(testbed: Testbed | None, folder: Path) -> Evidence:
    """A `.env` of the learner's own that sets what the checks set, or leave out on purpose."""
    evidence = Evidence("A file .env lies in the lesson's folder", [])
    try:
        text = (folder / ".env").read_text(encoding="utf-8", errors="replace")
    except OSError:  # nearly always: there is none
        return evidence
    urls = ("DATABASE_URL", "APP_DATABASE_URL", "DIRECT_DATABASE_URL", "DIRECT_APP_DATABASE_URL")
    of_checks = {*urls, *(testbed.lesson.settings if testbed else ())}
    names = [line.removeprefix("export ").partition("=")[0].strip().upper() for line in text.splitlines()]
    evidence.lines.extend(
        Line(f".env sets {name}, as the check does. The app may have read it from there.")
        for name in dict.fromkeys(names)
        if name in of_checks
    )
    return evidence


def place_of_frames(frames: Sequence[tuple[str, int, str]], folder: Path) -> Place | None:
    """The first of these frames (path, line, function) that is in `folder`."""
    for path, line, function in frames:
        if Path(path).is_relative_to(folder):
            return Place(display_path(Path(path)), line, function, "this was still running")
    return None


def tails(logs: Sequence[Log], folder: Path, provoked: Collection[str] = ()) -> list[Evidence]:
    """The last lines of each log; one that names a line of the learner's code is shown by that line instead."""
    shown = [log for log in logs if (log.wanted is None and not _unprovoked(log, folder, provoked)) or log.wanted]
    return [
        Evidence(f"The last lines that {log.name} printed", [Line(line) for line in tail(log.text, ROOT)])
        for log in shown[-MAX_LOGS:]
    ]


def _statements(seen: Recording) -> Evidence:
    """What crossed the wire, without what drivers send for themselves; connections are numbered from 1."""
    numbers: dict[int, int] = {}
    lines: list[Line] = []
    shown = seen.for_display[-MAX_LINES:]
    several = len({statement.process for statement in shown}) > 1  # then each line says whose it is
    for statement in shown:
        number = numbers.setdefault(statement.connection, len(numbers) + 1)
        if statement.error:
            result = statement.error.message
        elif statement.finished is None:
            result = "no response yet"
        else:
            result = plural(statement.rows, "row") if statement.rows else "ok"
        text = shorten_lists(" ".join(statement.text[: 10 * MAX_TEXT].split()))
        lines.append(
            Line(text[:MAX_TEXT], f"{statement.process} #{number}" if several else f"#{number}", result[:MAX_TEXT])
        )
    return Evidence(ON_THE_WIRE, _folded(lines))


def _folded(lines: Sequence[Line]) -> list[Line]:
    """The same statement with the same result, many times in a row, as one line with `×50` at its end."""
    folded = []
    of_process = ((line.label.rpartition("#")[0], line.text, line.result) for line in lines)
    for (_, text, result), pairs in itertools.groupby(zip(of_process, lines, strict=True), lambda pair: pair[0]):
        group = [line for _, line in pairs]
        labels = [line.label for line in group]
        connections = labels[0] if len(set(labels)) == 1 else f"{labels[0]}+"
        folded.append(Line(text, connections, result + (f"  ×{len(labels)}" if len(labels) > 1 else "")))
    return folded


def _limited(section: Evidence) -> Evidence:
    lines = [
        Line(line.text[:MAX_LINE], line.label[:MAX_LINE], line.result[:MAX_LINE]) for line in section.lines[-MAX_LINES:]
    ]
    return Evidence(section.title[:MAX_LINE], lines)
