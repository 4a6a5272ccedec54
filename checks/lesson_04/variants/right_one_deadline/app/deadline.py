import asyncio

from fastapi.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send


class Deadline:
    """Gives up a request that has not begun to answer after five seconds."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        try:
            async with asyncio.timeout(5) as limit:

                async def begun(message: Message) -> None:
                    limit.reschedule(None)
                    await send(message)

                await self.app(scope, receive, begun)
        except TimeoutError:
            await JSONResponse({"detail": "later"}, 503, headers={"Retry-After": "2"})(scope, receive, send)
