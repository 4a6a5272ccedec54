"""The port on which the proxy accepts clients."""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Callable

from checks.kit.service.inside.spec import bind_port

BACKLOG = 512
"""A check may open hundreds of connections at once, and the kernel would make the rest wait a second."""


class Listener:
    """A listening socket that can stop listening and keep its port: a client that connects meanwhile is refused.

    `given` is a bound socket to use, such as one of a sandbox's loopback; by default there is a new one.
    """

    def __init__(self, accept: Callable[[], asyncio.Protocol], given: socket.socket | None = None) -> None:
        self._accept = accept
        self._socket = given or bind_port()
        self._server: asyncio.Server | None = None

    @property
    def port(self) -> int:
        return int(self._socket.getsockname()[1])

    @property
    def listening(self) -> bool:
        return self._server is not None

    async def listen(self) -> None:
        """Accepts clients from now on."""
        # asyncio closes the socket that it was given, so it gets a descriptor of its own
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(self._accept, sock=self._socket.dup(), backlog=BACKLOG)

    def refuse(self, *, linux: bool = sys.platform == "linux") -> None:
        """Stops listening, so that the kernel refuses connections (ECONNREFUSED). No other process gets the port.

        `linux`: as only Linux can, with the same socket. That is needed in a sandbox, where no socket can be made from
        here.
        """
        self._stop()
        if linux:
            self._socket.shutdown(socket.SHUT_RD)
        else:
            kept = bind_port(self.port)
            self._socket.close()
            self._socket = kept

    def close(self) -> None:
        """Gives the port up."""
        self._stop()
        self._socket.close()

    def _stop(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
