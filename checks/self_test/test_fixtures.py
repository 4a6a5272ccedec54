"""What a check may ask for: the order in which fixtures are made, and that each is torn down, whatever happens."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self, cast

import pytest

from checks.kit.grading import run_check
from checks.kit.lessons.lesson import find_lesson
from checks.kit.report.model import Outcome
from checks.kit.service.process import Workspace
from checks.kit.testbed import fixtures
from checks.kit.testbed.fixtures import FIXTURES, Fixture, FixtureError, FixtureStack, fixture, order
from checks.kit.testbed.steps import Steps
from checks.kit.testbed.testbed import Testbed


def made(*own: Fixture) -> fixtures.Fixtures:
    """The kit's fixtures and a lesson's own."""
    return {**FIXTURES, **{known.name: known for known in own}}


@fixture
async def provider(testbed: Testbed) -> AsyncIterator[str]:
    yield "provider"


@fixture
async def account(provider: str, shop: object) -> AsyncIterator[str]:
    yield f"account at {provider}"


@fixture(last=True)
async def worker(testbed: Testbed) -> AsyncIterator[str]:
    yield "worker"


@fixture
async def customer(app: object) -> AsyncIterator[str]:
    yield "customer"


async def app_first(app: Any, customer: Any, worker: Any, account: Any) -> None: ...
async def app_last(account: Any, worker: Any, customer: Any, app: Any) -> None: ...


@pytest.mark.parametrize("check", [app_first, app_last])
def test_what_starts_a_process_is_made_last_whatever_the_order_of_parameters(check: fixtures.Check) -> None:
    names = [needed.name for needed in order(check, made(worker, customer, account, provider))]
    assert names == ["shop", "provider", "account", "app", "worker", "customer"]


def test_an_unknown_name_gets_both_lists() -> None:
    async def test_typo(tap: Any) -> None: ...

    said = (
        "test_typo asks for 'tap'. A check may ask for: large, launch, wire, pgbouncer, server_side, shop, explain, "
        "alembic, endpoints, app, apps, testbed. This lesson's own: provider."
    )
    with pytest.raises(FixtureError) as refusal:
        order(test_typo, made(provider))
    assert str(refusal.value) == said

    @fixture
    async def typo(tap: object) -> AsyncIterator[None]:
        yield

    async def test_other(typo: Any) -> None: ...

    with pytest.raises(FixtureError, match=r"^typo asks for 'tap'"):
        order(test_other, made(typo))


def test_a_cycle_is_named() -> None:
    @fixture
    async def egg(hen: object) -> AsyncIterator[None]:
        yield

    @fixture
    async def hen(egg: object) -> AsyncIterator[None]:
        yield

    async def test_farm(shop: Any, egg: Any) -> None: ...

    with pytest.raises(FixtureError, match=r"^Fixtures ask for one another in a circle: egg → hen → egg.$"):
        order(test_farm, made(egg, hen))


def test_what_is_no_fixture_says_how_one_is_written() -> None:
    async def forgot_to_yield(testbed: Testbed) -> int:
        return 1

    with pytest.raises(FixtureError, match=r"write async def forgot_to_yield\(testbed\), with one yield in it"):
        fixture(cast(Any, forgot_to_yield))


class Recorder:
    """Fixtures a, b and c that record what happens to them; `trouble` is what the teardown of each does."""

    def __init__(self, **trouble: Callable[[], Any]) -> None:
        self.events: list[str] = []
        self.trouble = trouble
        self.stack = FixtureStack(cast(Testbed, object()), made(*(self._fixture(name) for name in "abc")))

    def _fixture(self, name: str) -> Fixture:
        async def function(testbed: Testbed) -> AsyncIterator[str]:
            self.events.append(f"+{name}")
            yield name
            self.events.append(f"-{name}")
            if name in self.trouble:
                await self.trouble[name]()

        function.__name__ = name
        return fixture(function)


async def needs_all(c: Any, a: Any, b: Any) -> None: ...


async def fail() -> None:
    raise ValueError("broken teardown")


async def test_teardown_runs_in_reverse_order_although_one_fails() -> None:
    recorder = Recorder(b=fail)
    assert await recorder.stack.set_up(needs_all) == {"c": "c", "a": "a", "b": "b"}
    error = await recorder.stack.tear_down()
    assert recorder.events == ["+a", "+b", "+c", "-c", "-b", "-a"]
    assert str(error) == "broken teardown"
    assert await recorder.stack.tear_down() is None, "it runs once"


async def test_a_fixture_that_cannot_be_made_leaves_none_before_it_behind() -> None:
    @fixture(last=True)
    async def broken(testbed: Testbed) -> AsyncIterator[None]:
        raise RuntimeError("no provider")
        yield

    async def check(broken: Any, a: Any) -> None: ...

    recorder = Recorder()
    recorder.stack._fixtures = made(*recorder.stack._fixtures.values(), broken)
    with pytest.raises(RuntimeError, match="no provider"):
        await recorder.stack.set_up(check)
    assert await recorder.stack.tear_down() is None
    assert recorder.events == ["+a", "-a"]


async def test_a_teardown_without_end_is_ended_and_the_others_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fixtures, "TEARDOWN_TIMEOUT", 0.01)
    recorder = Recorder(c=asyncio.Event().wait)
    await recorder.stack.set_up(needs_all)
    error = await recorder.stack.tear_down()
    assert isinstance(error, FixtureError)
    assert str(error).startswith("The fixture c did not end within")
    assert recorder.events[-3:] == ["-c", "-b", "-a"]


async def test_a_cancellation_during_teardown_stops_no_teardown() -> None:
    recorder = Recorder(c=asyncio.Event().wait, b=fail)
    await recorder.stack.set_up(needs_all)
    task = asyncio.create_task(recorder.stack.tear_down())
    async with asyncio.timeout(5):
        while "-c" not in recorder.events:
            await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert recorder.events[-3:] == ["-c", "-b", "-a"]


class EmptyTestbed(Testbed):
    """A testbed without a database, for checks that need none."""

    async def __aenter__(self) -> Self:
        self.seen = cast(Any, SimpleNamespace(for_display=[]))
        return self

    async def __aexit__(self, *_: object) -> None:
        return


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    """Fixtures that `run_check` finds as the lesson's own."""
    recorder = Recorder()
    monkeypatch.setattr(run_check, "Testbed", EmptyTestbed)
    monkeypatch.setattr(fixtures, "of_lesson", lambda name: recorder.stack._fixtures)
    return recorder


def run(check: fixtures.Check) -> Any:
    """`run_check`, on no server."""
    runtime = SimpleNamespace(
        workspace=lambda folder, note: Workspace(cast(Any, None), folder, folder, note=note), lost_apps=False
    )
    return run_check.run_check(check, cast(Any, runtime), find_lesson(0), Path())


async def test_a_check_that_hangs_is_failed_and_its_fixtures_end(
    recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hangs(b: Any) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(run_check, "CHECK_TIMEOUT", 0.01)
    result = await run(hangs)
    assert result.outcome is Outcome.FAILED
    assert "did not end" in result.finding.happened
    assert recorder.events == ["+b", "-b"]


async def test_a_wait_in_a_check_that_takes_too_long_is_not_the_whole_check(recorder: Recorder) -> None:
    async def waits(b: Any) -> None:
        async with asyncio.timeout(0):
            await asyncio.Event().wait()

    result = await run(waits)
    assert (result.outcome, result.finding.happened) == (Outcome.FAILED, "The check waited in vain for the app.")


async def test_a_check_that_is_canceled_ends_its_fixtures(recorder: Recorder) -> None:
    async def hangs(a: Any, b: Any) -> None:
        await asyncio.Event().wait()

    task = asyncio.create_task(run(hangs))
    async with asyncio.timeout(5):
        while len(recorder.events) < 2:
            await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert recorder.events == ["+a", "+b", "-b", "-a"]


async def test_evidence_is_asked_for_when_the_check_fails_and_never_hides_why(recorder: Recorder) -> None:
    async def check(testbed: Testbed, a: Any) -> None:
        testbed.add_evidence("Events", lambda: list(recorder.events))
        testbed.add_evidence("Nothing", [])
        testbed.add_evidence("Broken", lambda: [1 / 0])  # type: ignore[list-item]
        testbed.note("it tried")
        testbed.note("it tried")
        raise LookupError("no such account")

    result = await run(check)
    assert result.outcome is Outcome.ERROR
    assert result.finding.happened == "The check ended with an error of its own: LookupError: no such account"
    assert [(section.title, [line.text for line in section.lines]) for section in result.evidence] == [
        ("Events", ["+a"]),
        ("Broken", ["This evidence could not be collected: ZeroDivisionError: division by zero"]),
    ]
    assert result.steps == ["it tried  ×2"]
    assert recorder.events == ["+a", "-a"]


def test_statements_that_are_held_one_after_the_other_are_one_step() -> None:
    steps = Steps()
    for text in ("SELECT 1", "SELECT 1", "SELECT 2", "SELECT 1"):
        steps.add(f"held on the wire: {text}")
    steps.add("4 database connections cut")
    for _ in range(2):
        steps.add("held on the wire: COMMIT")
    assert steps.rendered() == [
        "held on the wire: 4 statements\nSELECT 1  ×3\nSELECT 2",
        "4 database connections cut",
        "held on the wire: COMMIT  ×2",
    ]


def test_many_responses_are_counted_in_any_order_and_few_in_theirs() -> None:
    steps = Steps()
    for text in ("GET /a → 200", "GET /b → 200", "GET /a → 200"):
        steps.add(text, is_response=True)
    assert steps.rendered() == ["GET /a → 200", "GET /b → 200", "GET /a → 200"]
    for text in ("GET /c → 200", "GET /d → 200", "GET /e → 200", "GET /b → 200", "GET /e → 200"):
        steps.add(text, is_response=True)
    steps.add("a → b")
    steps.add("GET /e → 200", is_response=True)
    assert steps.rendered()[1] == "GET /b → 200  ×2"
    assert steps.rendered()[-3:] == ["GET /e → 200  ×2", "a → b", "GET /e → 200"]
