"""Serves the page on 127.0.0.1: its files, the changes as server-sent events, and what its buttons ask for."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from checks.kit.view.guard import Guard
from checks.kit.view.regions import Regions
from checks.kit.view.render import render

STATIC = Path(__file__).parent / "static"

LEAVE_TIMEOUT = 2
"""Seconds after which connections of browsers are cut at the end; a bound for failures."""


@contextlib.asynccontextmanager
async def serving(
    regions: Regions, act: Callable[[str], bool], command: str, template: str = "page.html"
) -> AsyncIterator[str]:
    """Serves the page while the block lasts; yields its address, which holds a token that nobody can guess.

    `act` gets the path of what a button asks for, and returns whether there is such a thing. `command` is what to type
    to have the page again. `template` is the page with the places of the regions.
    """
    token = secrets.token_urlsafe(16)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()  # now, so that a browser which is opened at once waits for the server instead of giving up
        config = uvicorn.Config(
            Guard(_app(regions, act, render(template, command=command), token), token),
            lifespan="off",
            ws="none",
            log_config=None,
            log_level="critical",
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_graceful_shutdown=LEAVE_TIMEOUT,
        )
        server = _Server(config)
        running = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}/{token}/"
        finally:
            regions.close()  # first: the server waits for responses that have not ended
            server.should_exit = True
            await running


class _Server(uvicorn.Server):
    """uvicorn that leaves the signals to the command that runs it."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _app(regions: Regions, act: Callable[[str], bool], html: str, token: str) -> Starlette:
    async def page(request: Request) -> Response:
        return HTMLResponse(html)

    async def events(request: Request) -> Response:
        return StreamingResponse(_messages(regions), media_type="text/event-stream")

    async def do(request: Request) -> Response:
        return Response(status_code=204 if act(request.path_params["action"]) else 404)

    routes = [
        Route("/", page),
        Route("/events", events),
        Route("/do/{action:path}", do, methods=["POST"]),
        Mount("/static", StaticFiles(directory=STATIC)),
    ]
    return Starlette(routes=[Mount(f"/{token}", routes=routes)])


async def _messages(regions: Regions) -> AsyncIterator[str]:
    """The changes in the format of server-sent events; one that only says that we are there is a comment."""
    async with contextlib.aclosing(regions.follow()) as changes:  # type: ignore[type-var]
        async for change in changes:
            if change is None:
                yield ": still here\n\n"
            else:
                name, html = change
                yield f"data: {json.dumps({'name': name, 'html': html})}\n\n"
