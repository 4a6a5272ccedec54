"""Runs the services of a release as compose.yaml declares them, without a container engine."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass
from functools import cached_property
from signal import Signals
from typing import TYPE_CHECKING

import httpx

from checks.kit.report import expect
from checks.kit.service.app import HOST, App, NoResponse
from checks.kit.service.command import CompletedCommand
from checks.kit.service.inside.container import ContainerSpec
from checks.kit.service.launcher import RESPONSE_TIMEOUT
from checks.kit.service.machine import busy
from checks.lesson_18.compose import Compose, Service

if TYPE_CHECKING:
    from checks.kit.service.process import RunningProcess
    from checks.kit.testbed.testbed import Testbed

CONTAINER = "checks.kit.service.inside.container"
OUTSIDE = "127.0.0.2" if sys.platform == "linux" else "127.0.0.1"
"""An address of this machine that a service is not reached at if it listens on 127.0.0.1 only."""

STARTED, STARTED_WHEN_BUSY = 60.0, 300.0
"""Seconds within which a service must accept connections; bounds for failures, not measurements."""

SILENT = 0.5
"""Seconds after which a client that was accepted takes it that nobody will respond.

A statement that is held meanwhile is given up after 2.5 s. Where a busy service needs longer, the check goes on, and
the ends of request and process tell what is wrong.
"""

LONGEST_GRACE = 30.0
"""Seconds for which a check waits at most, however long the grace period is."""

SETTINGS = ("PORT", "PAYMENT_URL", "MAIL_URL")
"""Variables that the platform sets."""

SECRETS = ("DATABASE_URL", "APP_DATABASE_URL", "DIRECT_DATABASE_URL", "DIRECT_APP_DATABASE_URL", "JWT_SECRET")
"""Variables with what the platform keeps as secrets; the file of each has its name in lower case."""

NOT_STARTED = "The release does not start, and the shop stays on the old one or is down."
FIVE_WAYS = "Five ways to write CMD"

_ports = itertools.count(20_000 + os.getpid() * 37 % 9_000)


@dataclass(frozen=True)
class Started:
    """A service that runs: its process, and what compose.yaml says of it."""

    service: Service
    process: RunningProcess

    @property
    def grace(self) -> float:
        return min(self.service.grace, LONGEST_GRACE)

    @property
    def stop_signal(self) -> Signals:
        """SIGTERM, unless compose.yaml or the Dockerfile names another one."""
        name = self.service.stop_signal
        return Signals(int(name)) if name.isdigit() else Signals[f"SIG{name.removeprefix('SIG')}"]

    def stop(self) -> None:
        """What a deploy does first: a signal to the first process of the container, and to no other."""
        self.process.signal(self.stop_signal)

    async def ended(self) -> int | None:
        """The exit code; None if it still runs at the end of the grace period."""
        await asyncio.wait({self.process.exit}, timeout=self.grace)
        return self.process.exit.result() if self.process.exit.done() else None

    async def finished(self) -> int | None:
        """The exit code of a service that ends by itself; None if it does not."""
        await asyncio.wait({self.process.exit}, timeout=STARTED_WHEN_BUSY if busy() else 2 * STARTED)
        return self.process.exit.result() if self.process.exit.done() else None


@dataclass(frozen=True)
class Web(Started):
    """The service `web`, which accepts connections at `port`."""

    app: App
    port: int
    testbed: Testbed

    async def dial(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connects as the platform does, from outside of the container. Raises OSError."""
        return await self.testbed.runtime.dial(OUTSIDE, self.port)

    async def refuses(self) -> bool:
        """True as soon as it responds to no new client; False if it still does at the end of the grace period.

        The first process of several workers keeps the socket open until they have ended. So the kernel still takes
        connections, and nobody responds there.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.grace):
                while await self._responds_to_a_new_client():  # noqa: ASYNC110  (nothing tells of it)
                    await asyncio.sleep(0.02)
                return True
        return False

    async def _responds_to_a_new_client(self) -> bool:
        try:
            reader, writer = await self.dial()
        except OSError:
            return False
        try:
            writer.write(b"GET /live HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n")
            async with asyncio.timeout(SILENT):
                return bool(await reader.read(1))
        except OSError:  # TimeoutError is one
            return False
        finally:
            writer.close()


class Release:
    """What the learner ships: `await release.web()` starts `web`, `await release.start("worker")` another service."""

    def __init__(self, testbed: Testbed) -> None:
        self.testbed = testbed
        self.folder = testbed.folder
        self._stack = AsyncExitStack()

    @cached_property
    def compose(self) -> Compose:
        return Compose(self.folder)

    async def close(self) -> None:
        await self._stack.aclose()

    def spec(
        self,
        service: Service,
        command: list[str] | None = None,
        *,
        only_files: bool = False,
        only_variables: bool = False,
        without: str = "",
    ) -> ContainerSpec:
        """The container of a service. Secrets are files and variables, unless it is told; it gets none of `without`."""
        files = {} if only_variables else {target: source.upper() for target, source in service.secrets.items()}
        return ContainerSpec(
            files=[[name, place] for place, name in sorted(service.image.files.items())],
            workdir=service.image.workdir,
            command=command or service.command,
            env=service.environment,
            passed=[*SETTINGS, "DATABASE_CONNECTIONS", "WEB_CONCURRENCY", *(() if only_files else SECRETS)],
            secrets={target: variable for target, variable in files.items() if variable != without.upper()},
            programs=service.image.programs,
        )

    async def start(
        self,
        name: str,
        *,
        env: Mapping[str, str] | None = None,
        only_files: bool = False,
        only_variables: bool = False,
        without: str = "",
        command: list[str] | None = None,
    ) -> Started:
        """Starts a service, and returns when its process exists. `env` are more variables of the platform.

        Its secrets are files and variables, or only one of them, and it gets none that is called `without`. With
        `command` it runs that in place of its own.
        """
        service = self.compose.service(name)
        spec = self.spec(service, command, only_files=only_files, only_variables=only_variables, without=without)
        return Started(service, await self._start(name, spec, env or {}))

    async def web(
        self,
        *,
        env: Mapping[str, str] | None = None,
        only_files: bool = False,
        command: list[str] | None = None,
    ) -> Web:
        """Starts `web`, and returns when it accepts connections. The arguments are those of `start`."""
        port = await self._free_port()
        settings = {"PORT": str(port), **(env or {})}
        started = await self.start("web", env=settings, only_files=only_files, command=command)
        await self._expect_accepts(started, port)
        app = await self._stack.enter_async_context(self._client(started.process, port))
        await self._expect_responds(started, app)
        return Web(started.service, started.process, app, port, self.testbed)

    async def serves_without(self, secret: str) -> bool:
        """Whether `web` starts and responds though the platform does not give it this secret."""
        port = await self._free_port()
        started = await self.start("web", env={"PORT": str(port)}, only_files=True, without=secret)
        app = await self._stack.enter_async_context(self._client(started.process, port))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STARTED_WHEN_BUSY if busy() else STARTED):
                while not started.process.exit.done():
                    if await accepts(self.testbed, port):
                        with contextlib.suppress(NoResponse):
                            return (await app.get("/live")).ok
                    await asyncio.sleep(0.05)
        return False

    async def check_health(self, web: Web, command: list[str] | None = None) -> CompletedCommand:
        """Runs the health check of `web` once, or `command`, in a container of its own, beside the one that serves."""
        spec = self.spec(web.service, command or web.service.health)
        process = await self._start("health check", spec, {"PORT": str(web.port)})
        await asyncio.wait({process.exit}, timeout=STARTED_WHEN_BUSY if busy() else STARTED)
        code = process.exit.result() if process.exit.done() else None
        return CompletedCommand("the health check", code, process.log)

    @property
    def _env(self) -> dict[str, str]:
        return {"TMPDIR": str(self.testbed.runtime.scratch)}

    async def _start(self, name: str, spec: ContainerSpec, env: Mapping[str, str]) -> RunningProcess:
        return await self.testbed.start(CONTAINER, json.dumps(asdict(spec)), name=name, env={**self._env, **env})

    async def _free_port(self) -> int:
        """A port that nothing listens on, outside of those that systems give to clients."""
        while await accepts(self.testbed, port := next(_ports)):
            pass
        return port

    async def _expect_accepts(self, started: Started, port: int) -> None:
        process = started.process
        limit = STARTED_WHEN_BUSY if busy() else STARTED
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit):
                while not (process.exit.done() or await self._listens_inside_only(port)):
                    if await accepts(self.testbed, port):
                        return
                    await asyncio.sleep(0.02)
        if await accepts(self.testbed, port):
            return
        command = " ".join(started.service.command)
        if process.exit.done():
            how = f"ended with exit code {process.exit.result()}"
        elif await self._listens_inside_only(port):
            how = "listens on 127.0.0.1 only, where nothing outside of its container reaches it"
        else:
            how = f"does not listen on the port of PORT, {port}, after {limit:.0f} s"
        expect(False, f"`{command}` {how}. {last_line(process.log)}", because=NOT_STARTED, section=FIVE_WAYS)

    async def _listens_inside_only(self, port: int) -> bool:
        if OUTSIDE == "127.0.0.1" or not await accepts(self.testbed, port, "127.0.0.1"):
            return False
        return not await accepts(self.testbed, port)

    async def _expect_responds(self, started: Started, app: App) -> None:
        """Returns when it has responded: some servers accept connections before the app is imported."""
        try:
            await app.get("/live", timeout=STARTED_WHEN_BUSY if busy() else STARTED)
        except NoResponse as error:
            command, why = " ".join(started.service.command), last_line(started.process.log)
            expect(False, f"`{command}` has started. {error} {why}", because=NOT_STARTED, section=FIVE_WAYS)

    @asynccontextmanager
    async def _client(self, process: RunningProcess, port: int) -> AsyncIterator[App]:
        """The service as an App, reached through a socket that leads into the sandbox, if there is one."""
        path = self.testbed.runtime.scratch / f"web-{port}.sock"

        async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                there, back = await self.testbed.runtime.dial(OUTSIDE, port)
            except OSError:
                writer.transport.abort()
                return
            ways = {asyncio.ensure_future(pipe(reader, back)), asyncio.ensure_future(pipe(there, writer))}
            try:
                await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for way in ways:
                    way.cancel()
                back.close()
                writer.close()

        server = await asyncio.start_unix_server(relay, path)
        transport = httpx.AsyncHTTPTransport(
            uds=str(path), verify=False, limits=httpx.Limits(max_connections=None, max_keepalive_connections=0)
        )
        client = httpx.AsyncClient(
            transport=transport,
            base_url=f"http://{HOST}",
            headers={"Host": HOST},
            timeout=RESPONSE_TIMEOUT,
            trust_env=False,
        )
        try:
            async with client:
                yield App(process, client, str(path), self.testbed.note)
        finally:
            server.close()


async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Passes on what arrives until its end."""
    with contextlib.suppress(ConnectionError):
        while part := await reader.read(1 << 16):
            writer.write(part)
            await writer.drain()


async def accepts(testbed: Testbed, port: int, host: str = OUTSIDE) -> bool:
    """Whether a process accepts a connection there."""
    try:
        _, writer = await testbed.runtime.dial(host, port)
    except OSError:
        return False
    writer.close()
    return True


def last_line(log: str) -> str:
    """The line of a log that says why a process has ended."""
    line = CompletedCommand("", None, log).last_line
    return f"It printed: {line[:300]}" if line else "It printed nothing."
