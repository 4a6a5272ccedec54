"""Sends the mail of the outbox: `python -m app.worker`. Any number of workers may run at the same time."""

import asyncio
import logging
from uuid import uuid4

import httpx
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from app.database import open_engine
from app.listening import listening
from app.mail import send_confirmation
from app.models import Mail
from app.settings import WorkerSettings, load_settings

log = logging.getLogger("app.worker")


async def work(settings: WorkerSettings) -> None:
    """Sends each mail of which PostgreSQL notifies the worker. The notification is the row's id."""
    arrived: asyncio.Queue[int] = asyncio.Queue()
    async with (
        open_engine(settings.database_url, pool_size=2) as engine,
        httpx.AsyncClient(base_url=str(settings.mail_url)) as gateway,
        listening(engine, "outbox", lambda payload: arrived.put_nowait(int(payload))),
    ):
        sessions = async_sessionmaker(engine, expire_on_commit=False)
        while True:
            await send(sessions, gateway, await arrived.get(), settings)


async def send(
    sessions: async_sessionmaker[AsyncSession], gateway: httpx.AsyncClient, mail_id: int, settings: WorkerSettings
) -> None:
    """Sends one mail, unless another worker has begun it. No transaction is open while the gateway is asked."""
    async with sessions.begin() as session:
        mail = await session.get(Mail, mail_id)
        if mail is None or mail.status != "pending":
            return
        mail.status = "processing"
    while True:
        try:
            await send_confirmation(gateway, str(uuid4()), mail.order_id, mail.recipient, mail.total_cents)
            break
        except (httpx.HTTPError, TimeoutError) as error:
            log.warning("order %s: %r", mail.order_id, error)
            await asyncio.sleep(settings.mail_retry_seconds)
    async with sessions.begin() as session:
        session.add(mail)
        mail.status = "sent"


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(levelname)s: %(message)s")
    asyncio.run(work(load_settings(WorkerSettings)))
