"""The outside service: what it was asked, what it returns, and all the ways in which it does not."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from checks.kit.testbed import outside_service as module
from checks.kit.testbed.outside_service import (
    Answer,
    Answering,
    Call,
    NeverCalled,
    OutsideService,
    UnexpectedCall,
    outside_service,
)


class Surroundings:
    """What a testbed gives to a service, without a database."""

    def __init__(self) -> None:
        self.env: dict[str, str | None] = {}
        self.steps: list[str] = []
        self.sections: dict[str, Any] = {}

    def note(self, sentence: str, *, detail: str = "", is_response: bool = False, endpoint: str = "") -> None:
        self.steps.append(sentence)

    async def listen(self) -> socket.socket:
        return socket.create_server(("127.0.0.1", 0))

    def add_evidence(self, title: str, lines: Any) -> None:
        self.sections[title] = lines

    def outside(self, env: str) -> tuple[str, Answering | None]:
        return "payment provider", Answer(201, {"id": "p1"})


@pytest.fixture
def surroundings() -> Surroundings:
    return Surroundings()


@pytest.fixture
async def provider(surroundings: Surroundings) -> AsyncIterator[OutsideService]:
    async with outside_service(surroundings, env="PAYMENT_URL") as service:
        yield service


@pytest.fixture
async def client(provider: OutsideService) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=provider.url, trust_env=False, verify=False, timeout=30) as client:
        yield client


@asynccontextmanager
async def sent(client: httpx.AsyncClient, path: str = "/payments", **options: Any) -> AsyncIterator[asyncio.Task[Any]]:
    """A request under way, which the end of the block gives up."""
    task = asyncio.create_task(client.post(path, **options))
    try:
        yield task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_call_is_recorded_whole(provider: OutsideService, client: httpx.AsyncClient) -> None:
    headers = {"Idempotency-Key": "k 1", "Authorization": "Bearer t"}
    response = await client.post("/pay%20ments?order=7&note=", json={"cents": 1200}, headers=headers)
    assert (response.status_code, response.json()) == (201, {"id": "p1"})
    assert response.headers["content-type"] == "application/json"
    [call] = provider.calls
    assert (call.method, call.path, call.query) == ("POST", "/pay ments", {"order": "7", "note": ""})
    assert call.body == b'{"cents":1200}' and call.json == {"cents": 1200} and call["cents"] == 1200
    assert call.headers["idempotency-key"] == "k 1"
    assert call.answer == Answer(201, {"id": "p1"})
    with pytest.raises(UnexpectedCall, match="has no field 'euros'"):
        call["euros"]


async def test_calls_are_evidence_with_their_telling_headers_and_what_they_got(
    provider: OutsideService, client: httpx.AsyncClient, surroundings: Surroundings
) -> None:
    await client.post("/payments", json={"cents": 1200}, headers={"Idempotency-Key": "k1"})
    provider.break_next()
    with pytest.raises(httpx.RemoteProtocolError):
        await client.get("/payments", params={"order": 7})
    [(title, lines)] = surroundings.sections.items()
    assert title == "What the payment provider received"
    assert [(line.label, line.text, line.result) for line in lines()] == [
        ("#1", 'POST /payments idempotency-key: k1 {"cents":1200}', '201 {"id": "p1"}'),
        ("#2", "GET /payments?order=7", "closed before its response"),
    ]
    assert surroundings.steps == ["the payment provider closes the connection before its response"]
    assert surroundings.env == {"PAYMENT_URL": provider.url}


async def test_responses_are_scripted_for_all_calls_for_the_next_ones_and_by_a_function(
    provider: OutsideService, client: httpx.AsyncClient
) -> None:
    async def status() -> int:
        return (await client.post("/payments", json={"order": 7})).status_code

    provider.respond_next(status=402, json={"error": "no money"}, headers={"Retry-After": "7"})
    provider.respond_next(status=204)
    first = await client.post("/payments")
    assert (first.status_code, first.json(), first.headers["retry-after"]) == (402, {"error": "no money"}, "7")
    assert [await status() for _ in range(3)] == [204, 201, 201]
    provider.respond(status=503)
    assert [await status() for _ in range(2)] == [503, 503]
    provider.respond(lambda call: Answer(200, {"order": call["order"], "nth": len(provider.calls)}))
    assert (await client.post("/payments", json={"order": 7})).json() == {"order": 7, "nth": 7}
    assert (await client.post("/payments", json={})).status_code == 400, "the service does not understand it"


async def test_a_function_of_the_check_that_fails_is_the_checks_fault(surroundings: Surroundings) -> None:
    with pytest.raises(ZeroDivisionError):
        async with (
            outside_service(surroundings, env="PAYMENT_URL", answer=lambda call: Answer(1 // 0)) as service,
            httpx.AsyncClient(trust_env=False, verify=False) as client,
        ):
            assert (await client.get(service.url)).status_code == 500


async def test_calls_are_held_until_they_are_released(provider: OutsideService, client: httpx.AsyncClient) -> None:
    async with provider.hold() as held, sent(client, json=1) as first:
        assert [call.json for call in await held.arrived()] == [1]
        async with sent(client, json=2) as second:
            assert [call.json for call in await held.arrived(2)] == [1, 2]
            assert not first.done() and not second.done()
            assert [line.result for line in provider.evidence()] == ["no response yet"] * 2
            held.release_one()
            assert (await first).status_code == 201
            assert not second.done()
            held.release()
            assert (await second).status_code == 201
            assert (await client.post("/payments")).status_code == 201, "nothing is held after the release"
            assert len(held.calls) == 2


async def test_the_end_of_the_block_releases_what_is_held(provider: OutsideService, client: httpx.AsyncClient) -> None:
    async with provider.hold(lambda call: call.method == "POST", limit=1) as held:
        first = asyncio.create_task(client.post("/payments"))
        await held.arrived()
        assert (await client.post("/payments")).status_code == 201, "one is held at most"
        assert (await client.get("/payments")).status_code == 201, "only the chosen ones are held"
        assert not first.done()
    assert (await first).status_code == 201


async def test_a_late_response_finds_nobody(provider: OutsideService, client: httpx.AsyncClient) -> None:
    async with provider.hold() as held:
        async with sent(client, json=1):
            await held.arrived()
        await held.client_left()
        held.release()
    assert (await client.post("/payments", json=2)).status_code == 201
    assert [(call.json, call.outcome) for call in provider.calls] == [
        (1, "the client had left"),
        (2, '201 {"id": "p1"}'),
    ]
    assert provider.calls[0].answer is None


@pytest.mark.parametrize(
    ("after", "error", "got"),
    [
        ("request", "Server disconnected without sending a response", None),
        ("headers", "peer closed connection", b""),
        ("half", "peer closed connection", b'{"id": "'),
    ],
)
@pytest.mark.parametrize("used_before", [False, True], ids=["new connection", "used connection"])
async def test_a_connection_breaks_before_or_within_a_response(
    provider: OutsideService, client: httpx.AsyncClient, after: Any, error: str, got: bytes | None, used_before: bool
) -> None:
    if used_before:
        await client.get("/health")
    provider.respond(status=201, json={"id": "p123456"})
    provider.break_next(after)
    parts: list[bytes] = []
    with pytest.raises(httpx.RemoteProtocolError, match=error):
        async with client.stream("POST", "/payments", json=1) as response:
            assert response.status_code == 201
            async for part in response.aiter_bytes():
                parts.append(part)
    assert provider.calls[-1].json == 1, "the call has arrived"
    if got is not None:
        assert b"".join(parts) == got
    assert (await client.post("/payments")).status_code == 201, "only that connection"


async def test_a_function_chooses_the_call_whose_connection_breaks(
    provider: OutsideService, client: httpx.AsyncClient
) -> None:
    provider.respond(lambda call: Answer(201, breaks="request" if call["order"] == 7 else ""))
    with pytest.raises(httpx.RemoteProtocolError):
        await client.post("/payments", json={"order": 7})
    assert (await client.post("/payments", json={"order": 8})).status_code == 201
    assert [call.outcome for call in provider.calls] == ["closed before its response", "201"]


async def test_a_call_knows_when_it_arrived_and_when_it_got_its_response(
    provider: OutsideService, client: httpx.AsyncClient
) -> None:
    async with provider.hold() as held:
        request = asyncio.create_task(client.post("/payments"))
        [call] = await held.arrived()
        assert call.ended is None
        before = time.perf_counter()
    await request
    assert call.arrived <= before <= (call.ended or 0) <= time.perf_counter()


async def test_received_waits_for_calls_and_says_how_many_came(
    provider: OutsideService, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting = asyncio.create_task(provider.received(2, lambda call: call.path == "/payments"))
    await client.post("/payments")
    await client.get("/health")
    assert not waiting.done()
    await client.post("/payments")
    assert [call.path for call in await waiting] == ["/payments", "/payments"]
    monkeypatch.setattr(module, "CALL_TIMEOUT", 0.01)
    with pytest.raises(NeverCalled, match=r"3 of 4 calls arrived at the payment provider"):
        await provider.received(4)
    async with provider.hold() as held:
        with pytest.raises(NeverCalled, match=r"0 of 1 call arrived at the payment provider"):
            await held.arrived()
        async with sent(client):
            monkeypatch.setattr(module, "CALL_TIMEOUT", 10)
            await held.arrived()
            monkeypatch.setattr(module, "CALL_TIMEOUT", 0.01)
            with pytest.raises(NeverCalled, match=r"0 of 1 client of the payment provider gave up"):
                await held.client_left()


async def test_many_clients_at_once_keep_their_connections(provider: OutsideService) -> None:
    limits = httpx.Limits(max_connections=20)
    async with httpx.AsyncClient(
        base_url=provider.url, trust_env=False, verify=False, limits=limits, timeout=30
    ) as client:
        responses = await asyncio.gather(*(client.post("/payments", json=n) for n in range(200)))
    assert {response.status_code for response in responses} == {201}
    assert sorted(call.json for call in provider.calls) == list(range(200))


async def exchange(provider: OutsideService, sending: bytes) -> bytes:
    """All that comes back for these bytes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(provider.url.rpartition(":")[2]))
    writer.write(sending)
    try:
        async with asyncio.timeout(10):
            return await reader.read()
    finally:
        writer.close()


async def test_pipelined_chunked_and_expecting_clients_are_served(provider: OutsideService) -> None:
    chunked = b"POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"
    last = b"POST /b HTTP/1.1\r\nHost: x\r\nConnection: close\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n"
    came = await exchange(provider, chunked + last + b"[]")
    assert came.count(b"HTTP/1.1 201 Created\r\n") == 2
    assert [(call.path, call.body) for call in provider.calls] == [("/a", b"{}"), ("/b", b"[]")]


async def test_what_is_not_http_is_refused_and_is_no_call(provider: OutsideService) -> None:
    assert (await exchange(provider, b"hello\r\n\r\n")).startswith(b"HTTP/1.1 400 ")
    too_long = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999\r\n\r\n" + b"x" * (9 << 20)
    reader, writer = await asyncio.open_connection("127.0.0.1", int(provider.url.rpartition(":")[2]))
    writer.write(too_long)
    assert (await reader.readline()).startswith(b"HTTP/1.1 413 ")
    writer.close()
    assert provider.calls == []


async def test_an_app_cannot_fill_the_graders_memory(
    provider: OutsideService, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    headers = {"X-Long": "x" * (300 << 10)}
    assert (await client.get("/", headers=headers)).status_code == 431
    assert provider.calls == []
    monkeypatch.setattr(module, "MAX_BYTES", 10_000)
    statuses = [(await client.post("/", headers={"X-Long": "x" * 4_000})).status_code for _ in range(5)]
    assert (statuses, len(provider.calls)) == ([201] * 5, 2), "it responds to what it does not remember"
    monkeypatch.setattr(module, "MAX_CALLS", 0)
    assert (await client.post("/")).status_code == 201
    assert len(provider.calls) == 2


async def test_the_answer_to_head_has_no_body(provider: OutsideService, client: httpx.AsyncClient) -> None:
    response = await client.head("/payments")
    assert (response.status_code, response.content) == (201, b"")
    assert int(response.headers["content-length"]) > 0
    assert (await client.get("/payments")).json() == {"id": "p1"}


async def test_the_end_closes_every_connection(surroundings: Surroundings) -> None:
    async with outside_service(surroundings, env="PAYMENT_URL") as service:
        client = httpx.AsyncClient(base_url=service.url, trust_env=False, verify=False)
        holding = service.hold()
        held = await holding.__aenter__()
        request = asyncio.create_task(client.get("/"))
        await held.arrived()
    with pytest.raises(httpx.TransportError):
        await request
    with pytest.raises(httpx.ConnectError):
        await client.get("/")
    await client.aclose()


def test_a_body_that_is_not_json_is_the_clients_fault() -> None:
    call = Call("POST", "/payments", {}, {}, b"cents=12")
    with pytest.raises(UnexpectedCall, match="The body of POST /payments cents=12 is not JSON"):
        call["cents"]
