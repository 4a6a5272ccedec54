"""What the mail gateway is asked to send."""

import asyncio
import os

import httpx

TIMEOUT = float(os.environ.get("MAIL_TIMEOUT_SECONDS", "10"))
"""Seconds for one call, to the last byte of its response. Then TimeoutError is raised."""


async def send_mail(
    gateway: httpx.AsyncClient, key: str, template: str, order_id: int, recipient: str, total_cents: int
) -> None:
    """Hands a mail to the gateway; raises if the gateway does not accept it.

    The gateway sends a message once, however often it gets it with the same key.
    """
    message = {
        "to": recipient,
        "template": template,
        "data": {"order_id": order_id, "total_cents": total_cents},
    }
    async with asyncio.timeout(TIMEOUT):  # the limits of httpx are for parts of a call
        response = await gateway.post("/messages", json=message, headers={"Idempotency-Key": key}, timeout=None)
    response.raise_for_status()
