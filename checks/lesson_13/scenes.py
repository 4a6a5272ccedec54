"""What the notebook of lesson 13 needs besides its subject: sessions that wait, a picture of them, measured ALTERs."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from checks.kit.lessons.lesson import find_lesson
from checks.kit.notebook import command_line
from checks.lesson_13.fixtures import Deploy
from checks.lesson_13.replay import COUNTERS, LOCKS, READERS_WAIT, WRITERS_WAIT, Step, short, spoken

BLUE, RED, GREY = "#2c5fa8", "#c0352c", "#8a919b"


@asynccontextmanager
async def production(target: str = "lessons", *, many: bool = False) -> AsyncIterator[Deploy]:
    """Production's database at revision 0013, and the deploy of your release or of the solution."""
    scripts = [find_lesson(13).checks_folder / name for name in ("production.sql", *(["large.sql"] if many else []))]
    async with command_line(13, target) as line:
        await line.testbed.fill(*scripts)
        yield Deploy(line.testbed, scripts)


class Sessions:
    """Sessions of one database. `await sessions.run("report", "SELECT ...")` returns when it has ended or waits."""

    def __init__(self, deploy: Deploy) -> None:
        self._deploy = deploy
        self._stack = AsyncExitStack()
        self._open: dict[str, Any] = {}
        self._texts: dict[str, str] = {}
        self._running: dict[str, asyncio.Task[str]] = {}

    async def __aenter__(self) -> Sessions:
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._running.values():
            task.cancel()
        pids = [connection.info.backend_pid for connection in self._open.values()]
        await self._stack.aclose()
        await self._gone(pids)

    async def run(self, name: str, *statements: str) -> str:
        """Runs statements in the session of this name; the outcome, or "waits"."""
        import psycopg

        if name not in self._open:
            conninfo = self._deploy.testbed.login(self._deploy.testbed.database).conninfo().decode()
            self._open[name] = connection = await psycopg.AsyncConnection.connect(conninfo, autocommit=True)
            self._stack.push_async_callback(connection.close)  # which rolls back
        self._texts[name] = statements[-1]
        self._running[name] = task = asyncio.create_task(self._outcome(name, statements))
        while not task.done() and not await self._waits(name):
            await asyncio.wait({task}, timeout=0.01)
        return task.result() if task.done() else "waits"

    async def end(self, name: str) -> str:
        """The outcome of what the session runs, once it has ended."""
        return await self._running[name]

    async def close(self, name: str) -> None:
        """Ends a session, and its transaction."""
        connection = self._open.pop(name)
        pid = connection.info.backend_pid
        await connection.close()
        await self._gone([pid])

    async def blockers(self) -> dict[str, list[str]]:
        """For each session that waits: the sessions that it waits for."""
        names = {connection.info.backend_pid: name for name, connection in self._open.items()}
        sql = "SELECT pid, pg_blocking_pids(pid) AS by FROM unnest($1::int[]) AS pid"
        rows = await self._deploy.shop.rows(sql, list(names))
        return {names[row["pid"]]: [names[pid] for pid in row["by"]] for row in rows if row["by"]}

    async def picture(self) -> Any:
        """Who waits for whom, as a graph."""
        return _graph(self._texts, await self.blockers())

    async def _outcome(self, name: str, statements: Iterable[str]) -> str:
        import psycopg

        try:
            for statement in statements:
                await self._open[name].execute(statement)
        except psycopg.Error as error:
            return f"SQLSTATE {error.sqlstate}"
        return "done"

    async def _waits(self, name: str) -> bool:
        """For another one of these sessions: autovacuum, for example, may be in the way for a moment."""
        sql = "SELECT pg_blocking_pids($1) && $2::int[]"
        others = [other.info.backend_pid for other in self._open.values()]
        return bool(await self._deploy.shop.value(sql, self._open[name].info.backend_pid, others))

    async def _gone(self, pids: Sequence[int]) -> None:
        """The server has noticed that these sessions are closed: their locks are released."""
        while await self._deploy.shop.value("SELECT count(*) FROM pg_stat_activity WHERE pid = ANY($1::int[])", pids):
            pass


def _graph(texts: Mapping[str, str], blockers: Mapping[str, list[str]]) -> Any:
    """Sessions in columns: those that wait for nobody, those that wait for them, and so on."""
    import matplotlib.pyplot as plt

    columns: dict[str, int] = {}

    def column(name: str) -> int:
        if name not in columns:
            columns[name] = 1 + max((column(other) for other in blockers.get(name, ())), default=-1)
        return columns[name]

    stacks: dict[int, list[str]] = {}
    for name in texts:
        stacks.setdefault(column(name), []).append(name)
    height = max(map(len, stacks.values()))
    places = {
        name: (4.0 * x, -(n + (height - len(stack)) / 2)) for x, stack in stacks.items() for n, name in enumerate(stack)
    }
    figure, pane = plt.subplots(figsize=(10, 0.8 + 0.75 * height))
    for name, (x, y) in places.items():
        color = RED if any(name in others for others in blockers.values()) and name in blockers else BLUE
        color = color if name not in blockers or color == RED else GREY
        pane.text(x, y, f"{name}\n{short(texts[name], 34)}", ha="center", va="center", fontsize=8, color="white",
                  bbox={"boxstyle": "round,pad=0.5", "facecolor": color, "edgecolor": "none"})  # fmt: skip
    for name, others in blockers.items():
        for other in others:
            if columns[other] == columns[name] - 1:
                start, end = places[name], places[other]
                pane.annotate("", (end[0] + 1.5, end[1]), (start[0] - 1.5, start[1]),
                              arrowprops={"arrowstyle": "->", "color": "#333333", "lw": 1.4})  # fmt: skip
    pane.set_xlim(-1.8, 4.0 * max(stacks) + 1.8)
    pane.set_ylim(-height + 0.3, 0.7)
    pane.axis("off")
    figure.tight_layout()
    plt.close(figure)
    return figure


async def measured(deploy: Deploy, statement: str) -> tuple[bool, int, str]:
    """Whether a statement gives a table another file, how many rows it reads, and its strongest lock; rolled back."""
    import psycopg

    files = "SELECT array_agg(pg_relation_filenode(oid) ORDER BY oid) FROM pg_class WHERE relkind = 'r' AND oid > 16000"
    login = deploy.testbed.login(deploy.testbed.database)
    async with await psycopg.AsyncConnection.connect(login.conninfo().decode()) as connection:

        async def rows(sql: str) -> list[Any]:
            return await (await connection.execute(sql)).fetchall()

        async def read() -> int:
            return sum(count for name, count in await rows(COUNTERS.decode()) if not name.startswith("pg_"))

        before, read_before = await rows(files), await read()
        await connection.execute(statement)  # type: ignore[arg-type]
        rewritten, count = await rows(files) != before, await read() - read_before
        modes = {mode for _, mode in await rows(LOCKS.decode())}
        await connection.rollback()
    order = (*READERS_WAIT, *reversed(WRITERS_WAIT), "ShareUpdateExclusiveLock", "RowExclusiveLock")
    return rewritten, count, spoken(next((mode for mode in order if mode in modes), ""))


def squawk(recordings: Sequence[Any]) -> dict[str, list[str]]:
    """What squawk says to the statements that Alembic sent: rules, and the statements that break them."""
    texts = [one.text.strip().rstrip(";") for one in recordings[0] + recordings[1] if not one.driver]
    script = ";\n".join(" ".join(text.split()) for text in texts if not text.startswith("SELECT")) + ";\n"
    command = [str(Path(sys.executable).parent / "squawk"), "--reporter", "json", "--stdin-filepath", "migration.sql"]
    done = subprocess.run(command, input=script, capture_output=True, text=True, check=False)
    lines = script.splitlines()
    found: dict[str, list[str]] = {}
    for violation in json.loads(done.stdout or "[]"):
        found.setdefault(violation["rule_name"], []).append(short(lines[violation["line"]], 60))
    return found


async def statements(deploy: Deploy) -> list[Any]:
    """Deploys, and returns the statements that Alembic has sent in steps 1 and 4, a list for each."""
    recordings = []
    for target in ("0014", "head"):
        with deploy.testbed.wire.watching() as seen:
            await deploy.upgrade(target)
        recordings.append([one for one in seen.statements if one.process.startswith("alembic")])
        if target == "0014":
            await deploy.backfill()
    return recordings


async def replayed(deploy: Deploy, recordings: Sequence[Any]) -> list[Step]:
    """What these statements do in a copy of production's database."""
    copy = await deploy.copy()
    steps = await copy.replay(recordings[0])
    await copy.backfill()
    return [*steps, *await copy.replay(recordings[1])]


async def most_written(deploy: Deploy) -> int:
    """Runs the backfill; the most rows of one table that one of its transactions has written."""
    sql = "SELECT xmin::text AS xmin, count(*) FROM {table} GROUP BY xmin"
    tables = ("orders", "coupons")
    before = {row["xmin"] for table in tables for row in await deploy.shop.rows(sql.format(table=table))}
    await deploy.backfill()
    after = [row for table in tables for row in await deploy.shop.rows(sql.format(table=table))]
    return max((row["count"] for row in after if row["xmin"] not in before), default=0)


async def killed_once(deploy: Deploy, target: str) -> str:
    """Kills Alembic before its second COMMIT; what the next attempt says."""
    async with deploy.testbed.wire.hold(lambda one: one.commits and "alembic" in one.process) as commits:
        process = await deploy.start("alembic", "upgrade", target)
        if await commits.wait_for_or(process.exit):
            commits.release_one()
            if await commits.wait_for_or(process.exit):
                await deploy.kill(process)
    done = await deploy.try_upgrade(target)
    return "it succeeds" if done.ok else done.last_line.rpartition("Error) ")[2]


def stopped_by(step: Step) -> str:
    """Which tables nobody can write, or read, while a statement runs: `receipts (ACCESS EXCLUSIVE)`."""
    found = [f"{table} ({spoken(mode)})" for table, mode in step.stopped().items()]
    return ", ".join(found) or "nobody is stopped"
