"""The words of which checks are made, as a page in Markdown, from the docstrings: `workbook dev vocabulary`.

Each example is a line of the lessons' own checks: the shortest one in the first lesson that uses the word.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import itertools
import re
import sys
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from checks.kit.grading.plugin import MARKS
from checks.kit.lessons.lesson import all_lessons
from checks.kit.lessons.paths import ROOT
from checks.kit.report import expect
from checks.kit.service.app import App, PendingRequest, Response, StreamingResponse
from checks.kit.service.command import CompletedCommand
from checks.kit.service.process import Exit, RunningProcess
from checks.kit.testbed import fixtures, waiting
from checks.kit.testbed.apps import Apps
from checks.kit.testbed.endpoints import Endpoint
from checks.kit.testbed.explain import Explain
from checks.kit.testbed.invariants import Ledger, assert_the_shop_adds_up, charged, discrepancies, read_ledger
from checks.kit.testbed.outside_service import Answer, Call, HeldCalls, OutsideService, outside_service
from checks.kit.testbed.plan import Node, Plan
from checks.kit.testbed.rows import Seeded
from checks.kit.testbed.shop import Shop
from checks.kit.testbed.testbed import Testbed
from checks.kit.wire import Connection, Hold, Loss, Recording, ServerError, Statement, Transaction, Wire, committing

PAGE = ROOT / ".github" / "VOCABULARY.md"


@dataclass(frozen=True, slots=True)
class Word:
    """Something that a check holds in a variable: the variable's usual name, its class, and where a check gets one.

    `without` are members for the kit alone. `others` is a pattern of the names that checks give to such a variable.
    """

    name: str
    kind: type
    source: str
    without: tuple[str, ...] = ()
    others: str = "[a-z]+"


WORDS = (
    Word(
        "app",
        App,
        "the fixture. `app.get(path)`, `post`, `put`, `patch` and `delete` are `app.request` with that method.",
    ),
    Word("response", Response, "`await app.get(...)`."),
    Word("request", PendingRequest, "`app.start_request(...)`."),
    Word("stream", StreamingResponse, "`async with app.stream(...)`."),
    Word("apps", Apps, "the fixture."),
    Word("process", RunningProcess, "`await testbed.start(...)` and `app.process`.", without=("end",)),
    Word("exit", Exit, "`await app.stop()`."),
    Word("wire", Wire, "the fixture.", without=("subscribe", "close", "entrance")),
    Word("hold", Hold, "`async with wire.hold(...)`.", without=("forget", "take", "wants")),
    Word("lost", Loss, "`async with wire.lost_response(...)`.", without=("wants",)),
    Word("seen", Recording, "`with wire.watching()`.", without=("close", "for_display")),
    Word("statement", Statement, "`seen.statements` or `hold.waiting`."),
    Word("transaction", Transaction, "`seen.transactions`."),
    Word("error", ServerError, "`statement.error`, if it is not None."),
    Word(
        "connection",
        Connection,
        "`wire.connections`. Of one that has ended, `wire.closed` keeps `id`, `parameters`, `close_reason`, `status`.",
        without=("client_side", "from_client", "from_server", "record", "resume", "silence_changed", "abort", "close"),
    ),
    Word(
        "service",
        OutsideService,
        "`async with outside_service(...)` in a fixture of the lesson.",
        without=("evidence", "listen", "close"),
        others="provider|gateway",
    ),
    Word("call", Call, "`service.calls`."),
    Word("held", HeldCalls, "`async with service.hold()`.", without=("wants", "take"), others="held"),
    Word("answer", Answer, "`call.answer`; a check makes one for `service.respond(function)`.", without=("outgoing",)),
    Word("shop", Shop, "the fixture."),
    Word("explain", Explain, "the fixture.", without=("statements", "plans"), others="explain"),
    Word(
        "plan",
        Plan,
        "`await explain(statement)`, or a list of them from `await explain.all(seen)`.",
        others="plan",
    ),
    Word("node", Node, "`plan.nodes`, `plan.root` and `node.children`.", without=("walk",)),
    Word("ids", Seeded, "`await shop.seed(...)`."),
    Word("ledger", Ledger, "`await read_ledger(shop)`."),
    Word(
        "endpoint",
        Endpoint,
        "`endpoints(ids)`, a list. `writes=False` chooses those that only read, `login=True` those that need a login; "
        '`headers={"Authorization": ...}` go with these. `email=`, `password=` and `refresh_token=` are what bodies '
        "log in with.",
    ),
    Word("done", CompletedCommand, "`await alembic(...)` and `await testbed.command(...)`."),
    Word(
        "testbed",
        Testbed,
        "the fixture, which other fixtures ask for; checks seldom do.",
        without=("evidence", "events", "requests", "started", "outside", "open_services"),
    ),
)

FUNCTIONS: tuple[tuple[str, tuple[Callable[..., Any], ...]], ...] = (
    ("State what must hold", (expect,)),
    (
        "Wait for more than one connection or request",
        (
            waiting.wait_quiescent,
            waiting.responded_while_held,
            waiting.served_meanwhile,
            waiting.refused_a_lock,
        ),
    ),
    ("Choose statements", (committing,)),
    ("Hold that the shop adds up", (read_ledger, assert_the_shop_adds_up, discrepancies, charged)),
    ("Make a fixture for a service that the app calls", (outside_service,)),
)

HEAD = """<!-- Made by `uv run workbook dev vocabulary --write` from docstrings. Change those, not this page. -->

# The vocabulary of checks

What a check can use, with a line for each word and an example from a lesson. [CONTRIBUTING.md](CONTRIBUTING.md) says
how a check is written, and what to do when a word is missing.
"""

WAITS = """
## Which wait when

| You want to know | Wait with |
| --- | --- |
| whether a statement arrives that you hold | `await hold.wait_for(n)`; it raises if none does |
| how many statements arrive, if any | `await hold.count_within(n, timeout)` |
| which comes first, the held statement or the response | `await hold.wait_for_or(request.task)` |
| that no transaction stays open | `await wire.wait_idle()`; it raises if one does |
| whether others are served while a request is held | `await served_meanwhile(app, "GET", path)` |
| what the app still does after its responses | `await wait_quiescent(app, wire)`, then look at `seen` |
| that everything the app printed is in `app.log` | `await app.flush()` |
| that a process has ended | `await app.stop()`, `await process.terminate()`, `await process.kill()` |
| whether an outside service is asked | `await service.received(n)`; it raises if it is not |
| whether it is asked while it does not respond | `await held.arrived(n)`; it raises if it is not |
| that a client of it has given up | `await held.client_left()` |

Never sleep: a sleep is too short on a busy machine and too long on a quiet one.
"""


class Examples:
    """The statements of the lessons' checks that fit on one line."""

    def __init__(self, folder: Path) -> None:
        self._lines: list[str] = []
        for lesson in sorted(folder.glob("lesson_*")):
            texts = [path.read_text(encoding="utf-8") for path in sorted(lesson.glob("*.py"))]
            lines = {line.strip() for text in texts for line in text.splitlines()}
            self._lines += sorted(filter(_is_statement, lines), key=lambda line: (len(line), line))

    def of(self, pattern: str) -> str:
        """The first lesson's shortest one with a match, which a later lesson does not replace; empty if none has."""
        return next((line for line in self._lines if re.search(pattern, line)), "")


def _is_statement(line: str) -> bool:
    """Whether a line says something without the lines around it."""
    if line.startswith(('f"', '"')) or line.endswith(",") or len(line) > 110:
        return False
    if line.startswith("@pytest"):
        return True
    try:
        ast.parse(f"async def check():\n {line}{' pass' if line.endswith(':') else ''}")
    except SyntaxError:
        return False
    return True


def page() -> str:
    """The whole page."""
    examples = Examples(ROOT / "checks")
    parts = [HEAD, "\n## Fixtures\n\nA check asks for these by the names of its parameters, in any order.\n\n"]
    parts += [_fixture(fixture) for fixture in fixtures.FIXTURES.values()]
    for lesson in all_lessons():
        local = [f for name, f in fixtures.of_lesson(lesson.name).items() if name not in fixtures.FIXTURES]
        if local:
            parts.append(f"\nOf lesson {lesson.number:02} only (`checks/{lesson.name}/fixtures.py`):\n\n")
            parts += [_fixture(fixture) for fixture in local]
    for title, functions in FUNCTIONS:
        parts.append(f"\n## {title}\n\n`from {_public(functions[0])} import ...`\n\n")
        for function in functions:
            usage, example = _call("", function.__name__, function), examples.of(rf"\b{function.__name__}\b[^:]")
            parts.append(_entry(usage, function.__doc__, example))
    parts.append(WAITS)
    for word in WORDS:
        about = inspect.cleandoc(word.kind.__doc__ or "")
        parts += [f"\n## `{word.name}`\n\n{about}\n\nFrom {word.source}\n\n", *_members(word, examples)]
    parts.append("\n## Marks\n\n`@pytest.mark.NAME` on the line before a check.\n\n")
    parts += [_mark(mark, examples) for mark in MARKS]
    return "".join(parts)


def _public(function: Callable[..., Any]) -> str:
    """The module from which checks import it: the room, where the room offers it."""
    room = function.__module__.rpartition(".")[0]
    return room if function.__name__ in getattr(sys.modules[room], "__all__", ()) else function.__module__


def _fixture(fixture: fixtures.Fixture) -> str:
    return f"- `{fixture.name}`: {_line(fixture.open.__doc__)}\n"


def _mark(mark: str, examples: Examples) -> str:
    usage, _, meaning = mark.partition(": ")
    example = examples.of(rf"^@pytest\.mark\.{usage.partition('(')[0]}\(")
    return f"- `{usage}`: {meaning}.\n" + (f"  `{example}`\n" if example else "")


def _members(word: Word, examples: Examples) -> Iterator[str]:
    """An entry for each member with a docstring, and a line with the fields that have none."""
    documented, plain = _attributes(word.kind)
    for attribute, doc in documented.items():
        yield _entry(f"{word.name}.{attribute}", doc, examples.of(rf"\b{word.name}\.{attribute}\b"))
    for member, value in vars(word.kind).items():
        if member.startswith("_") or member in word.without or member in documented:
            continue
        if isinstance(value, property) and value.__doc__:
            yield _entry(f"{word.name}.{member}", value.__doc__, examples.of(rf"\b{word.name}\.{member}\b"))
        elif isinstance(value, property):
            plain.append(member)
        elif inspect.isfunction(value) and value.__doc__:
            example = examples.of(rf"\b{word.name}\.{member}\(") or examples.of(rf"\b(?:{word.others})\.{member}\(")
            yield _entry(_call(f"{word.name}.", member, value), value.__doc__, example)
    if plain:
        yield f"- Also: {', '.join(f'`{word.name}.{name}`' for name in plain)}\n"


def _attributes(kind: type) -> tuple[dict[str, str], list[str]]:
    """The public attributes that a class or its `__init__` describes in a string below, and the other fields."""
    [tree] = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    assert isinstance(tree, ast.ClassDef)
    init = next((node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "__init__"), None)
    documented: dict[str, str] = {}
    for body in (tree.body, init.body if init else []):
        for node, following in itertools.pairwise([*body, ast.Pass()]):
            match node, following:
                case (
                    ast.AnnAssign(target=ast.Name(id=name) | ast.Attribute(attr=name)),
                    ast.Expr(value=ast.Constant(value=str(text))),
                ) if not name.startswith("_"):
                    documented[name] = text
    fields = [field.name for field in dataclasses.fields(kind)] if dataclasses.is_dataclass(kind) else []
    return documented, [name for name in fields if name not in documented and not name.startswith("_")]


def _call(owner: str, name: str, function: Callable[..., Any]) -> str:
    """How it is called: `await app.get(path, **options)`, `async with wire.hold(what, limit=None)`."""
    parameters = list(inspect.signature(function).parameters.values())[1 if owner else 0 :]
    plain = [parameter.replace(annotation=inspect.Parameter.empty) for parameter in parameters]
    arguments = re.sub(r"<[\w.]+\.(\w+): [^>]+>", r"\1", str(inspect.Signature(plain)))
    arguments = re.sub(r"\d+\.\d+", lambda number: f"{float(number[0]):.3g}", arguments)
    written = inspect.unwrap(function)
    returns = str(written.__annotations__.get("return", ""))
    if inspect.isasyncgenfunction(written) or "AsyncContextManager" in returns:
        before = "async with "
    elif inspect.iscoroutinefunction(written):
        before = "await "
    else:
        before = "with " if "ContextManager" in returns else ""
    return f"{before}{owner}{name}{arguments}"


def _entry(usage: str, doc: str | None, example: str) -> str:
    return f"- `{usage}`: {_line(doc)}\n" + (f"  `{example}`\n" if example and example != usage else "")


def _line(doc: str | None) -> str:
    """The first paragraph of a docstring as one line."""
    return " ".join(inspect.cleandoc(doc or "").split("\n\n")[0].split())
