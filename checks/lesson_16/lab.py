"""What the notebook of lesson 16 tries in its own process: middleware and errors, ids, the price of a line."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import threading
import time
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any

import httpx
from fastapi import BackgroundTasks, Depends, FastAPI, HTTPException
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.middleware.base import BaseHTTPMiddleware


def _small_app() -> Any:
    """An app with an endpoint for each kind of error."""
    app = FastAPI()

    @app.get("/refused")
    async def refused() -> None:
        raise HTTPException(409, "no")

    @app.get("/rejected")
    async def rejected(number: int) -> None: ...

    @app.get("/handled")
    async def handled() -> None:
        raise KeyError

    @app.get("/failed")
    async def failed() -> None:
        raise ZeroDivisionError

    @app.get("/stream")
    async def stream() -> StreamingResponse:
        async def body() -> Any:
            yield "first"
            raise ZeroDivisionError

        return StreamingResponse(body())

    @app.get("/background")
    async def background(tasks: BackgroundTasks) -> None:
        tasks.add_task(lambda: 1 / 0)

    async def answer(_: Any, error: Exception) -> JSONResponse:
        return JSONResponse({}, 404)

    async def sorry(_: Any, error: Exception) -> JSONResponse:
        return JSONResponse({}, 500)

    app.add_exception_handler(KeyError, answer)
    app.add_exception_handler(Exception, sorry)
    return app


async def who_sees_what() -> dict[str, dict[str, str]]:
    """For each kind of error what three layers see: BaseHTTPMiddleware, an ASGI middleware, and one around the app."""
    table: dict[str, dict[str, str]] = {}
    for what, path in {
        "HTTPException": "/refused",
        "a request that is not valid": "/rejected",
        "an error with a handler": "/handled",
        "an error without one": "/failed",
        "an error in a streamed body": "/stream",
        "an error in a background task": "/background",
        "an unknown path": "/nothing",
    }.items():
        notes: dict[str, str] = {}
        app = _small_app()
        app.add_middleware(_Layer, name="ASGI middleware", notes=notes)

        async def dispatch(request: Any, call_next: Callable[[Any], Awaitable[Any]], notes: Any = notes) -> Any:
            notes["BaseHTTPMiddleware"] = "nothing"
            try:
                response = await call_next(request)
            except Exception as error:
                notes["BaseHTTPMiddleware"] = type(error).__name__
                raise
            notes["BaseHTTPMiddleware"] = str(response.status_code)
            return response

        app.add_middleware(BaseHTTPMiddleware, dispatch=dispatch)
        outer = _Layer(app, name="around the app", notes=notes)
        transport = httpx.ASGITransport(outer, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://lab") as client:
            try:
                notes["the client"] = str((await client.get(path)).status_code)
            except Exception as error:  # the transport has no status where the body broke
                notes["the client"] = type(error).__name__
        table[what] = notes
    return table


class _Layer:
    def __init__(self, app: Any, name: str, notes: dict[str, str]) -> None:
        self.app, self.name, self.notes = app, name, notes

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        said: list[str] = []

        async def noting(message: Any) -> None:
            if message["type"] == "http.response.start":
                said.append(str(message["status"]))
            await send(message)

        try:
            await self.app(scope, receive, noting)
        except Exception as error:
            said.append(type(error).__name__)
            raise
        finally:
            self.notes[self.name] = ", then ".join(said)


async def where_ids_live() -> dict[str, list[str]]:
    """Whose id a request finds after another one has come in between, for four places to keep it."""
    shared: dict[str, str] = {}
    local = threading.local()
    variable: ContextVar[str] = ContextVar("variable", default="none")
    by_sync: ContextVar[str] = ContextVar("by_sync", default="none")
    second_came, found = asyncio.Event(), {}

    def sync_dependency(name: str) -> None:
        by_sync.set(name)

    app = FastAPI()

    def read() -> dict[str, str]:
        return {
            "a global": shared.get("id", "none"),
            "threading.local": getattr(local, "id", "none"),
            "a ContextVar": variable.get(),
            "a ContextVar, set in a def dependency": by_sync.get(),
        }

    def in_background(name: str) -> None:
        found[f"{name}, in a background task"] = read()

    @app.get("/", dependencies=[Depends(sync_dependency)])
    async def endpoint(name: str, tasks: BackgroundTasks) -> None:
        if name == "A":
            await second_came.wait()
        found[name] = read()
        tasks.add_task(in_background, name)

    async def keeps(scope: Any, receive: Any, send: Any) -> None:
        name = scope["query_string"].decode().removeprefix("name=")
        shared["id"] = local.id = name
        variable.set(name)
        if name == "B":
            second_came.set()
        await app(scope, receive, send)

    async with httpx.AsyncClient(transport=httpx.ASGITransport(keeps), base_url="http://lab") as client:
        first = asyncio.create_task(client.get("/?name=A"))
        await asyncio.sleep(0)
        await asyncio.gather(first, client.get("/?name=B"))
    places = next(iter(found.values()))
    return {place: [found[who][place] for who in sorted(found)] for place in places} | {"": sorted(found)}


def price_of_a_line() -> dict[str, float]:
    """Microseconds of the processor for a line of a request with seven fields, in the best of many rounds."""
    import structlog

    out = io.StringIO()
    fields = {"method": "GET", "route": "/books/{book_id}", "status": 200, "duration_ms": 12.3, "statements": 3,
              "database_ms": 4.5, "pool_wait_ms": 0.1}  # fmt: skip

    class AsJson(logging.Formatter):
        def format(self, record: logging.LogRecord) -> str:
            return json.dumps({"level": record.levelname, "event": record.getMessage(), **record.__dict__["fields"]})

    def logger(name: str, formatter: logging.Formatter, level: int = logging.INFO) -> logging.Logger:
        made = logging.getLogger(f"lab.{name}")
        handler = logging.StreamHandler(out)
        handler.setFormatter(formatter)
        made.handlers, made.propagate = [handler], False
        made.setLevel(level)
        return made

    plain, as_json = logger("plain", logging.Formatter("%(levelname)s: %(message)s")), logger("json", AsJson())
    quiet = logger("quiet", logging.Formatter(), logging.WARNING)
    struct = structlog.wrap_logger(
        structlog.PrintLogger(out),
        processors=[structlog.processors.TimeStamper(fmt="iso"), structlog.processors.JSONRenderer()],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
    )
    ways: dict[str, Callable[[], Any]] = {
        "logging, plain text": lambda: plain.info("request %s", fields),
        "logging, JSON": lambda: as_json.info("request", extra={"fields": fields}),
        "structlog, JSON": lambda: struct.info("request", **fields),
        "logging, below the level": lambda: quiet.info("request %s", fields),
        "the same, with an f-string": lambda: quiet.info(f"request {json.dumps(fields)}"),
    }
    return {way: min(_round(write, out) for _ in range(100)) for way, write in ways.items()}


def _round(write: Callable[[], Any], out: io.StringIO, times: int = 50) -> float:
    out.seek(0)
    started = time.thread_time()  # other processes do not count
    for _ in range(times):
        write()
    return (time.thread_time() - started) / times * 1e6
