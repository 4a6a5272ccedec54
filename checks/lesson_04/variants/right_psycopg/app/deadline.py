import asyncio

from fastapi.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send


class Deadline:
    """Answers for a request that has not begun to answer after three seconds, and lets it clean up behind that.

    psycopg asks the server to cancel a statement before it gives up, and a silent server takes its time.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self.cleaning: set[asyncio.Task[None]] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        begun = asyncio.Event()
        given_up = False

        async def sending(message: Message) -> None:
            begun.set()
            if not given_up:
                await send(message)

        async def serve() -> None:
            await self.app(scope, receive, sending)

        task = asyncio.create_task(serve())
        started = asyncio.create_task(begun.wait())
        await asyncio.wait({task, started}, timeout=3, return_when=asyncio.FIRST_COMPLETED)
        started.cancel()
        if begun.is_set() or task.done():
            return await task
        given_up = True
        self.cleaning.add(task)
        task.add_done_callback(self.cleaning.discard)
        task.cancel()
        await JSONResponse({"detail": "later"}, 503, headers={"Retry-After": "2"})(scope, receive, send)
