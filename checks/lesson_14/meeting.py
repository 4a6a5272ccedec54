"""Where two runs of a suite meet: they go from test to test together."""

from __future__ import annotations

import asyncio
import socket

LEAST = 5.0
"""Seconds that a run waits for the other one, also if both are quick."""


class Meeting:
    """Each run waits after the fixtures of a test until the other one is as far, so what both make exists at once.

    The second run starts when the first one is at its first test, and it finds what that one has made. It waits at its
    last test until the first one has ended, and is still at work while the fixtures of the first one clean up.

    A suite may let one run wait until the other one ends. So nobody waits longer than a multiple of what a run needed
    to get to its first test; then each goes on by itself.
    """

    NAMES = ("first", "second")

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self._reached = dict.fromkeys(self.NAMES, -1)
        self._ended = dict.fromkeys(self.NAMES, False)
        self._changed = asyncio.Condition()
        self._apart = False
        self._opened = asyncio.get_running_loop().time()
        self._patience: float | None = None

    async def __aenter__(self) -> Meeting:
        self._server = await asyncio.start_server(self._run, sock=self._listener)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    def option(self, name: str) -> str:
        """For the command line of a run."""
        host, port = self._listener.getsockname()
        return f"--kit-meet={name}@{host}:{port}"

    @property
    def apart(self) -> bool:
        """Whether somebody waited in vain: the suite lets one run wait for the other one."""
        return self._apart

    async def begun(self, name: str) -> None:
        """Returns when this run is at its first test, or has ended."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._reached[name] >= 0 or self._ended[name])

    async def end(self, name: str) -> None:
        """Nobody waits for this run any more."""
        async with self._changed:
            self._ended[name] = True
            self._changed.notify_all()

    async def _run(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                name, here, of = line.decode().split()
                await self._wait(name, int(here), is_last=int(here) + 1 == int(of))
                writer.write(b"!")
                await writer.drain()
        except ConnectionError:  # it was killed
            pass
        finally:
            writer.close()

    async def _wait(self, name: str, here: int, *, is_last: bool) -> None:
        first, second = self.NAMES
        other = second if name == first else first

        def may_go_on() -> bool:
            if self._apart or self._ended[other]:
                return True
            return self._reached[other] >= here and not (is_last and name == second)

        async with self._changed:
            self._reached[name] = here
            self._changed.notify_all()
            if self._patience is None:
                self._patience = max(LEAST, 3 * (asyncio.get_running_loop().time() - self._opened))
            try:
                await asyncio.wait_for(self._changed.wait_for(may_go_on), self._patience)
            except TimeoutError:
                self._apart = True
                self._changed.notify_all()
