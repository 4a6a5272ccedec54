"""The payment provider of the tests: a small ASGI app that writes down what it is asked."""

from typing import Any


class Provider:
    """`status` is what it responds with, `keys` are the Idempotency-Keys of all charges so far."""

    def __init__(self) -> None:
        self.url = ""
        self.status = 201
        self.keys: list[str] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        self.keys.append(dict(scope["headers"])[b"idempotency-key"].decode())
        while (await receive()).get("more_body"):
            pass
        headers = [(b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        await send({"type": "http.response.body", "body": b'{"id": "ch_1"}'})
