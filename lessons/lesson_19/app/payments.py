"""The payment provider, as the shop sees it."""

import asyncio
import logging
from typing import Annotated
from uuid import UUID

import httpx
from fastapi import Depends, Request

from app.models import PaymentStatus

log = logging.getLogger(__name__)


class Provider:
    """Charges cards, and gives money back. One call takes at most `timeout` seconds."""

    def __init__(self, client: httpx.AsyncClient, timeout: float) -> None:
        self.client = client
        self.timeout = timeout

    async def charge(self, key: UUID, card_token: str, amount_cents: int) -> PaymentStatus:
        """Asks for a charge. `pending` means that nobody knows: there was no response, or none that decides.

        The provider charges once for each key. It responds to a repeated request with the result of the first one.
        """
        body = {"card_token": card_token, "amount_cents": amount_cents}
        try:
            async with asyncio.timeout(self.timeout):
                response = await self.client.post("/charges", json=body, headers={"Idempotency-Key": str(key)})
        except (httpx.HTTPError, TimeoutError) as error:
            log.warning("no response from the payment provider about %s %s: %r", key, body, error)
            return PaymentStatus.pending
        match response.status_code:
            case 201:
                return PaymentStatus.accepted
            case 402:
                return PaymentStatus.refused
            case status:
                log.warning("the payment provider responded to %s with status %s", key, status)
                return PaymentStatus.pending

    async def refund(self, key: UUID, charge_key: UUID, amount_cents: int) -> bool:
        """Gives the money of a charge back. False means that nobody knows whether that was done.

        The provider does so once for each key, which must not be that of the charge.
        """
        body = {"charge_key": str(charge_key), "amount_cents": amount_cents}
        try:
            async with asyncio.timeout(self.timeout):
                response = await self.client.post("/refunds", json=body, headers={"Idempotency-Key": str(key)})
        except (httpx.HTTPError, TimeoutError) as error:
            log.warning("no response from the payment provider about the refund %s: %r", key, error)
            return False
        if response.status_code != 201:
            log.warning("the payment provider responded to the refund %s with status %s", key, response.status_code)
        return response.status_code == 201


async def get_provider(request: Request) -> Provider:
    provider: Provider = request.state.provider
    return provider


PaymentProvider = Annotated[Provider, Depends(get_provider)]
