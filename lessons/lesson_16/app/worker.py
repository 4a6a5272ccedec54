"""Sends the mail of the outbox: `python -m app.worker`. Any number of workers may run at the same time."""

import asyncio
import logging
from datetime import timedelta
from signal import SIGINT, SIGTERM

import asyncpg
import httpx
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker

from app.busy import Unavailable
from app.database import open_engine
from app.listening import listening
from app.logs import configure_logs
from app.mail import send_confirmation
from app.outbox import claim, mark_failed, mark_sent, next_mail
from app.sales.invoices import write_invoice
from app.settings import WorkerSettings, load_settings
from app.tenancy import Tenant, sessions_of

log = logging.getLogger("app.worker")

AT_LEAST_EVERY = 30.0
"""Seconds after which the worker looks by itself: for a notification that was lost with a connection."""

DATABASE_ERRORS = (Unavailable, SQLAlchemyError, asyncpg.PostgresError, asyncpg.InterfaceError, OSError)
"""What the engine raises, and what its driver raises where the engine does not look: for LISTEN."""

AFTER_AN_OUTAGE = 0.25
"""Seconds between two attempts to reach the database."""


async def work(settings: WorkerSettings) -> None:
    """Sends mail until SIGTERM or SIGINT. The mail at hand is finished first."""
    stopping, wake = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def stop() -> None:
        stopping.set()
        wake.set()

    for signum in (SIGTERM, SIGINT):
        loop.add_signal_handler(signum, stop)
    async with (
        open_engine(settings.app_database_url, pool_size=2) as engine,
        httpx.AsyncClient(base_url=str(settings.mail_url)) as gateway,
    ):
        while not stopping.is_set():
            try:
                async with listening(engine, "outbox", lambda _: wake.set()) as line:
                    line.add_termination_listener(lambda _: wake.set())
                    while not (stopping.is_set() or line.is_closed()):
                        wake.clear()  # before looking, so that what comes in between is not missed
                        idle = await send_next(engine, gateway, settings)
                        if idle > 0:
                            await wait_for(wake, idle)
            except DATABASE_ERRORS as error:
                log.warning("no database: %r", error.__cause__ or error)
                await wait_for(stopping, AFTER_AN_OUTAGE)


async def send_next(engine: AsyncEngine, gateway: httpx.AsyncClient, settings: WorkerSettings) -> float:
    """Sends the mail that is due first. Returns how many seconds the worker may wait before it looks again."""
    async with AsyncSession(engine) as session:  # in no shop
        first = await next_mail(session)
    if first is None:
        return AT_LEAST_EVERY
    shop_id, seconds = first
    if seconds > 0:
        return min(seconds, AT_LEAST_EVERY)
    await send_for_shop(sessions_of(engine, Tenant(shop_id), expire_on_commit=False), gateway, settings)
    return 0


async def send_for_shop(
    sessions: async_sessionmaker[AsyncSession], gateway: httpx.AsyncClient, settings: WorkerSettings
) -> None:
    """Writes an invoice and sends its mail, if one is due. No transaction is open while the gateway is asked."""
    async with sessions.begin() as session:
        mail = await claim(session, timedelta(seconds=settings.mail_lease_seconds))
    if mail is None:  # another worker has it
        return
    key = f"order-confirmation-{mail.order_id}"  # the same for each attempt
    try:
        async with sessions.begin() as session:
            await write_invoice(session, mail.order_id)
        await send_confirmation(gateway, key, mail.order_id, mail.recipient, mail.total_cents)
    except Exception as error:  # whatever is wrong with one mail must not keep the others
        log.warning("order %s, attempt %s: %r", mail.order_id, mail.attempts, error)
        wait = timedelta(seconds=settings.mail_retry_seconds * 2 ** (mail.attempts - 1))
        async with sessions.begin() as session:
            await mark_failed(session, mail, repr(error), wait)
        return
    async with sessions.begin() as session:
        await mark_sent(session, mail)


async def wait_for(event: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        pass


if __name__ == "__main__":
    configure_logs()
    asyncio.run(work(load_settings(WorkerSettings)))
