"""Says in a header of each response which of the learner's functions made it, for "Where to look"."""

from __future__ import annotations

import inspect
from typing import Any
from urllib.parse import quote

HEADER = "x-workbook-endpoint"
"""`path:line:function`, percent-encoded; only where the framework has noted the endpoint in the scope."""


class EndpointHeader:
    """ASGI middleware outside of the app, so that responses of the app's own error handling have the header, too."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_header(message: Any) -> None:
            if message["type"] == "http.response.start" and (place := _place(scope.get("endpoint"))):
                header = (HEADER.encode(), quote(place).encode())
                message = message | {"headers": [*message.get("headers", ()), header]}
            await send(message)

        await self._app(scope, receive, send_with_header)


def _place(endpoint: Any) -> str:
    """Empty for what is not a function, such as a mounted app."""
    code = getattr(inspect.unwrap(endpoint), "__code__", None) if callable(endpoint) else None
    return f"{code.co_filename}:{code.co_firstlineno}:{code.co_name}" if code else ""
