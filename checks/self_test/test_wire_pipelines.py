"""Random pipelines: what the log says of each statement is what the server answered to it.

The server's answers name their statements: a row holds the number of its statement, so does the message of an error,
and COPY reads as many rows. So the test knows the fate of each without counting messages, as the proxy does.
"""

from __future__ import annotations

import random
import re
import struct
from collections import Counter
from collections.abc import AsyncIterator

import pytest

from checks.kit.postgres import Database, Server
from checks.kit.wire import Statement, open_proxy
from checks.kit.wire.protocol import cstring, error_fields
from checks.self_test.wire_client import DESCRIBE, FLUSH, SYNC, Client, bind, execute, message, parse, query

SCHEMA = "CREATE TABLE copied (n text);"
NAMED = re.compile(r"x(\d+)x")
"""The number of a statement in the message of its error. That of a transaction which has failed before names none."""


@pytest.fixture(scope="module")
async def database(server: Server) -> AsyncIterator[Database]:
    async with server.database(SCHEMA, "pipelines") as database:
        yield database


class Chat:
    """Sends random statements, each with a number, to a server; at random, waits for it in between.

    A statement may fail at its Parse, its Bind or its Execute. The client's next messages are then on their way before
    the error is known, or after: both happen to real clients.
    """

    def __init__(self, client: Client, seed: int) -> None:
        self.client = client
        self.chance = random.Random(seed)
        self.number = 0
        self.buffer = b""
        self.together = self.chance.random() < 0.3  # else each message is a write of its own

    async def send(self, data: bytes) -> None:
        self.buffer += data
        if not self.together:
            await self.flush()

    async def flush(self) -> None:
        data, self.buffer = self.buffer, b""
        await self.client.send(data)

    async def run(self, segments: int) -> None:
        for _ in range(segments):
            for _ in range(self.chance.randint(1, 5)):
                self.number += 1
                await self.chance.choice([self.select, self.select, self.cursor, self.fail, self.command])()
                if self.chance.random() < 0.1:
                    await self.simple()
            if self.chance.random() < 0.3:
                await self.copy()
            await self.send(SYNC)
            if self.chance.random() < 0.4:
                await self.simple()
            if self.chance.random() < 0.5:
                await self.flush()
                await self.client.barrier()
        await self.flush()
        await self.client.barrier()

    async def extended(self, *parts: bytes, error_at: int | None = None) -> None:
        waits = error_at is not None and self.chance.random() < 0.5
        before = len(self.client.received)
        for at, part in enumerate(parts):
            await self.send(part)
            if waits and at == error_at:
                # without the Flush the server might keep the error until the Sync
                await self.send(FLUSH)
                await self.flush()
                if not any(kind == "E" for kind, _ in self.client.received[before:]):
                    await self.client.until("E", self.last_ready())

    def last_ready(self) -> int:
        """The place of the last ReadyForQuery so far; there is an error after it, or there will be one."""
        places = [at for at, (kind, _) in enumerate(self.client.received) if kind == "Z"]
        return places[-1] if places else 0

    async def select(self) -> None:
        name = self.chance.choice(["", f"named{self.number}"])
        text = f"SELECT {self.number} /*{self.number}*/"
        await self.extended(parse(text, name), bind(name), self.chance.choice([b"", DESCRIBE]), execute())

    async def cursor(self) -> None:
        text = f"SELECT {self.number} FROM generate_series(1, 3) /*{self.number} cursor*/"
        await self.extended(parse(text), bind(), execute(1), execute(1), execute())

    async def command(self) -> None:
        text = self.chance.choice(["BEGIN", "COMMIT", "ROLLBACK"])
        await self.extended(parse(f"{text} /*{self.number}*/"), bind(), execute())

    async def fail(self) -> None:
        n, at = self.number, self.chance.randrange(3)
        text, value = (
            (f"SELECT 'x{n}x'::int /*{n}*/", ()),
            (f"SELECT $1::int /*{n}*/", (f"x{n}x",)),
            (f"SELECT ('x' || $1 || 'x')::int /*{n}*/", (str(n),)),
        )[at]
        await self.extended(parse(text), bind("", value), execute(), error_at=at)

    async def copy(self) -> None:
        """By the extended protocol, as libpq sends it: often with a Sync before the data, too."""
        self.number += 1
        n = self.number
        early = self.chance.choice([b"", SYNC])
        head = parse(f"COPY copied FROM STDIN /*{n}*/"), bind(), execute() + early + FLUSH
        if self.chance.random() < 0.5:
            await self.flush()
            await self.client.send(SYNC)
            await self.client.barrier()
            before = len(self.client.received)
            await self.extended(*head)
            await self.flush()
            await self.client.until("GE", before)
        else:
            await self.extended(*head)
        for _ in range(n):
            self.buffer += message("d", b"x\n")
        await self.send(self.chance.choice([message("c"), message("f", f"x{n}x\0".encode())]))

    async def simple(self) -> None:
        self.number += 1
        n = self.number
        text = self.chance.choice(
            [
                f"SELECT {n} /*{n}*/; SELECT {n}",
                f"SELECT ('x{n}x' || n)::int FROM generate_series(1, 2) n /*{n}*/",
                f"/*{n} empty*/",
                f"COPY copied FROM STDIN /*{n}*/",
            ]
        )
        await self.send(query(text))
        if "COPY" in text:
            await self.send(message("d", b"x\n" * n) + message("c"))


class Answers:
    """What the server sent, by the numbers of the statements."""

    def __init__(self, received: list[tuple[str, bytes]]) -> None:
        self.rows: Counter[int] = Counter()
        self.failed: Counter[int] = Counter()
        self.copied: set[int] = set()
        self.tags: Counter[str] = Counter()
        self.sqlstates: Counter[str] = Counter()
        for kind, body in received:
            if kind == "D" and body[6:].isdigit():
                self.rows[int(body[6:])] += 1
            elif kind == "D" and body[:2] == struct.pack("!h", 1) and body[2:6] == struct.pack("!i", 4):
                self.rows[struct.unpack("!i", body[6:])[0]] += 1
            elif kind == "C":
                tag = cstring(body)[0].decode()
                self.tags[tag] += 1
                if tag.startswith("COPY "):
                    self.copied.add(int(tag.split()[1]))
            elif kind == "E":
                fields = error_fields(body)
                self.sqlstates[fields["C"]] += 1
                if number := NAMED.search(fields["M"]):
                    self.failed[int(number[1])] += 1


def disagreements(statements: list[Statement], answers: Answers) -> list[str]:
    """What the log says and the server did not."""
    wrong = []
    by_number: dict[int, list[Statement]] = {}
    for statement in statements:
        if number := re.search(r"/\*(\d+)", statement.text):
            by_number.setdefault(int(number[1]), []).append(statement)
        if statement.finished is None:
            wrong.append(f"never finished: {statement}")
    for number, same in by_number.items():
        errors = [one for one in same if one.error is not None and NAMED.search(one.error.message)]
        if len(errors) != answers.failed[number]:
            wrong.append(f"{answers.failed[number]} errors: {same}")
        if sum(one.rows for one in same) != answers.rows[number]:
            wrong.append(f"{answers.rows[number]} rows: {same}")
        executed = bool(answers.rows[number] or answers.failed[number] or number in answers.copied)
        for one in same:
            if "empty" in one.text or one.verb in ("BEGIN", "COMMIT", "ROLLBACK"):
                continue  # no row and no error that names them; their tags are counted below
            if executed == (one.skipped or (one.error is not None and one not in errors)):
                wrong.append(f"{'executed' if executed else 'skipped'}: {one}")
    tags = Counter(tag for one in statements if one.tag for tag in one.tag.split("; "))
    sqlstates = Counter(one.error.sqlstate for one in statements if one.error)
    for what, logged, sent in (("tags", tags, answers.tags), ("errors", sqlstates, answers.sqlstates)):
        if logged != sent:
            wrong.append(f"{what}: logged {logged - sent} too many, and {sent - logged} too few")
    return wrong


@pytest.mark.parametrize("seed", range(12))
async def test_the_log_says_what_the_server_answered(server: Server, database: Database, seed: int) -> None:
    async with open_proxy(server.address) as wire:
        client = await Client.connect(database.url(wire.host, wire.port, scheme="postgresql"))
        with wire.watching() as seen:
            since = len(client.received)
            await Chat(client, seed).run(segments=40)
            answers = Answers(client.received[since:])
        await wire.wait_idle()
        assert answers.failed
        assert disagreements(seen.statements, answers) == []
        await client.close()
