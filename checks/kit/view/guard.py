"""Who may read the page: a browser on this machine that has its address. No other web page may, nor drive it."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse

HOSTS = ("127.0.0.1", "localhost")
"""Names under which the page may be asked for. A web page that gives its own name our address uses another one."""

POLICY = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}
"""Headers of every response: a browser runs our one script, and asks nobody else for anything."""

ASGIApp = Callable[[Any, Any, Any], Awaitable[None]]


class Guard:
    """ASGI middleware. The token is the first part of each path; a cookie would reach the learner's app as well."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app = app
        self._token = token

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return

        async def send_guarded(message: Any) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(POLICY)
            await send(message)

        why = self._refusal(scope["method"], scope["path"], Headers(scope=scope))
        app = PlainTextResponse(f"{why}\n", 403) if why else self._app
        await app(scope, receive, send_guarded)

    def _refusal(self, method: str, path: str, headers: Headers) -> str:
        """Why a request is refused; empty if it is not."""
        host = headers.get("host", "")
        if len(headers.getlist("host")) != 1 or host.rpartition(":")[0] not in HOSTS:
            return f"This page is served to {' and '.join(HOSTS)} only."
        origin, site = headers.get("origin"), headers.get("sec-fetch-site", "none")
        if (origin or method not in ("GET", "HEAD")) and origin != f"http://{host}":
            return "This request comes from another web page."
        if site not in ("none", "same-origin") and headers.get("sec-fetch-mode") != "navigate":
            return "This request comes from another web page."
        token = path.lstrip("/").partition("/")[0]
        if not secrets.compare_digest(token.encode(), self._token.encode()):
            return "The address is not complete. Open the one that the terminal shows; each start has a new one."
        return ""
