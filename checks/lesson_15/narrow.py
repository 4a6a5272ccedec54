"""An app with a single connection, and clients that come again when it is busy."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from checks.kit.service.app import PendingRequest

if TYPE_CHECKING:
    from checks.kit.service.app import App, Response

TRIES = 8
"""On a busy machine a request may wait for the connection for longer than the app allows, which is a second."""


class Narrow:
    """The app. Its `request`, `start_request`, `get` and so on send a request again after 503 with Retry-After."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def request(self, method: str, path: str, **options: Any) -> Response:
        for _ in range(TRIES):
            response = await self._app.request(method, path, **options)
            if response.status != 503 or "retry-after" not in response.headers:
                break
        return response

    def start_request(self, method: str, path: str, **options: Any) -> PendingRequest:
        """Sends a request and returns without waiting for the response."""
        return PendingRequest(asyncio.create_task(self.request(method, path, **options)))

    def __getattr__(self, name: str) -> Any:
        if name in ("get", "post", "put", "patch", "delete"):
            send: Callable[..., Awaitable[Response]] = functools.partial(self.request, name.upper())
            return send
        return getattr(self._app, name)
