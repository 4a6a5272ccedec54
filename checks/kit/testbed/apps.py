"""Several processes of the app on one database, as behind a load balancer, and many requests at once to them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, overload

from checks.kit.testbed.endpoints import Endpoint

if TYPE_CHECKING:
    from checks.kit.service.app import App, PendingRequest, Response
    from checks.kit.testbed.testbed import Testbed

RequestToSend = Endpoint | tuple[str, str] | tuple[str, str, dict[str, Any]]
"""One of `endpoints(ids)`, or method, path and the options of httpx: `("POST", "/orders", {"json": {...}})`."""


class Apps(Sequence["App"]):
    """Processes of the app on one database: `apps[0]`, `apps[1]`. They share nothing but the database."""

    def __init__(self, apps: Sequence[App]) -> None:
        self._apps = tuple(apps)

    def __len__(self) -> int:
        return len(self._apps)

    @overload
    def __getitem__(self, index: int) -> App: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[App, ...]: ...
    def __getitem__(self, index: int | slice) -> App | tuple[App, ...]:
        return self._apps[index]

    def start_requests(self, requests: Iterable[RequestToSend]) -> list[PendingRequest]:
        """Sends all without waiting for a response, in turns to the processes: the first to `apps[0]`, and so on."""
        pending = []
        for number, request in enumerate(requests):
            method, path, options = _parts(request)
            pending.append(self._apps[number % len(self._apps)].start_request(method, path, **options))
        return pending

    async def at_once(self, requests: Iterable[RequestToSend]) -> list[Response]:
        """Sends all at the same time, in turns to the processes, and returns the responses in the order of requests.

        `await apps.at_once([("POST", "/orders", {"json": order})] * 20)`. When one gets none, the others have ended
        before NoResponse is raised.
        """
        pending = self.start_requests(requests)
        ended = await asyncio.gather(*(request.task for request in pending), return_exceptions=True)
        for response in ended:
            if isinstance(response, BaseException):
                raise response
        return [request.task.result() for request in pending]


async def launch_apps(testbed: Testbed, env: Sequence[Mapping[str, str]] = ({}, {})) -> Apps:
    """Starts a process with each of these settings at the same time and returns when all accept requests.

    Raises AppDidNotStart.
    """
    started = await asyncio.gather(*(testbed.launch(one) for one in env), return_exceptions=True)
    for app in started:
        if isinstance(app, BaseException):
            raise app
    return Apps([app for app in started if not isinstance(app, BaseException)])


def _parts(request: RequestToSend) -> tuple[str, str, dict[str, Any]]:
    if isinstance(request, Endpoint):
        return request.method, request.path, request.options
    method, path, *options = request
    return method, path, dict(*options)
